"""How a strategy is trained: the same for every strategy of a study."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """Everything about training but the learning rate, which is a strategy's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(3, ge=1, description="passes over train")  # Devlin et al., NAACL 2019, A.3: 2 to 4
    batch_size: int = Field(16, ge=1, description="examples a step")  # the same source: 16 or 32
    max_length: int = Field(128, ge=4, description="tokens of an example, special ones included; longer ones are cut")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises")  # BERT, RoBERTa
    schedule: Literal["linear", "cosine", "constant"] = "linear"  # after warm-up; linear is BERT's
    weight_decay: float = Field(0.01, ge=0, description="AdamW's; not on biases and norms")  # BERT
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")  # BERT
    patience: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better validation score; by default all epochs run"
    )
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # bf16 where the processor multiplies it natively
