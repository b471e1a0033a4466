"""The recipe: training settings that all strategies of a study share, with the reason for each default."""

import math
from collections.abc import Collection
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from tuneoff.data.spec import LongTexts, TruncationPolicy
from tuneoff.errors import ConfigError
from tuneoff.validation import Options


class Recipe(Options):
    """Training settings. The learning rate is not among them: each strategy has its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    # fields that are newer than the first stored runs: part of a run's id only if they are set
    newer: ClassVar[frozenset[str]] = frozenset({"head_dropout", "evaluate_every"})

    # Devlin et al., NAACL 2019, A.3: 2 to 4
    epochs: int = Field(3, ge=1, description="passes over train, each followed by validation")
    max_steps: int | None = Field(None, ge=1, description="end training after this many steps")
    # 0: epochs as set; small data needs more passes (Mosbach et al., ICLR 2021), and learning curves set this
    min_steps: int = Field(
        0, ge=0, description="train at least this many steps: on small data, several passes per epoch"
    )
    batch_size: int = Field(16, ge=1, description="examples per step")  # Devlin et al., A.3: 16 or 32
    # 1: texts of 128 tokens fit in memory; more parts give the same gradient in less memory
    accumulation: int = Field(1, ge=1, description="gradient accumulation: parts in which a step is computed")
    # 128: enough for most sentences and tweets; the cost of attention grows with its square
    max_length: int = Field(128, ge=4, description="tokens of a sequence, including special tokens")
    # head: the truncation of most libraries
    long_texts: LongTexts = Field(
        "head",
        description="truncation of longer texts: head, tail, head_tail, or windows whose logits are averaged",
    )
    # a quarter: a sentence of up to 32 tokens that one window cuts is whole in the next
    overlap: float = Field(0.25, ge=0, lt=0.9, description="share of a window that is also in the next one")
    # a batch has to fit in memory; eight windows of 128 tokens hold 95 of 100 film reviews
    max_windows: int = Field(8, ge=1, description="windows per text; the rest of the text is cut")
    # BERT, RoBERTa
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    # BERT
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="learning rate schedule after warm-up"
    )
    weight_decay: float = Field(0.01, ge=0, description="of AdamW; not on biases and norms")  # BERT
    clip: float = Field(1.0, gt=0, description="gradient clipping: largest norm of the gradient")  # BERT
    # off: it saves memory and costs a third more time (Chen et al., 2016)
    checkpointing: bool = Field(False, description="gradient checkpointing: recompute blocks to save memory")
    # the pretrained model's own rates, with which its authors fine-tuned it
    dropout: float | None = Field(None, ge=0, lt=1, description="replaces all dropout rates of encoder and head")
    # the encoder's: some published recipes name the rate of the head's dropout alone
    head_dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout rate of the head alone; the encoder keeps its own, or has dropout"
    )
    # cross-entropy: as in published comparisons
    loss: Literal["cross_entropy", "focal"] = Field("cross_entropy", description="or focal (Lin et al., ICCV 2017)")
    # Lin et al., section 4.1: 2 works best
    focal_gamma: float = Field(2.0, gt=0, description="focal loss: how much easy examples are down-weighted")
    # 0: as in published comparisons
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label that is spread over all classes")
    # none: weights move scores from common to rare classes, which a user should choose
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="against class imbalance; balanced: every class has the same total weight"
    )
    # natural: for the same reason
    sampling: Literal["natural", "balanced"] = Field(
        "natural", description="against class imbalance; balanced: every class is drawn equally often"
    )
    # 1: one epoch's weights, as in published comparisons
    average: int = Field(
        1, ge=1, description="average the weights of this many best epochs, if the validation score is not lower"
    )
    patience: int | None = Field(
        None, ge=1, description="stop after this many epochs without a better validation score; by default all run"
    )
    # an epoch: as in the scripts of the field
    evaluate_every: int | None = Field(
        None,
        ge=1,
        description="also validate after every so many steps, and keep the best weights of all; by default after each "
        "epoch",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="of training; auto: bf16 where it is multiplied natively, fp16 on other GPUs, else fp32",
    )

    @model_validator(mode="after")
    def _check_label_smoothing(self) -> "Recipe":
        if self.loss == "focal" and self.label_smoothing:
            raise ConfigError("label_smoothing does not go with loss focal; use one of them")
        return self

    @property
    def truncation(self) -> TruncationPolicy:
        """The truncation part of the recipe."""
        return TruncationPolicy(self.max_length, self.long_texts, self.overlap, self.max_windows)

    @property
    def class_weight(self) -> str | None:
        """The argument class_weight of scikit-learn's classifiers."""
        return None if self.class_weights == "none" else self.class_weights

    def key(self, fields: Collection[str] | None) -> dict[str, Any]:
        """Return the part of a run's id: the values of some fields, None for all; newer ones only if they are set."""
        values = self.model_dump(include=None if fields is None else set(fields))
        return {name: value for name, value in values.items() if value is not None or name not in self.newer}

    def num_steps(self, num_examples: int) -> int:
        """Number of steps of a run."""
        steps = math.ceil(num_examples / self.batch_size) * self.epochs * self.passes(num_examples)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def passes(self, num_examples: int) -> int:
        """Number of passes over train in each epoch; above 1 only on small data with min_steps."""
        return max(1, math.ceil(self.min_steps / (math.ceil(num_examples / self.batch_size) * self.epochs)))
