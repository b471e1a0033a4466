"""Extension of a stored study by another spec of the same name: stored runs are kept, and settings must agree.

A study that runs again with other strategies, encoders, seeds or subsets trains what the new spec asks for, and its
report shows the stored runs as well. Settings on which every run depends (recipe, metric, search, data) may not differ:
the stored runs would be of another comparison.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from tuneoff.data.dataset import SLICE, Dataset
from tuneoff.data.describe import LengthSummary
from tuneoff.data.pieces import TokenExamples
from tuneoff.data.spec import DataSpec, Subset
from tuneoff.errors import StoreError
from tuneoff.formats import counted, join_names
from tuneoff.runs import FAILED, RunRecord, StudyStore
from tuneoff.scoring.metrics import depends_on_positive
from tuneoff.search.space import SearchSpec
from tuneoff.seeds import Seeds
from tuneoff.spec.file import read_study
from tuneoff.spec.run import RunSpec
from tuneoff.spec.stated import ImportedSpec, merged_imports
from tuneoff.spec.study import StudySpec
from tuneoff.strategies import STRATEGIES

_SHOWN_ONLY = ("slices",)  # fields of DataSpec that change no run


@dataclass(frozen=True)
class Extension:
    """The joined spec of a study, and the stored runs and searches that it keeps."""

    spec: StudySpec
    kept_runs: tuple[str, ...] = ()  # stored runs of the study that the new spec does not ask for
    kept_searches: tuple[str, ...] = ()
    lengths: dict[str, dict[str, LengthSummary]] = field(default_factory=dict)  # stored: encoder -> split
    heads: dict[str, str] = field(default_factory=dict)  # stored: encoder -> why its own head is not used
    token_examples: TokenExamples | None = None  # stored: a new part without an encoder has none
    text: str = ""  # for the screen: what is stored and what is new; empty if nothing is


def extend(new: StudySpec, runs: Sequence[RunSpec], data: Dataset, store: StudyStore, replace: bool) -> Extension:
    """Join a study with the one that is stored in the same folder; nothing is written.

    runs: the grid of the new study. replace: keep nothing instead.
    Raises StoreError if the folder holds runs that are not comparable with the new ones.
    """
    if not (store.folder / "study.yaml").is_file():
        return Extension(new)
    has_data = (store.folder / "data.json").is_file()
    if replace:
        return Extension(new, text=f"replaces the settings of {store.folder}" if has_data else "")
    stored = read_study(str(store.folder / "study.yaml"))
    if not has_data:  # it was stopped before its first run
        return Extension(_joined(stored, new)) if not _setting_differences(stored, new, data, None) else Extension(new)
    description, run_ids, search_ids = store.read_data()
    records = [store.runs.record(run_id) for run_id in run_ids]
    asked = {_cell(run) for run in runs}
    kept = [record for record in records if _stored_cell(record) not in asked]
    differences = []
    if description.fingerprint != data.fingerprint and _evaluation(stored) == _evaluation(new):
        differences += _data_differences(stored.data, new.data) or [f"the content of {_source(new.data)} has changed"]
    differences += _setting_differences(stored, new, data, records, bool(kept))
    if differences and any(record.status != FAILED for record in records):
        raise StoreError(_refusal(store, stored, new, differences))
    if differences:
        return Extension(new)
    groups = {(run.strategy.label, run.model, _subset_label(run.subset)) for run in runs}
    searches = [store.searches.read(search_id) for search_id in search_ids]
    return Extension(
        _joined(stored, new),
        kept_runs=tuple(record.run_id for record in kept),
        kept_searches=tuple(s.search_id for s in searches if (s.label, s.model, s.part) not in groups),
        lengths=description.lengths,
        heads=description.heads,
        token_examples=description.token_examples,
        text=_describe(stored, new, {record.label for record in records}, store.folder),
    )


def _refusal(store: StudyStore, stored: StudySpec, new: StudySpec, differences: Sequence[str]) -> str:
    """Say why a stored study cannot be extended, and what to do."""
    race = store.race()
    if race and race.for_limits(stored.data.limits).sampled_sizes and new.data.limits != stored.data.limits:
        return (
            f"{store.folder} holds runs of a sample, {race.sample_text}, which --time took; go on with it by --time, "
            "give this study another name (--name), or replace the stored runs with --replace"
        )
    return (
        f"{store.folder} holds runs with other settings: {'; '.join(differences)}. Give this study another name "
        "(--name), or replace the stored settings with --replace"
    )


def with_stored_slices(test: pa.Table, spec: StudySpec, store: StudyStore) -> pa.Table:
    """Add to the test split those slice columns of a joined spec that only the stored test split has."""
    missing = [SLICE + name for name in spec.data.slices if SLICE + name not in test.column_names]
    path = store.folder / "test.parquet"
    if missing and path.is_file():
        stored = pyarrow.parquet.read_table(path)
        for name in missing:
            if name in stored.column_names:
                test = test.append_column(name, stored[name])
    return test


def _cell(run: RunSpec) -> tuple[Any, ...]:
    """Return the place of a run in a study's grid, whatever options a search gave it."""
    return run.strategy.label, run.model, _subset_label(run.subset), run.seed


def _stored_cell(record: RunRecord) -> tuple[Any, ...]:
    subset = record.spec.get("subset")
    return record.label, record.model, _subset_label(Subset.model_validate(subset) if subset else None), record.seed


def _subset_label(subset: Subset | None) -> str | None:
    return subset.label if subset else None


def _joined(stored: StudySpec, new: StudySpec) -> StudySpec:
    """Return the new spec with the strategies, encoders, seeds and subsets of the stored one, which come first."""
    search = new.search
    if search and stored.search:
        search = search.model_copy(update={"spaces": stored.search.spaces | search.spaces})
    changes = {
        name: _union(getattr(stored, name), getattr(new, name))
        for name in ("strategies", "model", "fractions", "per_class", "reported")
    }
    data = new.data.model_copy(update={"slices": _union(stored.data.slices, new.data.slices)})
    return new.model_copy(
        update={
            **changes,
            "seeds": _joined_seeds(stored.seeds, new.seeds),
            "search": search,
            "data": data,
            "tags": stored.tags | new.tags,
            "tests": stored.tests | new.tests,
            "baselines": stored.baselines or new.baselines,
            "imported": tuple(map(ImportedSpec.model_validate, merged_imports(stored.imported, new.imported))),
            # a study that keeps all models loses none because it is extended without naming them again
            "keep": stored.keep if stored.keep == "all" and "keep" not in new.model_fields_set else new.keep,
        }
    )


def _joined_seeds(stored: Seeds | None, new: Seeds | None) -> Seeds | None:
    """Join seeds, or the seeds of each source. Seeds of other sources are another setting, and are not joined."""
    if isinstance(stored, dict) and isinstance(new, dict):
        return {source: _union(stored.get(source, ()), seeds) for source, seeds in new.items()}
    if isinstance(stored, tuple) and isinstance(new, tuple):
        return _union(stored, new)
    return new


def _union(stored: Iterable[Any], new: Iterable[Any]) -> tuple[Any, ...]:
    items = list(stored)
    return (*items, *[item for item in new if item not in items])


def _setting_differences(
    stored: StudySpec, new: StudySpec, data: Dataset, records: Sequence[RunRecord] | None, has_kept: bool = True
) -> list[str]:
    """Describe the settings of a study that differ and on which its stored runs depend.

    records: the stored runs; None if there are none yet. has_kept: some of them are not asked for again.
    """
    strategies = {record.strategy for record in records or ()}
    fields = [STRATEGIES[name].recipe_fields for name in strategies]
    differences = [] if records is not None else _data_differences(stored.data, new.data)
    for name in type(new.recipe).model_fields:
        was, now = getattr(stored.recipe, name), getattr(new.recipe, name)
        is_used = records is None or any(used is None or name in used for used in fields)
        if was != now and is_used:
            differences.append(_difference(name, was, now))
    was, now = (_evaluation(spec) for spec in (stored, new))
    if was != now:
        differences.append(_difference("evaluation", was, now))
    was, now = (_selection(spec, data) for spec in (stored, new))
    if was != now:
        differences.append(_difference("metric", was, now))
    if stored.threshold != new.threshold:
        differences.append(_difference("threshold", stored.threshold or 0.5, new.threshold or 0.5))
    return differences + _search_differences(stored, new, has_kept)


def _selection(spec: StudySpec, data: Dataset) -> str:
    """Return the metric that selects on validation. The one that ranks may change: no run depends on it."""
    options = spec.metric_options(data.label_names, data.is_multilabel)
    metric = spec.selection_metric(options)
    return f"{metric} of {options.positive_name}" if depends_on_positive(metric) and options.positive_name else metric


def _evaluation(spec: StudySpec) -> str:
    if spec.num_folds:
        return f"{spec.num_folds} folds"
    return f"seeds of {join_names(list(spec.seed_grid))} apart" if spec.seed_grid else "one split"


def _search_differences(stored: StudySpec, new: StudySpec, has_kept: bool) -> list[str]:
    """Describe a changed search. A larger budget is none if it continues the searches of all stored strategies."""
    was, now = stored.search, new.search
    if was is None or now is None:
        return [] if was == now else [_difference("search", _budget(was), _budget(now))]
    differences = []
    is_continued = not has_kept and _is_larger(now, was)
    if _budget(was) != _budget(now) and not is_continued:
        differences.append(_difference("search", _budget(was), _budget(now)))
    if was.halving != now.halving:
        differences.append(_difference("search halving", was.halving, now.halving))
    for strategy in stored.strategies:
        if strategy in new.strategies and was.space_of(strategy) != now.space_of(strategy):
            differences.append(f"search space of {strategy.label}")
    return differences


def _is_larger(budget: SearchSpec, than: SearchSpec) -> bool:
    if budget.trials and than.trials:
        return budget.trials > than.trials
    return bool(budget.budget and than.budget and budget.budget > than.budget)


def _budget(search: SearchSpec | None) -> str:
    if search is None:
        return "none"
    return counted(search.trials, "trial") if search.trials else f"{search.budget:g} s"


def _data_differences(stored: DataSpec, new: DataSpec) -> list[str]:
    """Describe the options of the data that differ; of another source, the source alone."""
    names = [name for name in DataSpec.model_fields if name not in _SHOWN_ONLY]
    changed = [name for name in names if getattr(stored, name) != getattr(new, name)]
    changed = [name for name in changed if name in ("source", "splits")] or changed
    return [_difference(name, getattr(stored, name), getattr(new, name)) for name in changed]


def _difference(name: str, was: Any, now: Any) -> str:
    return f"{name} {_written(was)}, now {_written(now)}"


def _written(value: Any) -> str:
    """Write the value of an option as on the command line."""
    if isinstance(value, dict):
        return ",".join(f"{key}={inner}" for key, inner in value.items()) or "none"
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _source(data: DataSpec) -> str:
    return data.source or data.splits["train"]


def _describe(stored: StudySpec, new: StudySpec, stored_labels: set[str], folder: Path) -> str:
    """Describe in one line what is stored and not asked for again, and what is new; empty if there is neither."""
    axes = {
        "": ([s.label for s in stored.strategies], [s.label for s in new.strategies]),
        "encoder": (stored.model, new.model),
        "seed": (_seed_names(stored.seeds), _seed_names(new.seeds)),
        "subset": (_labels(stored.subsets), _labels(new.subsets)),
        "test set": (list(stored.tests), list(new.tests)),
    }
    kept, added = [], []
    for kind, (was, now) in axes.items():
        kept += _phrase(kind, [x for x in was if x not in now and (kind or x in stored_labels)], "stored")
        added += _phrase(kind, [x for x in now if x not in was], "new")
    never_run = [s.label for s in stored.strategies if s not in new.strategies and s.label not in stored_labels]
    text = f"extends {folder}: {', '.join(kept + added)}" if kept or added else ""
    if never_run:
        names = f"{join_names(never_run)} of the stored study {'has' if len(never_run) == 1 else 'have'} no runs"
        text += f"{'; ' if text else ''}{names} (tuneoff run {folder} trains {'it' if len(never_run) == 1 else 'them'})"
    return text


def _seed_names(seeds: Seeds | None) -> list[str]:
    if isinstance(seeds, dict):
        return [f"{source} {seed}" for source, values in seeds.items() for seed in values]
    return [str(seed) for seed in seeds or ()]


def _labels(subsets: Iterable[Subset]) -> list[str]:
    return [subset.label for subset in subsets]


def _phrase(kind: str, items: Sequence[Any], state: str) -> list[str]:
    if not items:
        return []
    is_one = len(items) == 1
    noun = f"{kind}{'' if is_one else 's'} " if kind else ""
    return [f"{noun}{join_names([str(item) for item in items])} {'is' if is_one else 'are'} {state}"]
