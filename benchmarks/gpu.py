"""Checks and times of the GPU code, for a machine with a GPU: each part in a process of its own, JSON as it goes.

python benchmarks/gpu.py [PART ...] [--out gpu.json] [--model packaged:minilm]

Parts: facts; attention (fused kernels against fp64); steps (each strategy against the CPU, the same seed twice, and no
wait under torch's own check); graphs (weights with CUDA graphs and without, of each strategy, and whether they were
used); speed (a step of full fine-tuning by tokens, with CUDA graphs, with fused attention, with blocks of torch.compile
and with grids, beside the GPU's peak); together (steps per second of 1, 2, 4 and 8 processes at once); trainer (HF
Trainer, as published and tuned, on the same texts); fifteen (the runs of five published studies, on random words in
their sizes and lengths). A part that fails or takes longer than its limit is recorded, and the next one starts; every
limit is below ten minutes.

--model bert-base and --model distilbert are those architectures with random weights. All parts start on a CPU too
(--device cpu --share 0.001), to check the script. It needs no network. Nothing in docs/benchmarks.md comes from it yet:
no GPU was at hand.
"""

import argparse
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

LIMITS = {  # seconds
    "facts": 60,
    "attention": 120,
    "steps": 300,
    "graphs": 240,
    "speed": 240,
    "together": 300,
    "trainer": 570,
    "fifteen": 570,
}
STRATEGIES = ("head", "partial", "bitfit", "lora", "adapter", "full", "peft:type=dora")
NUM_STEPS = 12
STEPS_WITH_GRAPHS = 200
WARM_STEPS, STEPS_TOGETHER = 5, 200
TOLERANCE = 1e-4  # of a loss in fp32 between GPU and CPU
# of the five published studies: examples of each split, mean words of a text or both of a pair, labels, columns
PUBLISHED: dict[str, tuple[dict[str, int], tuple[float, ...], int, dict[str, str]]] = {
    "rotten_tomatoes": ({"train": 8530, "validation": 1066, "test": 1066}, (21,), 2, {}),
    "sst2": ({"train": 67349, "test": 872}, (9.4,), 2, {}),
    "tweet_eval": ({"train": 45615, "validation": 2000, "test": 12284}, (19.2,), 3, {}),
    "imdb": ({"train": 25000, "test": 25000}, (234,), 2, {}),
    "snli": ({"train": 549367, "validation": 9842, "test": 9824}, (12.9, 7.4), 3, {"text_pair": "text_pair"}),
}
SPREAD = 0.6  # standard deviation of the logarithm of a text's words


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """Versions and the machine."""
    from tuneoff.machine import machine, versions

    return {"machine": machine(), "versions": versions()}


def attention(options: argparse.Namespace) -> dict[str, Any]:
    """Largest differences of the fused kernels from plain attention in fp64, forward and backward."""
    import torch

    from tuneoff.data.batches import PackedBatch
    from tuneoff.encoder.attention import build_packing
    from tuneoff.encoder.fused import fused_kernel
    from tuneoff.engine.precision import deterministic

    device, lengths, total = options.device, [190, 64, 33, 9, 3], 304  # 5 tokens fill the batch up
    heads, size = 12, 64
    differences: dict[str, Any] = {}
    for dtype, window in ((torch.bfloat16, None), (torch.bfloat16, 32), (torch.float16, None), (torch.float32, None)):
        states = [torch.randn(total, heads, size, dtype=dtype, device=device, requires_grad=True) for _ in range(3)]
        ids = torch.zeros(1, total, dtype=torch.int64)
        labels = torch.zeros(len(lengths), dtype=torch.int64)
        batch = PackedBatch(sum(lengths), ids, ids, None, torch.tensor(lengths), labels).to(torch.device(device))
        packing, name = build_packing(batch), f"{dtype}, window {window}"
        kernel = fused_kernel(states[0], batch, window, 0.0)
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
        if (with_dropout := fused_kernel(states[0], batch, window, 0.1)) is None:
            continue
        # outputs are linear in the values: a mask that is another one in the backward pass breaks <v, dv> = <out, g>
        value = states[2].detach().requires_grad_()
        with deterministic(torch.device(device)):
            ours = with_dropout(
                states[0].detach(), states[1].detach(), value, packing.bounds(), 0.1, size**-0.5, window
            )
            ours.backward(gradient)
        products = [float((a.double() * b.double())[:start].sum()) for a, b in ((value, value.grad), (ours, gradient))]
        scale = float((ours.double() * gradient.double())[:start].abs().sum())
        differences[name]["dropout"] = abs(products[0] - products[1]) / scale
    return differences


def steps(options: argparse.Namespace) -> dict[str, Any]:
    """Losses of each strategy against those of the CPU, twice with the same seed, and whether any step waits."""
    import torch

    device, model = options.device, options.model
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


def graphs(options: argparse.Namespace) -> dict[str, Any]:
    """Weights of each strategy in bf16 with dropout, by CUDA graphs and without; launches, two of them to compare."""
    import torch

    from tuneoff.engine import graphs as step_graphs

    device, model = options.device, options.model
    table, results, replayed, errors = _table(model), {}, [0], [""]
    replay, end = step_graphs._Graph.replay, step_graphs.StepGraphs.end

    def counting(self: Any, *step: Any) -> Any:
        replayed[0] += 1
        return replay(self, *step)

    def noting(self: Any, error: str) -> None:
        errors[0] = error or "lengths on the host"
        end(self, error)

    step_graphs._Graph.replay, step_graphs.StepGraphs.end = counting, noting
    count = STEPS_WITH_GRAPHS if device == "cuda" else NUM_STEPS
    for name in STRATEGIES:
        replayed[0], errors[0], weights = 0, "", []
        for use in ("off", "on"):
            os.environ["TUNEOFF_CUDA_GRAPHS"] = use
            weights.append(_train(name, model, table, device, torch.bfloat16, dropout=0.1, count=count)[1])
        results[name] = {
            "same_bits": all(map(torch.equal, *weights)),
            "steps": count,
            "replays": replayed[0],
            "error": errors[0],
        }
        print(name, results[name], flush=True)
    return results


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step of full fine-tuning, the median of many, by tokens, and the share of the GPU's peak.

    Operations are 6 for each parameter outside embeddings and each token (Kaplan et al., 2020, section 2.1), without
    those of attention scores.
    """
    import torch

    from tuneoff.encoder import attention as packed_attention
    from tuneoff.encoder.anatomy import blocks
    from tuneoff.encoder.load import load_model
    from tuneoff.engine.meter import peak_operations
    from tuneoff.errors import one_line

    device, model = options.device, options.model
    table = _table(model)
    peak = peak_operations(torch.bfloat16, torch.device(device))
    loaded = load_model(model, ("0", "1"), seed=0)
    parameters = sum(parameter.numel() for block in blocks(loaded) for parameter in block.parameters())
    results: dict[str, Any] = {"peak_operations": peak, "block_parameters": parameters}
    fused = packed_attention.fused_kernel
    sizes = (16, 64, 256, 600) if device == "cuda" else (16,)
    for kernel, batch_size in itertools.product(("graphs", "fused", "compiled", "grids"), sizes):
        times: list[float] = []
        os.environ["TUNEOFF_CUDA_GRAPHS"] = "on" if kernel == "graphs" else "off"
        packed_attention.fused_kernel = fused if kernel != "grids" else lambda *_: None
        count = STEPS_WITH_GRAPHS if kernel in ("graphs", "compiled") and device == "cuda" else NUM_STEPS
        progress: dict[str, Any] = {"on_progress": _clock(times), "count": count}
        if kernel == "compiled":
            progress["prepare"] = _compile
        try:
            _train("full", model, table, device, torch.bfloat16, batch_size=batch_size, **progress)
        except Exception as error:  # torch.compile raises many types
            if kernel != "compiled":
                raise
            results[f"{kernel}, {batch_size}"] = {"error": one_line(error, 300)}
            continue
        # the first steps with graphs are made without, and some record one; others wait for the compiler
        seconds = sorted(
            after - before for before, after in itertools.pairwise(times[4 if count == NUM_STEPS else 100 :])
        )
        tokens, median = float(table.lengths.mean()) * batch_size, seconds[len(seconds) // 2]
        share = 6 * parameters * tokens / median / peak
        results[f"{kernel}, {batch_size}"] = {"tokens": tokens, "median_seconds": median, "share_of_peak": share}
        print(kernel, batch_size, results[f"{kernel}, {batch_size}"], flush=True)
    return results


def _compile(model: Any) -> None:
    """Compile each block for batches of any number of tokens, with torch's default compiler."""
    from tuneoff.encoder.anatomy import blocks

    for block in blocks(model):
        block.compile(dynamic=True)


def _clock(times: list[float]) -> Callable[[float], None]:
    """Return a function that notes the time of each step: a wait in each, small beside large batches."""
    import torch

    def note(_: float) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    return note


def together(options: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of full fine-tuning at batch 16, of all processes at once. They start together, warmed up."""
    results: dict[str, Any] = {"mps": Path("/tmp/nvidia-mps").exists()}
    num_steps = steps_together(options)
    for count in (1, 2, 4, 8) if options.device == "cuda" else (1, 2):
        command = [*_command("stepping", options), "--out", os.devnull]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        streams = [(process.stdin, process.stdout) for process in processes]
        for _, output in streams:
            assert output is not None
            assert output.readline().strip() == "ready"
        for given, _ in streams:
            assert given is not None
            given.write("go\n")
            given.flush()
        seconds = [float(output.readline()) for _, output in streams if output]
        for process in processes:
            process.communicate()
        results[str(count)] = {"steps_per_second": count * num_steps / max(seconds), "seconds": seconds}
        print(count, results[str(count)], flush=True)
    return results


def steps_together(options: argparse.Namespace) -> int:
    """Return the steps that processes make at once."""
    return max(5, round(STEPS_TOGETHER * options.share))


def stepping(options: argparse.Namespace) -> dict[str, Any]:
    """Train; wait for the other processes after the first steps. Prints the seconds of the others."""
    import torch

    started, count = [0.0], WARM_STEPS + steps_together(options)

    def report(share: float) -> None:
        if started[0] == 0.0 and share >= WARM_STEPS / count:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            print("ready", flush=True)
            sys.stdin.readline()
            started[0] = time.perf_counter()

    _train(
        "full", options.model, _table(options.model), options.device, torch.bfloat16, on_progress=report, count=count
    )
    print(time.perf_counter() - started[0], flush=True)
    return {}


def trainer(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of whole commands with Tuneoff and with HF Trainer, from raw text to predictions; and of a study of them.

    benchmarks/speed.py says what is measured.
    """
    import pyarrow.parquet
    from speed import run_trainer, run_tuneoff

    from tuneoff.data.load import load_dataset
    from tuneoff.data.spec import DataSpec

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder, strategies = Path(place), ["full", "lora", "head", "partial"]
        for split, table in load_dataset(DataSpec(source="packaged:rotten-tomatoes")).splits.items():
            # of both classes: rows may be sorted by label
            rows = np.random.default_rng(0).permutation(table.num_rows)
            part = table.take(rows[: max(32, round(options.share * table.num_rows))])
            pyarrow.parquet.write_table(part, folder / f"{split}.parquet")
        model = ["--model", options.model]
        for name in strategies:
            results[name] = {
                "tuneoff": run_tuneoff(folder, [name], 1, model=options.model),
                "tuned": run_trainer(folder, name, 1, ["--tuned", "--bf16", *model]),
                "published": run_trainer(folder, name, 1, model),
            }
            print(name, results[name], flush=True)
        results["study"] = {"tuneoff": run_tuneoff(folder, strategies, 1, model=options.model)}
    return results


def fifteen(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the published settings of five studies, on a share of as many random texts as long as theirs."""
    from importlib.resources import files

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        encoders = {
            "bert-base-uncased": model_named("bert-base", Path(place, "bert")),
            "distilbert-base-uncased": model_named("distilbert", Path(place, "distilbert")),
        }
        for name, (sizes, words, num_labels, columns) in PUBLISHED.items():
            folder = Path(place, name)
            _write_texts(folder, {s: max(64, round(options.share * n)) for s, n in sizes.items()}, words, num_labels)
            spec = yaml.safe_load((files("tuneoff.studies") / f"{name}_faithful.yaml").read_text())
            del spec["reported"]
            labels = spec["data"]["labels"]
            spec |= {"name": name, "baselines": False, "keep": "none"}
            spec["data"] = {"splits": {split: f"{split}.parquet" for split in sizes}, "labels": labels, **columns}
            text = yaml.safe_dump(spec)
            text = re.sub("|".join(sorted(encoders, reverse=True)), lambda found: encoders[found.group()], text)
            (folder / "study.yaml").write_text(text)
            command = [sys.executable, "-m", "tuneoff", "run", "study.yaml"]
            environment, started = {**os.environ, "TUNEOFF_CACHE": str(folder / "cache")}, time.perf_counter()
            subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
            runs = len(list((folder / "results" / name / "runs").glob("[!.]*")))
            results[name] = {"runs": runs, "seconds": time.perf_counter() - started}
            print(name, results[name], flush=True)
    return {**results, "share": options.share, "seconds": sum(study["seconds"] for study in results.values())}


def _write_texts(folder: Path, sizes: dict[str, int], words: tuple[float, ...], num_labels: int) -> None:
    """Write splits of random words. words: mean number in a text, or in both texts of a pair."""
    import pyarrow as pa
    import pyarrow.parquet

    folder.mkdir()
    rng = np.random.default_rng(0)
    vocabulary = np.array(
        ["the", "a", "film", "of", "and", "is", "to", "in", "it", "that", "as", "with", "for", "this"]
    )
    for split, count in sizes.items():
        columns = {"label": rng.integers(num_labels, size=count)}
        for name, mean in zip(("text", "text_pair"), words, strict=False):
            lengths = np.maximum(1, rng.lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD, count)).astype(int)
            drawn = vocabulary[rng.integers(len(vocabulary), size=lengths.sum())]
            columns[name] = [" ".join(part) for part in np.split(drawn, lengths.cumsum()[:-1])]
        pyarrow.parquet.write_table(pa.table(columns), folder / f"{split}.parquet")


def model_named(name: str, folder: Path) -> str:
    """Return a model: as it is named, or of BERT's or DistilBERT's architecture with random weights, in a folder."""
    if name not in ("bert-base", "distilbert"):
        return name
    import torch
    import transformers

    from tuneoff.encoder.config import load_tokenizer

    torch.manual_seed(0)
    config = transformers.BertConfig() if name == "bert-base" else transformers.DistilBertConfig()
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    load_tokenizer("packaged:minilm").save_pretrained(folder)  # of BERT's vocabulary
    return str(folder)


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
    count: int = NUM_STEPS,
    prepare: Callable[[Any], None] = lambda model: None,
) -> tuple[list[float], list[Any], str]:
    """Train some steps. Returns losses, weights, and the message of a wait that torch refused.

    prepare: called with the model before the first one.
    """
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
    prepare(adapted.model)
    recipe = Recipe(epochs=1, batch_size=batch_size, max_steps=count)

    def report(share: float) -> None:
        if forbid_waits and share < 1:  # from the end of the first step to the reading after the last one
            torch.cuda.set_sync_debug_mode("error" if share < (count - 1) / count else "default")
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


PARTS = {
    "facts": facts,
    "attention": attention,
    "steps": steps,
    "graphs": graphs,
    "speed": speed,
    "together": together,
    "trainer": trainer,
    "fifteen": fifteen,
}


def _command(part: str, options: argparse.Namespace) -> list[str]:
    """Return the command of one part in a process of its own, without the place of its results."""
    given = ["--device", options.device, "--model", options.model, "--share", str(options.share)]
    return [sys.executable, __file__, part, "--here", *given]


def main() -> None:
    """Run parts, each in a process of its own with a limit, and write what they found after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--model", default="packaged:minilm")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the texts of trainer and fifteen, and the steps of together"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # run the part in this process
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS) - ({"stepping"} if args.here else set()):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    if args.here:
        (part,) = args.parts
        args.out.write_text(json.dumps({**PARTS, "stepping": stepping}[part](args), indent=1), encoding="utf-8")
        return
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU that this torch can use; --device cpu checks the script without one")
    with tempfile.TemporaryDirectory() as place:
        args.model = model_named(args.model, Path(place))
        run_parts(args)


def run_parts(options: argparse.Namespace) -> None:
    """Run the parts one after another."""
    results: dict[str, Any] = {}
    for part in options.parts:
        started, single = time.perf_counter(), options.out.with_suffix(f".{part}.json")
        process = subprocess.Popen([*_command(part, options), "--out", str(single)], start_new_session=True)
        try:
            code: int | str = process.wait(LIMITS[part])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
            process.wait()
            code = f"longer than {LIMITS[part]} s"
        found = json.loads(single.read_text(encoding="utf-8")) if code == 0 else None
        results[part] = {"exit": code, "seconds": time.perf_counter() - started, "results": found}
        options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
        print(part, json.dumps(results[part]), flush=True)


if __name__ == "__main__":
    main()
