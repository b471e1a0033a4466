"""Checks and times of the GPU code, for a machine with a GPU: each part in a process of its own, JSON as it goes.

python benchmarks/gpu.py [PART ...] [--out gpu.json] [--model packaged:minilm]

Parts: facts; attention (fused kernels against fp64); steps (each strategy against the CPU, the same seed twice, and no
wait under torch's own check); speed (a step of full fine-tuning by tokens). A part that fails or takes longer than its
limit is recorded, and the next one starts. All parts but speed run on a CPU too (--device cpu), to check the script.
It needs no network. Nothing in docs/benchmarks.md comes from it yet: no GPU was at hand.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

LIMITS = {"facts": 60, "attention": 120, "steps": 300, "speed": 240}  # seconds
STRATEGIES = ("head", "partial", "bitfit", "lora", "adapter", "full", "peft:type=dora")
NUM_STEPS = 12
TOLERANCE = 1e-4  # of a loss in fp32 between GPU and CPU


def facts(device: str, model: str) -> dict[str, Any]:
    """Versions and the machine."""
    from tuneoff.machine import machine, versions

    return {"machine": machine(), "versions": versions()}


def attention(device: str, model: str) -> dict[str, Any]:
    """Largest differences of the fused kernels from plain attention in fp64, forward and backward."""
    import torch

    from tuneoff.data.batches import PackedBatch
    from tuneoff.encoder.attention import build_packing
    from tuneoff.encoder.fused import fused_kernel
    from tuneoff.engine.precision import deterministic

    lengths, total, heads, size = [190, 64, 33, 9, 3], 304, 12, 64  # 5 tokens fill the batch up
    differences: dict[str, Any] = {}
    for dtype, window in ((torch.bfloat16, None), (torch.bfloat16, 32), (torch.float16, None), (torch.float32, None)):
        states = [torch.randn(total, heads, size, dtype=dtype, device=device, requires_grad=True) for _ in range(3)]
        ids = torch.zeros(1, total, dtype=torch.int64)
        labels = torch.zeros(len(lengths), dtype=torch.int64)
        batch = PackedBatch(sum(lengths), ids, ids, None, torch.tensor(lengths), labels).to(torch.device(device))
        packing, name = build_packing(batch), f"{dtype}, window {window}"
        kernel = fused_kernel(states[0], batch, window)
        if kernel is None:
            differences[name] = "no kernel"
            continue
        gradient = torch.randn_like(states[0])
        gradient[sum(lengths) :] = 0
        with deterministic(torch.device(device)):
            ours = kernel(states[0], states[1], states[2], packing.bounds(), 0.0, size**-0.5, window)
            ours.backward(gradient)
        exact = [part.detach().double().requires_grad_() for part in states]
        theirs, start = [], 0
        for length in lengths:
            q, k, v = (part[start : start + length].transpose(0, 1) for part in exact)
            scores = q @ k.transpose(1, 2) * size**-0.5
            if window:
                positions = torch.arange(length, device=device)
                scores = scores.masked_fill((positions[:, None] - positions).abs() >= window, -torch.inf)
            theirs.append((scores.softmax(-1) @ v).transpose(0, 1))
            start += length
        expected = torch.cat(theirs)
        expected.backward(gradient[:start].double())
        pairs = [(ours[:start], expected), *((a.grad, b.grad) for a, b in zip(states, exact, strict=True))]
        differences[name] = {"kernel": kernel.__name__, "largest": [float((a - b).abs().max()) for a, b in pairs]}
    return differences


def steps(device: str, model: str) -> dict[str, Any]:
    """Losses of each strategy against those of the CPU, twice with the same seed, and whether any step waits."""
    import torch

    table, results = _table(model), {}
    for name in STRATEGIES:
        on_cpu, _, _ = _train(name, model, table, "cpu", torch.float32)
        losses, _, _ = _train(name, model, table, device, torch.float32)
        first, second = (_train(name, model, table, device, torch.bfloat16, dropout=0.1)[1] for _ in range(2))
        waits = _train(name, model, table, device, torch.bfloat16, forbid_waits=device == "cuda")[2]
        difference = max(abs(a - b) for a, b in zip(losses, on_cpu, strict=True))
        results[name] = {
            "loss_difference": difference,
            "within_tolerance": difference < TOLERANCE,
            "same_bits": all(torch.equal(a, b) for a, b in zip(first, second, strict=True)),
            "wait": waits,
        }
        print(name, results[name], flush=True)
    return results


def speed(device: str, model: str) -> dict[str, Any]:
    """Seconds of a step of full fine-tuning, the median of many, by tokens."""
    import torch

    results, table = {}, _table(model)
    for batch_size in (16, 64, 256):
        times: list[float] = []

        def clock(_: float, times: list[float] = times) -> None:
            torch.cuda.synchronize()  # a wait in each step, small beside large batches
            times.append(time.perf_counter())

        _train("full", model, table, device, torch.bfloat16, batch_size=batch_size, on_progress=clock)
        seconds = sorted(after - before for before, after in itertools.pairwise(times[4:]))
        tokens = float(table.lengths.mean()) * batch_size
        results[batch_size] = {"tokens": tokens, "median_seconds": seconds[len(seconds) // 2]}
    return results


def _table(model: str) -> Any:
    from tuneoff.data.load import load_dataset
    from tuneoff.data.spec import DataSpec
    from tuneoff.data.tokens import tokenize
    from tuneoff.encoder.config import load_tokenizer

    dataset = load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits={"train": 4096}))
    return tokenize(dataset, load_tokenizer(model), 128)["train"]


def _train(
    strategy: str,
    model: str,
    table: Any,
    device: str,
    dtype: Any,
    dropout: float = 0.0,
    batch_size: int = 16,
    forbid_waits: bool = False,
    on_progress: Any = lambda share: None,
) -> tuple[list[float], list[Any], str]:
    """Train some steps. Returns losses, weights, and the message of a wait that torch refused."""
    import torch

    from tuneoff.encoder.load import load_model
    from tuneoff.engine.inputs import SplitInputs
    from tuneoff.engine.loop import TrainingSettings, train
    from tuneoff.engine.recipe import Recipe
    from tuneoff.spec.strategy import parse_strategy
    from tuneoff.strategies import STRATEGIES as DEFINITIONS

    config = parse_strategy(strategy)
    torch.manual_seed(0)
    adapted = DEFINITIONS[config.name].apply(load_model(model, ("0", "1"), seed=0, dropout=dropout), config)
    adapted.model.to(device)
    recipe = Recipe(epochs=1, batch_size=batch_size, max_steps=NUM_STEPS)

    def report(share: float) -> None:
        if forbid_waits and share < 1:  # from the end of the first step to the reading after the last one
            torch.cuda.set_sync_debug_mode("error" if share < (NUM_STEPS - 1) / NUM_STEPS else "default")
        on_progress(share)

    try:
        trained = train(adapted, SplitInputs(table), TrainingSettings(recipe, 1e-4, 0, dtype), None, report)
    except RuntimeError as error:
        if not forbid_waits:
            raise
        return [], [], str(error)
    finally:
        if forbid_waits:
            torch.cuda.set_sync_debug_mode("default")
    weights = [parameter.detach().cpu() for parameter in adapted.model.parameters()]
    return [step["loss"] for step in trained.steps], weights, ""


PARTS = {"facts": facts, "attention": attention, "steps": steps, "speed": speed}


def main() -> None:
    """Run parts, each in a process of its own with a limit, and write what they found after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--model", default="packaged:minilm")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # run the part in this process
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    if args.here:
        (part,) = args.parts
        args.out.write_text(json.dumps(PARTS[part](args.device, args.model), indent=1), encoding="utf-8")
        return
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU that this torch can use; --device cpu checks the script without one")
    results: dict[str, Any] = {}
    for part in args.parts:
        started, single = time.perf_counter(), args.out.with_suffix(f".{part}.json")
        command = [sys.executable, __file__, part, "--here", "--out", str(single)]
        command += ["--device", args.device, "--model", args.model]
        try:
            code: int | str = subprocess.run(command, timeout=LIMITS[part], check=False).returncode
        except subprocess.TimeoutExpired:
            code = f"longer than {LIMITS[part]} s"
        found = json.loads(single.read_text(encoding="utf-8")) if code == 0 else None
        results[part] = {"exit": code, "seconds": time.perf_counter() - started, "results": found}
        args.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
        print(part, json.dumps(results[part]), flush=True)


if __name__ == "__main__":
    main()
