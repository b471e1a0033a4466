"""Tuneoff beside HF Trainer and peft on the same work in one run: from raw text to test predictions.

Every contestant starts in a process of its own, with nothing cached and imports counted; one takes turns with the
next, strategy by strategy. A study by the usual way is one script that imports once. Prints seconds, ratios with the
targets beside them, and how near the machine's limits training comes. `--examples N --epochs E` sets the size; the
default is a short form. With `--out`, what is measured already is not measured again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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
from tuneoff import machine as here
from tuneoff.data.batches import pack, training_order
from tuneoff.data.dataset import DataSpec
from tuneoff.data.encode import encode
from tuneoff.data.load import load_dataset
from tuneoff.encoder.anatomy import blocks
from tuneoff.encoder.load import load_model, load_tokenizer
from tuneoff.study import Study

STUDY = ["probe", "head", "partial", "lora", "lora:rank=16", "adapter", "full"]
# what the project set out to reach: over the published recipe, over the tuned recipe
TARGETS = {"study": (20, 3), "full": (10, 2), "lora": (14, 1.8), "head": (40, 6), "partial": (15, 3)}
SPLITS = ("train", "validation", "test")
Figures = dict[str, Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=320, help="training examples; others a quarter each; 0: all")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--strategies", default=",".join(STUDY))
    parser.add_argument("--out", type=Path, help="figures as JSON, continued if the file exists")
    parser.add_argument("--chart", type=Path, help="draw the study's bars into this PNG")
    given = parser.parse_args()
    quarter = max(20, given.examples // 4)
    limits = {"train": given.examples, "validation": quarter, "test": quarter} if given.examples else {}
    work = Path(tempfile.mkdtemp())
    for split, table in load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits=limits)).splits.items():
        pyarrow.parquet.write_table(table, work / f"{split}.parquet")
    found: Figures = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}

    def once(key: str, measure: Callable[[], Any]) -> Any:
        if key not in found:
            found[key] = measure()
            print(f"{key}: {found[key]}", flush=True)
            if given.out:
                given.out.write_text(json.dumps(found, indent=1))
        return found[key]

    for key, here_and_now in (("machine", machine()), ("size", {**limits, "epochs": given.epochs})):
        if once(key, lambda value=here_and_now: value) != here_and_now:
            sys.exit(f"{given.out} holds figures of another {key}: {found[key]}; choose another --out")
    trials = {bf16: once(f"trial bf16={bf16}", lambda bf16=bf16: trial(work, bf16)) for bf16 in (True, False)}
    training = {bf16: trial["seconds"] - trial["import_seconds"] for bf16, trial in trials.items()}
    tuned = ["--tuned", "--bf16"] if training[True] < training[False] else ["--tuned"]
    strategies = given.strategies.split(",")
    for name in strategies:
        once(f"tuneoff {name}", lambda name=name: with_tuneoff(work, [name], given.epochs))
        once(f"tuned {name}", lambda name=name: with_trainer(work, name, given.epochs, tuned))
        once(f"published {name}", lambda name=name: with_trainer(work, name, given.epochs, []))
    once("tuneoff study", lambda: with_tuneoff(work, strategies, given.epochs))
    once("peak", peak)
    once("two at once", lambda: two_at_once(work, given.epochs))
    once("pipeline", lambda: pipeline(work))
    show(found, strategies, "bf16" if "--bf16" in tuned else "fp32")
    if given.chart:
        draw(found, strategies, given.chart)
    shutil.rmtree(work, ignore_errors=True)


def with_trainer(work: Path, strategy: str, epochs: int, options: list[str]) -> Figures:
    """One run of benchmarks/trainer.py."""
    script = str(Path(__file__).parent / "trainer.py")
    command = [sys.executable, script, strategy, str(work), "--epochs", str(epochs), *options]
    return json.loads(subprocess.check_output(command, stderr=subprocess.DEVNULL).splitlines()[-1])


def trial(work: Path, bf16: bool) -> Figures:
    """A small full fine-tuning by the tuned recipe, to see whether bf16 is its best setting."""
    small = work / "small"
    small.mkdir(exist_ok=True)
    for split in SPLITS:
        pyarrow.parquet.write_table(
            pyarrow.parquet.read_table(work / f"{split}.parquet").slice(0, 480), small / f"{split}.parquet"
        )
    return with_trainer(small, "full", 1, ["--tuned", *(["--bf16"] if bf16 else [])])


def with_tuneoff(work: Path, strategies: list[str], epochs: int, seeds: int = 1) -> Figures:
    """`tuneoff run` with an empty cache: seconds in all, and of each run its speed and memory."""
    folder = Path(tempfile.mkdtemp(dir=work))
    spec = {
        "name": "speed",
        "data": {"source": str(work / "train.parquet"), "splits": {s: str(work / f"{s}.parquet") for s in SPLITS}},
        "baselines": False,
        "strategies": strategies,
        "recipe": {"epochs": epochs, "batch_size": 16, "max_length": 128},
        "seeds": seeds,
        "save_models": False,
    }
    del spec["data"]["source"]
    (folder / "speed.yaml").write_text(yaml.safe_dump(spec))
    environment = {**os.environ, "TUNEOFF_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    command = [sys.executable, "-m", "tuneoff", "run", "speed.yaml"]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    store = Study.open(folder / "results" / "speed").store
    records = [store.record(path.name) for path in sorted(store.folder.iterdir())]
    assert all(record.status == "ok" for record in records), records
    speeds = [record.costs.get("tokens_per_second") for record in records]
    return {"seconds": seconds, "tokens_per_second": speeds, "peak_bytes": max(r.costs["peak_bytes"] for r in records)}


def two_at_once(work: Path, epochs: int) -> Figures:
    """Training speed where every core has a run of its own: tokens a second of all runs together."""
    cores = here.cores()
    return {
        name: sum(with_tuneoff(work, [name], epochs, seeds=cores)["tokens_per_second"]) for name in ("full", "lora")
    }


def peak() -> float:
    """The machine's bf16 matrix peak on all cores, in operations a second: the best of several large products."""
    best = 0.0
    for size in (1024, 2048):
        left, right = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
        for _ in range(20):
            started = time.perf_counter()
            left @ right
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def operations_per_token() -> int:
    """6 x the parameters outside embeddings (Kaplan et al., 2020, section 2.1)."""
    model = load_model("packaged:minilm", ("0", "1"), seed=0)
    return 6 * sum(parameter.numel() for block in blocks(model) for parameter in block.parameters())


def pipeline(work: Path) -> Figures:
    """What making batches takes: milliseconds a step, and a step's tokens."""
    dataset = load_dataset(DataSpec(splits={split: str(work / f"{split}.parquet") for split in SPLITS}))
    table = encode(dataset, load_tokenizer("packaged:minilm"), 128)["train"]
    batches = list(training_order(table.lengths, 16, seed=0, epoch=0))
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for examples in training_order(table.lengths, 16, seed=0, epoch=0):
            pack(table, examples)
        best = min(best, time.perf_counter() - started)
    return {"milliseconds": 1e3 * best / len(batches), "tokens": int(table.offsets[-1]) / len(batches)}


def machine() -> Figures:
    """What was measured on."""
    return {**here.machine(), **here.versions()}


def show(found: Figures, strategies: list[str], precision: str) -> None:
    """The tables, with the targets beside the figures."""
    print(f"\n{found['size']}; the tuned recipe is fastest in {precision}")
    print(f"{'':14}{'published':>12}{'tuned':>10}{'Tuneoff':>10}{'x published (target)':>24}{'x tuned (target)':>20}")
    for name in [*strategies, "study"]:
        ours = found[f"tuneoff {name}"]["seconds"]
        published, tuned = (seconds_of(found, who, name, strategies) for who in ("published", "tuned"))
        first, second = TARGETS.get(name, ("-", "-"))
        line = f"{name:14}{published:>10.1f} s{tuned:>8.1f} s{ours:>8.1f} s{published / ours:>15.1f} ({first:>4})  "
        print(f"{line}{tuned / ours:>13.1f} ({second:>4})")
    together, ours, tuned = found["two at once"], found["tuneoff full"], found["tuned full"]
    operations = operations_per_token() * together["full"]
    share, ratio = operations / found["peak"], together["full"] / together["lora"]
    making, step = found["pipeline"], 1e3 * found["pipeline"]["tokens"] * (here.cores()) / together["full"]
    print(f"\nfull fine-tuning, a run a core: {together['full']:,.0f} tokens/s, {operations / 1e9:.0f} GFLOP/s of")
    print(f"  {found['peak'] / 1e9:.0f} at the bf16 matrix peak: {100 * share:.0f} % (target 65 %)")
    print(f"LoRA's step takes {ratio:.2f} of full fine-tuning's (target at most 0.75)")
    print(
        f"most memory of full: {ours['peak_bytes'] / 2**20:.0f} MiB, tuned {tuned['peak_bytes'] / 2**20:.0f} (no more)"
    )
    made = making["milliseconds"]
    print(f"making a batch: {made:.2f} ms, {100 * made / step:.1f} % of a step of {step:.0f} ms (target 2 %)")


def seconds_of(found: Figures, who: str, name: str, strategies: list[str]) -> float:
    """Seconds of a run in a process of its own; of a study, one import and all runs after each other."""
    if name != "study":
        return found[f"{who} {name}"]["seconds"]
    runs = [found[f"{who} {strategy}"] for strategy in strategies]
    return runs[0]["import_seconds"] + sum(run["seconds"] - run["import_seconds"] for run in runs)


def draw(found: Figures, strategies: list[str], path: Path) -> None:
    """The seconds of a study by each contestant, as bars."""
    names = {"published": "HF Trainer + peft, as published", "tuned": "HF Trainer + peft, tuned", "tuneoff": "Tuneoff"}
    taken = {who: seconds_of(found, who, "study", strategies) for who in ("published", "tuned")}
    taken["tuneoff"] = found["tuneoff study"]["seconds"]
    rows = pd.DataFrame(
        {"who": names[who], "minutes": value / 60, "label": formats.seconds(value), "is_ours": who == "tuneoff"}
        for who, value in taken.items()
    )
    bars = alt.Chart(rows).encode(
        x=alt.X("minutes:Q", title=f"minutes for a study of {len(strategies)} strategies", axis=alt.Axis(grid=False)),
        y=alt.Y("who:N", title=None, sort=list(names.values()), axis=alt.Axis(labelLimit=300)),
    )
    blue, grey = "#0072b2", "#b0b0b0"  # the report's own
    colour = alt.condition("datum.is_ours", alt.value(blue), alt.value(grey))
    chart = bars.mark_bar(height=22).encode(color=colour) + bars.mark_text(align="left", dx=6).encode(text="label:N")
    styled = chart.properties(width=460, height=110).configure(background="white", font="system-ui, sans-serif")
    path.write_bytes(vl_convert.vegalite_to_png(styled.configure_view(stroke=None).to_json(), scale=2))


if __name__ == "__main__":
    main()
