"""Where a training step's time goes: kinds of operations on one thread, and the time between operations."""

import argparse
import os
import time
from collections import Counter

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch.profiler import profile

from tuneoff.data.dataset import DataSpec
from tuneoff.data.encode import encode
from tuneoff.data.load import load_dataset
from tuneoff.encoder.load import load_model, load_tokenizer, model_fingerprint
from tuneoff.engine.feed import with_prefix
from tuneoff.engine.loop import train
from tuneoff.engine.precision import resolve
from tuneoff.engine.recipe import Recipe
from tuneoff.spec import parse_strategy
from tuneoff.strategies import STRATEGIES

MODEL = "packaged:minilm"
KINDS = {
    "products of layers": ("mm", "addmm", "addmm_"),
    "products of attention": ("bmm",),
    "softmax": ("_softmax", "_softmax_backward_data"),
    "gelu": ("gelu", "gelu_backward"),
    "layer norm": ("native_layer_norm", "native_layer_norm_backward"),
    "random bits and masks": ("random_", "bitwise_and_", "neg_", "bitwise_right_shift_", "bitwise_right_shift"),
    "AdamW and the gradient's norm": ("_fused_adamw_", "linalg_vector_norm"),
    "copies": ("copy_", "index_select", "index_copy_", "index", "fill_", "zero_"),
    "sums and products of elements": ("add", "add_", "mul", "mul_", "sum", "index_add_"),
}


def main() -> None:
    """Train an epoch to warm up, another one under the profiler, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("strategies", nargs="*", default=["full", "lora"])
    parser.add_argument("--examples", type=int, default=1600)
    given = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits={"train": given.examples}))
    table = encode(dataset, load_tokenizer(MODEL), 128)["train"]
    for name in given.strategies:
        model, config = load_model(MODEL, ("0", "1"), seed=0), parse_strategy(name)
        adapted, dtype = STRATEGIES[config.name].apply(model, config), resolve("auto", torch.device("cpu"))
        feed = with_prefix(model, table, adapted.first_trained_block, model_fingerprint(MODEL), dtype)

        def epoch(adapted=adapted, feed=feed, config=config, dtype=dtype) -> float:
            recipe, rate = Recipe.model_validate({"epochs": 1}), config.learning_rate
            started = time.perf_counter()
            train(adapted, feed, recipe, rate, 0, dtype, lambda: {"accuracy": 0.0}, "accuracy")
            return time.perf_counter() - started

        epoch()
        plain = epoch()
        with profile() as profiled:
            epoch()
        show(name, profiled, plain, steps=-(-len(table) // 16))


def show(name: str, profiled: profile, seconds: float, steps: int) -> None:
    """Milliseconds a step of each kind."""
    kind_of = {f"aten::{operation}": kind for kind, operations in KINDS.items() for operation in operations}
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        spent[kind_of.get(event.key, "everything else")] += event.self_cpu_time_total / 1e3 / steps
    print(f"\n{name}: {1e3 * seconds / steps:.1f} ms a step without the profiler")
    for kind in [*KINDS, "everything else"]:
        print(f"{kind:32}{spent[kind]:8.1f} ms{100 * spent[kind] / sum(spent.values()):6.1f} %")


if __name__ == "__main__":
    main()
