"""First lines of a comparison on the screen: what was read, how it will be evaluated, what will run, data problems."""

from pathlib import Path

import numpy as np

from tuneoff.data.dataset import Dataset, label_counts, labels_of
from tuneoff.data.doctor.finding import short_findings
from tuneoff.data.spec import SPLITS, DataSpec
from tuneoff.data.splits import parts_of
from tuneoff.errors import join_limited
from tuneoff.formats import counted, join_names, rough_seconds, shorten
from tuneoff.plan import Plan
from tuneoff.seeds import SPLIT
from tuneoff.spec.study import StudySpec

_MAX_CLASSES = 6  # that are listed with their shares
_MAX_NAME = 30  # characters of a class or column
_SEPARATOR_NAMES = {";": "semicolons", "\t": "tabs", "|": "|"}


def opening(plan: Plan) -> list[str]:
    """Write the first lines of a study, before it trains."""
    lines = [
        data_line(plan.dataset, plan.spec.data),
        evaluation_line(plan.dataset, plan.spec),
        *([plan.extension] if plan.extension else []),
        *[f"! {line}" for line in short_findings(plan.findings, "tuneoff inspect")],
    ]
    return [*lines, plan_line(plan), *([plan.race] if plan.race and plan.estimates else [])]


def data_line(dataset: Dataset, spec: DataSpec) -> str:
    """Describe what was read: source, examples, classes with their shares, and the columns of text and label."""
    total, left_out = sum(map(dataset.num_examples, dataset.splits)), sum(dataset.left_out.values())
    size = f"{total:,} of {total + left_out:,} examples" if left_out else f"{total:,} examples"
    line = f"{_source_name(spec)}: {size}, {_classes(dataset)}"
    if dataset.separator != ",":
        line += f"; fields separated by {_SEPARATOR_NAMES[dataset.separator]}"
    if not dataset.columns:
        return line
    names = {ours: f'"{shorten(theirs, _MAX_NAME)}"' for ours, theirs in dataset.columns.items()}
    texts = [names[ours] for ours in ("text", "text_pair") if ours in names]
    return f"{line}; text from {join_names(texts)}, label from {names['label']}"


def evaluation_line(dataset: Dataset, spec: StudySpec) -> str:
    """Describe how strategies will be evaluated: the splits, how they were made, and the seeds."""
    if dataset.folds:
        return _folds_line(dataset, spec)
    divisions = spec.seed_grid.get(SPLIT)
    parts = parts_of(dataset)
    sizes = ", ".join(f"{parts[split].num_examples(dataset):,} {split}" for split in SPLITS)
    seeds = counted(spec.num_seeds, "seed")
    if spec.seed_grid:
        counts = [f"{len(values)} {source}" for source, values in spec.seed_grid.items()]
        seeds = f"every combination of {join_names(counts)} seeds"
    how = []
    if dataset.held_out:
        kept = f", each {spec.data.group} in one split" if spec.data.group else ""
        is_all = len(dataset.held_out) == len(SPLITS) - 1
        how.append(("" if is_all else f"{dataset.held_out[0]} ") + f"held out, stratified{kept}")
    if dataset.left_out:
        how.append(f"subset of {join_names(list(dataset.left_out))}")
    if divisions:
        how.append("train and validation divided anew by each split seed")
    method = f" ({'; '.join(how)})" if how else ""
    return f"evaluation: {sizes}{method}, {seeds}"


def _folds_line(dataset: Dataset, spec: StudySpec) -> str:
    """Describe an evaluation on folds."""
    kept = f", each {spec.data.group} in one fold" if spec.data.group else ""
    line = (
        f"evaluation: {dataset.folds} folds, stratified{kept}: each of {dataset.num_examples('train'):,} examples is "
        "predicted once, by a model that did not train on it"
    )
    if "test" not in dataset.splits:
        return line
    return f"{line}; the {dataset.num_examples('test'):,} test examples are read once, for the picked strategy"


def plan_line(plan: Plan) -> str:
    """Describe what will run, and how long it takes in all if the speed of this machine is known."""
    searches = sum(e.job.is_search for e in plan.estimates)
    runs = len(plan.estimates) - searches
    if not plan.estimates:
        return "every run is stored: nothing to train"
    parts = [counted(runs, "run")] if runs else []
    parts += [counted(searches, "search", "searches")] if searches else []
    jobs = " after ".join(parts)
    workers = min(plan.slots.workers, len(plan.estimates))
    time = f": about {rough_seconds(plan.seconds)}" if plan.seconds else ""
    final = ", then the picked strategy once more on all examples" if plan.dataset.folds else ""
    most = "at most " if plan.race else ""
    where = f" on {min(workers, plan.slots.machines)} machines" if plan.slots.machines > 1 else ""
    return f"{most}{jobs}, {workers} at once{where}{plan.slots.devices_text}{time}{final}"


def _source_name(spec: DataSpec) -> str:
    source = spec.source or spec.splits["train"]
    return source if ":" in source else Path(source).name


def _classes(dataset: Dataset) -> str:
    """Describe the classes: of a few, each with its share of all examples, else the largest and the smallest."""
    # a number is quoted: its share follows it
    names = [shorten(f'"{name}"' if name[-1:].isdigit() else name, _MAX_NAME) for name in dataset.label_names]
    labels = [labels_of(table) for table in dataset.splits.values()]
    counts = np.sum([label_counts(of_split, len(names)) for of_split in labels], axis=0)
    percent = 100 * counts / sum(map(len, labels))
    kind = "labels, multi-label" if dataset.is_multilabel else "classes"
    if len(names) <= _MAX_CLASSES:
        shares = join_limited([f"{n} {_percent(p)}" for n, p in zip(names, percent, strict=True)], _MAX_CLASSES)
        return f"{len(names)} {kind} ({shares})"
    high, low = int(counts.argmax()), int(counts.argmin())
    return f"{len(names)} {kind} ({names[high]} {_percent(percent[high])} to {names[low]} {_percent(percent[low])})"


def _percent(value: float) -> str:
    return f"{value:.0f} %" if value >= 1 or value == 0 else f"{value:.1g} %"
