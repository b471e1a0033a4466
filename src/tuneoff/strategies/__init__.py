"""The table of strategies. To add one, write its file, a row here, and a row of tests/strategies/rows.py."""

from tuneoff.strategies.adapter import Adapter, adapter
from tuneoff.strategies.base import (
    Adapted,
    EmbeddingsConfig,
    GradientConfig,
    ParameterCounts,
    Strategy,
    StrategyConfig,
    count_parameters,
    operations_by_block,
    operations_per_token,
)
from tuneoff.strategies.baselines import Majority, Tfidf, Untrained, majority, tfidf, untrained
from tuneoff.strategies.bitfit import BitFit, bitfit
from tuneoff.strategies.full import Full, full
from tuneoff.strategies.head import Head, head
from tuneoff.strategies.lora import LoRA, lora
from tuneoff.strategies.partial import Partial, partial
from tuneoff.strategies.peft import Peft, apply_peft
from tuneoff.strategies.probe import Probe, probabilities, probe, selected_options

STRATEGIES: dict[str, Strategy] = {
    "majority": Strategy(
        Majority, "texts", majority, "the most frequent class",
        is_seeded=False, learns=False, is_baseline=True, is_default=True,
    ),
    "tfidf": Strategy(
        Tfidf, "texts", tfidf, "logistic regression on TF-IDF of words and bigrams",
        is_seeded=False, is_baseline=True, is_default=True,
    ),
    "untrained": Strategy(
        Untrained, "model", untrained, "pretrained encoder with a randomly initialised head, not trained", learns=False
    ),
    "probe": Strategy(
        Probe, "embeddings", probe, "linear probe: a linear classifier on frozen embeddings",
        probabilities=probabilities, selected_options=selected_options, is_seeded=False, is_default=True,
    ),
    "head": Strategy(Head, "model", head, "encoder frozen, head trained", is_default=True),
    "partial": Strategy(Partial, "model", partial, "last blocks and head trained", is_default=True),
    "bitfit": Strategy(BitFit, "model", bitfit, "biases and head trained"),
    "lora": Strategy(
        LoRA, "model", lora, "LoRA: low-rank updates of chosen projections, and the head", is_default=True
    ),
    "adapter": Strategy(Adapter, "model", adapter, "bottleneck adapters in every block, and the head"),
    "peft": Strategy(
        Peft, "model", apply_peft, "another peft method, chosen by its type, and the head", needs_options=True
    ),
    "full": Strategy(Full, "model", full, "full fine-tuning: every parameter", is_default=True),
}  # fmt: skip

__all__ = [
    "STRATEGIES",
    "Adapted",
    "Adapter",
    "BitFit",
    "EmbeddingsConfig",
    "Full",
    "GradientConfig",
    "Head",
    "LoRA",
    "Majority",
    "ParameterCounts",
    "Partial",
    "Peft",
    "Probe",
    "Strategy",
    "StrategyConfig",
    "Tfidf",
    "Untrained",
    "count_parameters",
    "operations_by_block",
    "operations_per_token",
]
