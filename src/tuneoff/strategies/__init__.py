"""The table of strategies: to add one, write its file and a row here."""

from tuneoff.strategies.adapter import Adapter, adapter
from tuneoff.strategies.base import (
    Adapted,
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
from tuneoff.strategies.probe import Probe, probe

STRATEGIES: dict[str, Strategy] = {
    "majority": Strategy(Majority, "text", majority, "the most frequent class", is_seeded=False),
    "tfidf": Strategy(Tfidf, "text", tfidf, "logistic regression on TF-IDF of words and bigrams", is_seeded=False),
    "untrained": Strategy(Untrained, "gradient", untrained, "pretrained encoder, fresh head, no training"),
    "probe": Strategy(Probe, "features", probe, "a linear classifier on frozen embeddings", is_seeded=False),
    "head": Strategy(Head, "gradient", head, "encoder frozen, head trained"),
    "partial": Strategy(Partial, "gradient", partial, "the last blocks and the head"),
    "bitfit": Strategy(BitFit, "gradient", bitfit, "biases and the head"),
    "lora": Strategy(LoRA, "gradient", lora, "low-rank updates of chosen projections, and the head"),
    "adapter": Strategy(Adapter, "gradient", adapter, "bottleneck adapters in every block, and the head"),
    "peft": Strategy(Peft, "gradient", apply_peft, "any other method of peft by its type, and the head"),
    "full": Strategy(Full, "gradient", full, "everything"),
}

__all__ = [
    "STRATEGIES",
    "Adapted",
    "Adapter",
    "BitFit",
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
