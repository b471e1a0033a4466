"""Profile of a training step: milliseconds by kind of operation, on one thread."""

import argparse
import math
import os
import time
from collections import Counter
from collections.abc import Callable

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch.profiler import profile

from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec
from tuneoff.data.tokens import TokenTable, tokenize
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
    """Train epochs to warm up, to measure the time, and under the profiler; print the profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("strategies", nargs="*", default=["full", "lora"])
    parser.add_argument("--examples", type=int, default=1600)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16], help="each in turn, all in every round")
    parser.add_argument("--rounds", type=int, default=1, help="epochs that are measured of each; the fastest counts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits={"train": args.examples}))
    table = tokenize(dataset, load_tokenizer(MODEL), 128)["train"]
    num_tokens = int(table.lengths.sum())
    for name in args.strategies:
        train_epoch = trainer(name, table)
        fastest = dict.fromkeys(args.batch_sizes, math.inf)
        for batch_size in args.batch_sizes:
            train_epoch(batch_size)  # to warm up
        for _ in range(args.rounds):
            for batch_size in args.batch_sizes:
                started = time.perf_counter()
                train_epoch(batch_size)
                fastest[batch_size] = min(fastest[batch_size], time.perf_counter() - started)
        for batch_size, seconds in fastest.items():
            with profile() as profiled:
                train_epoch(batch_size)
            steps = Recipe(epochs=1, batch_size=batch_size).num_steps(len(table))
            speed = f"{1e3 * seconds / steps:.1f} ms per step and {num_tokens / seconds:,.0f} tokens/s"
            print(f"\n{name}, batch {batch_size}: {speed} without the profiler")
            print_profile(profiled, steps)


def trainer(name: str, table: TokenTable) -> Callable[[int], object]:
    """Return a function that trains a strategy for an epoch, given the size of a batch."""
    model, config = load_model(MODEL, ("0", "1"), seed=0), parse_strategy(name)
    adapted, dtype = STRATEGIES[config.name].apply(model, config), resolve("auto", torch.device("cpu"))
    inputs = cached_prefix_inputs(model, table, adapted.first_trained_block, model_fingerprint(MODEL), dtype)
    validation = Validation(lambda: {"accuracy": 0.0}, "accuracy")

    def train_epoch(batch_size: int) -> object:
        settings = TrainingSettings(Recipe(epochs=1, batch_size=batch_size), config.learning_rate, 0, dtype)
        return train(adapted, inputs, settings, validation)

    return train_epoch


def print_profile(profiled: profile, steps: int) -> None:
    """Print the milliseconds per step of each kind of operation."""
    kind_of = {f"aten::{operation}": kind for kind, operations in KINDS.items() for operation in operations}
    milliseconds: Counter[str] = Counter()
    for event in profiled.key_averages():
        milliseconds[kind_of.get(event.key, "other operations")] += event.self_cpu_time_total / 1e3 / steps
    total = sum(milliseconds.values())
    for kind in [*KINDS, "other operations"]:
        print(f"{kind:32}{milliseconds[kind]:8.1f} ms{100 * milliseconds[kind] / total:6.1f} %")


if __name__ == "__main__":
    main()
