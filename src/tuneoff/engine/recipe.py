"""How a strategy is trained: the same for every strategy of a study."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tuneoff.data.encode import LongTexts, Reading
from tuneoff.errors import ConfigError


class Recipe(BaseModel):
    """Everything about training but the learning rate, which is a strategy's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Devlin et al., NAACL 2019, A.3: 2 to 4
    epochs: int = Field(3, ge=1, description="passes over train, each followed by validation")
    max_steps: int | None = Field(None, ge=1, description="end after so many steps, whatever the epochs")
    # 0: what one asks for; small data needs more passes (Mosbach et al., ICLR 2021), and learning curves set it
    min_steps: int = Field(0, ge=0, description="at least so many: on small data an epoch then is several passes")
    batch_size: int = Field(16, ge=1, description="examples a step")  # the same source: 16 or 32
    # the same gradient in less memory; 1, because texts of 128 tokens need none of it
    accumulation: int = Field(1, ge=1, description="parts in which a step's examples are computed")
    # what most sentences and tweets need; attention's cost grows with the square of it
    max_length: int = Field(128, ge=4, description="tokens of a sequence, special ones included")
    # head: what everybody's truncation does
    long_texts: LongTexts = Field(
        "head",
        description="what of a longer text is read: its head, tail, head_tail, or windows whose logits are averaged",
    )
    # a quarter: no sentence is cut in two in every window
    overlap: float = Field(0.25, ge=0, lt=0.9, description="share of a window that the next one holds too")
    # a batch has to fit in memory; eight of 128 tokens hold 95 of 100 film reviews
    max_windows: int = Field(8, ge=1, description="windows of a text; what comes after them is cut")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises")  # BERT, RoBERTa
    # linear is BERT's
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="of the rate, after warm-up")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's; not on biases and norms")  # BERT
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")  # BERT
    # off: it saves memory and costs a third more time (Chen et al., 2016)
    checkpointing: bool = Field(False, description="compute what is inside blocks again instead of keeping it")
    # the pretrained model's own rates: what its authors fine-tuned with
    dropout: float | None = Field(None, ge=0, lt=1, description="of the encoder and its head, instead of their own")
    # cross-entropy is what published comparisons descend
    loss: Literal["cross_entropy", "focal"] = Field("cross_entropy", description="or focal (Lin et al., ICCV 2017)")
    focal_gamma: float = Field(2.0, gt=0, description="how much the focal loss turns to hard examples")  # Lin et al.
    # 0: published comparisons use none
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label that goes to all classes alike")
    # none: weights move scores from common to rare classes, which a user should ask for
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: every class counts the same")
    # natural for the same reason
    sampling: Literal["natural", "balanced"] = Field("natural", description="balanced: every class is drawn as often")
    # 1: one epoch's weights, as everybody reports
    average: int = Field(1, ge=1, description="mean of the weights of so many of the best epochs, if validation agrees")
    patience: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better validation score; by default all epochs run"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of training; auto is bf16 where the processor multiplies it natively"
    )

    @model_validator(mode="after")
    def _smooths_what_it_can(self) -> "Recipe":
        if self.loss == "focal" and self.label_smoothing:
            raise ConfigError("label_smoothing does not go with loss focal; use one of them")
        return self

    @property
    def reading(self) -> Reading:
        """How texts become tokens."""
        return Reading(self.max_length, self.long_texts, self.overlap, self.max_windows)

    @property
    def class_weight(self) -> str | None:
        """class_weights as scikit-learn names it."""
        return None if self.class_weights == "none" else self.class_weights

    def num_steps(self, num_examples: int) -> int:
        """Steps of a run on so many training examples."""
        steps = math.ceil(num_examples / self.batch_size) * self.epochs * self.passes(num_examples)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def passes(self, num_examples: int) -> int:
        """How often an epoch goes over so many training examples."""
        return max(1, math.ceil(self.min_steps / (math.ceil(num_examples / self.batch_size) * self.epochs)))
