"""Profile of a training step: milliseconds by kind of operation, on one thread."""

import argparse
import os
import time
from collections import Counter

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch.profiler import profile

from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec
from tuneoff.data.tokens import tokenize
from tuneoff.encoder.config import load_tokenizer, model_fingerprint
from tuneoff.encoder.load import load_model
from tuneoff.engine.inputs import cached_prefix_inputs
from tuneoff.engine.loop import TrainingSettings, Validation, train
from tuneoff.engine.precision import resolve
from tuneoff.engine.recipe import Recipe
from tuneoff.spec.strategy import parse_strategy
from tuneoff.strategies import STRATEGIES

MODEL = "packaged:minilm"
KINDS = {
    "matrix products of layers": ("mm", "addmm", "addmm_"),
    "matrix products of attention": ("bmm",),
    "softmax": ("_softmax", "_softmax_backward_data"),
    "gelu": ("gelu", "gelu_backward"),
    "layer norm": ("native_layer_norm", "native_layer_norm_backward"),
    "random bits and masks": ("random_", "bitwise_and_", "neg_", "bitwise_right_shift_", "bitwise_right_shift"),
    "AdamW and gradient norm": ("_fused_adamw_", "linalg_vector_norm"),
    "copies": ("copy_", "index_select", "index_copy_", "index", "fill_", "zero_"),
    "element-wise sums and products": ("add", "add_", "mul", "mul_", "sum", "index_add_"),
}


def main() -> None:
    """Train three epochs, to warm up, to measure the time, and under the profiler; print the profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("strategies", nargs="*", default=["full", "lora"])
    parser.add_argument("--examples", type=int, default=1600)
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits={"train": args.examples}))
    table = tokenize(dataset, load_tokenizer(MODEL), 128)["train"]
    for name in args.strategies:
        model, config = load_model(MODEL, ("0", "1"), seed=0), parse_strategy(name)
        adapted, dtype = STRATEGIES[config.name].apply(model, config), resolve("auto", torch.device("cpu"))
        inputs = cached_prefix_inputs(model, table, adapted.first_trained_block, model_fingerprint(MODEL), dtype)
        settings = TrainingSettings(Recipe(epochs=1), config.learning_rate, 0, dtype)
        validation = Validation(lambda: {"accuracy": 0.0}, "accuracy")

        def train_epoch(adapted=adapted, inputs=inputs, settings=settings, validation=validation) -> float:
            started = time.perf_counter()
            train(adapted, inputs, settings, validation)
            return time.perf_counter() - started

        train_epoch()
        seconds = train_epoch()
        with profile() as profiled:
            train_epoch()
        print_profile(name, profiled, seconds, settings.recipe.num_steps(len(table)))


def print_profile(name: str, profiled: profile, seconds: float, steps: int) -> None:
    """Print the milliseconds per step of each kind of operation. seconds: of the epoch without the profiler."""
    kind_of = {f"aten::{operation}": kind for kind, operations in KINDS.items() for operation in operations}
    milliseconds: Counter[str] = Counter()
    for event in profiled.key_averages():
        milliseconds[kind_of.get(event.key, "other operations")] += event.self_cpu_time_total / 1e3 / steps
    print(f"\n{name}: {1e3 * seconds / steps:.1f} ms per step without the profiler")
    total = sum(milliseconds.values())
    for kind in [*KINDS, "other operations"]:
        print(f"{kind:32}{milliseconds[kind]:8.1f} ms{100 * milliseconds[kind] / total:6.1f} %")


if __name__ == "__main__":
    main()
