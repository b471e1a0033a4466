"""Speed of Tuneoff compared with HF Trainer and peft: seconds from raw text to test predictions.

Each measurement runs in a new process with an empty cache, imports included; the libraries alternate, strategy by
strategy. A study with Trainer is one script that imports once. Prints seconds, speed-ups with their targets, and the
share of the machine's peak speed that training reaches. `--examples N --epochs E` sets the size; the default is a
short form. With `--out`, stored measurements are not repeated.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import altair as alt
import pandas as pd
import pyarrow.parquet
import torch
import vl_convert
import yaml

from tuneoff import formats
from tuneoff.data.batches import pack, training_batches
from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec
from tuneoff.data.tokens import tokenize
from tuneoff.encoder.anatomy import blocks
from tuneoff.encoder.config import load_tokenizer
from tuneoff.encoder.load import load_model
from tuneoff.machine import cores, machine, versions
from tuneoff.runs import OK
from tuneoff.study import Study

STUDY = ["probe", "head", "partial", "lora", "lora:rank=16", "adapter", "full"]
# speed-ups over the published and over the tuned recipe that the project aims at
TARGETS = {"study": (20, 3), "full": (10, 2), "lora": (14, 1.8), "head": (40, 6), "partial": (15, 3)}
SPLITS = ("train", "validation", "test")
Figures = dict[str, Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--examples", type=int, default=320, help="training examples; validation and test a quarter each; 0: all"
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--strategies", default=",".join(STUDY))
    parser.add_argument("--out", type=Path, help="figures as JSON, continued if the file exists")
    parser.add_argument("--chart", type=Path, help="draw the study's bars into this PNG")
    args = parser.parse_args()
    quarter = max(20, args.examples // 4)
    limits = {"train": args.examples, "validation": quarter, "test": quarter} if args.examples else {}
    folder = Path(tempfile.mkdtemp())
    for split, table in load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits=limits)).splits.items():
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
    figures: Figures = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}

    def once(key: str, measure: Callable[[], Any]) -> Any:
        if key not in figures:
            figures[key] = measure()
            print(f"{key}: {figures[key]}", flush=True)
            if args.out:
                args.out.write_text(json.dumps(figures, indent=1))
        return figures[key]

    for key, current in (("machine", {**machine(), **versions()}), ("size", {**limits, "epochs": args.epochs})):
        if once(key, partial(dict, current)) != current:
            sys.exit(f"{args.out} holds figures of another {key}: {figures[key]}; choose another --out")
    trials = {bf16: once(f"trial bf16={bf16}", partial(try_precision, folder, bf16)) for bf16 in (True, False)}
    training = {bf16: trial["seconds"] - trial["import_seconds"] for bf16, trial in trials.items()}
    tuned = ["--tuned", "--bf16"] if training[True] < training[False] else ["--tuned"]
    strategies = args.strategies.split(",")
    for name in strategies:
        once(f"tuneoff {name}", partial(run_tuneoff, folder, [name], args.epochs))
        once(f"tuned {name}", partial(run_trainer, folder, name, args.epochs, tuned))
        once(f"published {name}", partial(run_trainer, folder, name, args.epochs, []))
    once("tuneoff study", partial(run_tuneoff, folder, strategies, args.epochs))
    once("peak", peak_speed)
    once("two at once", partial(total_tokens_per_second, folder, args.epochs))
    once("pipeline", partial(batch_costs, folder))
    show(figures, strategies, "bf16" if "--bf16" in tuned else "fp32")
    if args.chart:
        draw(figures, strategies, args.chart)
    shutil.rmtree(folder, ignore_errors=True)


def run_trainer(folder: Path, strategy: str, epochs: int, options: Sequence[str]) -> Figures:
    """Measure one run of benchmarks/trainer.py."""
    script = str(Path(__file__).parent / "trainer.py")
    command = [sys.executable, script, strategy, str(folder), "--epochs", str(epochs), *options]
    return json.loads(subprocess.check_output(command, stderr=subprocess.DEVNULL).splitlines()[-1])


def try_precision(folder: Path, bf16: bool) -> Figures:
    """Measure a small full fine-tuning with the tuned recipe; the faster precision becomes the recipe's."""
    small = folder / "small"
    small.mkdir(exist_ok=True)
    for split in SPLITS:
        table = pyarrow.parquet.read_table(folder / f"{split}.parquet").slice(0, 480)
        pyarrow.parquet.write_table(table, small / f"{split}.parquet")
    return run_trainer(small, "full", 1, ["--tuned", *(["--bf16"] if bf16 else [])])


def run_tuneoff(
    folder: Path, strategies: list[str], epochs: int, seeds: int = 1, model: str = "packaged:minilm"
) -> Figures:
    """Measure `tuneoff run` with an empty cache: total seconds, the speed of each run, and the highest peak memory."""
    study = Path(tempfile.mkdtemp(dir=folder))
    spec = {
        "name": "speed",
        "data": {"splits": {split: str(folder / f"{split}.parquet") for split in SPLITS}},
        "baselines": False,
        "strategies": strategies,
        "model": model,
        "recipe": {"epochs": epochs, "batch_size": 16, "max_length": 128},
        "seeds": seeds,
        "keep": "none",
    }
    (study / "speed.yaml").write_text(yaml.safe_dump(spec))
    environment = {**os.environ, "TUNEOFF_CACHE": str(study / "cache")}
    started = time.perf_counter()
    command = [sys.executable, "-m", "tuneoff", "run", "speed.yaml"]
    subprocess.run(command, cwd=study, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    runs = Study.open(study / "results" / "speed").store.runs
    records = [runs.record(path.name) for path in sorted(runs.folder.iterdir())]
    assert all(record.status == OK for record in records), records
    speeds = [record.costs.get("tokens_per_second") for record in records]
    return {"seconds": seconds, "tokens_per_second": speeds, "peak_bytes": max(r.costs["peak_bytes"] for r in records)}


def total_tokens_per_second(folder: Path, epochs: int) -> Figures:
    """Measure the training speed with one run per core: tokens per second of all runs together."""
    return {
        name: sum(run_tuneoff(folder, [name], epochs, seeds=cores())["tokens_per_second"]) for name in ("full", "lora")
    }


def peak_speed() -> float:
    """Measure the machine's bf16 matrix peak on all cores, in operations per second: the fastest large product."""
    best = 0.0
    for size in (1024, 2048):
        left, right = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
        for _ in range(20):
            started = time.perf_counter()
            left @ right
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def operations_per_token() -> int:
    """Return 6 x the parameters outside embeddings (Kaplan et al., 2020, section 2.1)."""
    model = load_model("packaged:minilm", ("0", "1"), seed=0)
    return 6 * sum(parameter.numel() for block in blocks(model) for parameter in block.parameters())


def batch_costs(folder: Path) -> Figures:
    """Measure the time to make a batch, in milliseconds per step, and count the tokens per step."""
    dataset = load_dataset(DataSpec(splits={split: str(folder / f"{split}.parquet") for split in SPLITS}))
    table = tokenize(dataset, load_tokenizer("packaged:minilm"), 128)["train"]
    batches = list(training_batches(table.lengths, 16, seed=0, epoch=0))
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for examples in training_batches(table.lengths, 16, seed=0, epoch=0):
            pack(table, examples)
        best = min(best, time.perf_counter() - started)
    return {"milliseconds": 1e3 * best / len(batches), "tokens": int(table.offsets[-1]) / len(batches)}


def show(figures: Figures, strategies: list[str], precision: str) -> None:
    """Print the table of seconds, and the shares of the machine's limits, with their targets."""
    print(f"\n{figures['size']}; the tuned recipe is fastest in {precision}")
    print(f"{'':14}{'published':>12}{'tuned':>10}{'Tuneoff':>10}{'x published (target)':>24}{'x tuned (target)':>20}")
    for name in [*strategies, "study"]:
        ours = figures[f"tuneoff {name}"]["seconds"]
        published, tuned = (trainer_seconds(figures, recipe, name, strategies) for recipe in ("published", "tuned"))
        first, second = TARGETS.get(name, ("-", "-"))
        line = f"{name:14}{published:>10.1f} s{tuned:>8.1f} s{ours:>8.1f} s{published / ours:>15.1f} ({first:>4})  "
        print(f"{line}{tuned / ours:>13.1f} ({second:>4})")
    speeds = figures["two at once"]
    operations = operations_per_token() * speeds["full"]
    share = operations / figures["peak"]
    print(f"\nfull fine-tuning, one run per core: {speeds['full']:,.0f} tokens/s, {operations / 1e9:.0f} GFLOP/s of")
    print(f"  {figures['peak'] / 1e9:.0f} at the bf16 matrix peak: {100 * share:.0f} % (target 65 %)")
    print(f"LoRA's step takes {speeds['full'] / speeds['lora']:.2f} of full fine-tuning's (target at most 0.75)")
    ours, tuned = (figures[f"{recipe} full"]["peak_bytes"] / 2**20 for recipe in ("tuneoff", "tuned"))
    print(f"peak memory of full: {ours:.0f} MiB, tuned {tuned:.0f} MiB (target: at most the tuned recipe's)")
    batch_milliseconds = figures["pipeline"]["milliseconds"]
    step_milliseconds = 1e3 * figures["pipeline"]["tokens"] * cores() / speeds["full"]
    batch_share = f"{100 * batch_milliseconds / step_milliseconds:.1f} % of a step of {step_milliseconds:.0f} ms"
    print(f"making a batch: {batch_milliseconds:.2f} ms, {batch_share} (target 2 %)")


def trainer_seconds(figures: Figures, recipe: str, name: str, strategies: list[str]) -> float:
    """Return the seconds of a run of Trainer in a new process; of a study, one import and all runs in sequence."""
    if name != "study":
        return figures[f"{recipe} {name}"]["seconds"]
    runs = [figures[f"{recipe} {strategy}"] for strategy in strategies]
    return runs[0]["import_seconds"] + sum(run["seconds"] - run["import_seconds"] for run in runs)


def draw(figures: Figures, strategies: list[str], path: Path) -> None:
    """Draw the seconds of a study as bars: both recipes of Trainer, and Tuneoff."""
    names = {"published": "HF Trainer + peft, as published", "tuned": "HF Trainer + peft, tuned", "tuneoff": "Tuneoff"}
    seconds = {recipe: trainer_seconds(figures, recipe, "study", strategies) for recipe in ("published", "tuned")}
    seconds["tuneoff"] = figures["tuneoff study"]["seconds"]
    rows = pd.DataFrame(
        {"library": names[key], "minutes": value / 60, "label": formats.seconds(value), "is_ours": key == "tuneoff"}
        for key, value in seconds.items()
    )
    bars = alt.Chart(rows).encode(
        x=alt.X("minutes:Q", title=f"minutes for a study of {len(strategies)} strategies", axis=alt.Axis(grid=False)),
        y=alt.Y("library:N", title=None, sort=list(names.values()), axis=alt.Axis(labelLimit=300)),
    )
    blue, grey = "#0072b2", "#b0b0b0"  # the report's own
    colour = alt.condition("datum.is_ours", alt.value(blue), alt.value(grey))
    chart = bars.mark_bar(height=22).encode(color=colour) + bars.mark_text(align="left", dx=6).encode(text="label:N")
    styled = chart.properties(width=460, height=110).configure(background="white", font="system-ui, sans-serif")
    path.write_bytes(vl_convert.vegalite_to_png(styled.configure_view(stroke=None).to_json(), scale=2))


if __name__ == "__main__":
    main()
