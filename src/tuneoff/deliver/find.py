"""Which stored model to use: of a study the recommended strategy's, of its seeds the best on validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneoff.comparison.rows import BEST
from tuneoff.deliver.classifier import Classifier, load_classifier
from tuneoff.deliver.saved import model_folder_of
from tuneoff.errors import ConfigError, StoreError, unknown
from tuneoff.files import read_json
from tuneoff.formats import encoder_names
from tuneoff.runs import OK, RunRecord, StudyStore
from tuneoff.scoring.metrics import direction
from tuneoff.strategies import STRATEGIES


@dataclass(frozen=True)
class Found:
    """One or several models of a strategy, which are used together."""

    folders: tuple[Path, ...]
    label: str  # of the strategy
    runs: tuple[RunRecord, ...] = ()  # whose predictions show what to expect: those of the models, or of the folds
    store: StudyStore | None = None  # None for a model's folder outside a study

    @property
    def is_final(self) -> bool:
        """The model was trained on all labelled examples; the runs are those of the folds."""
        return bool(self.runs) and bool(self.runs[0].spec.get("fold"))


def find(
    name: str | Path,
    strategy: str | None = None,
    run: str | None = None,
    ensemble: bool = False,
    encoder: str | None = None,
) -> Found:
    """Find the model of a study's folder, of a run's folder or of a model's folder.

    strategy: as on the leaderboard, or its name alone ("lora" for "lora rank=4") if only one has that name; by default
    the recommended one. Of several encoders the best is meant, unless it is named: "lora on minilm", or encoder. run:
    id of one of the study's runs. ensemble: the models of all seeds.
    Raises StoreError or ConfigError, in one line, for a study without such a model.
    """
    path = Path(name).expanduser()
    if (path / "study.yaml").is_file():
        return _find_in_study(StudyStore(path), strategy, run, ensemble, encoder)
    if not path.is_dir():
        raise StoreError(f"folder {str(path)!r} does not exist; give a study's folder, e.g. results/reviews")
    if strategy or run or ensemble:
        raise ConfigError(f"{path} is one model; choose a strategy, a run or an ensemble from a study's folder")
    folder = model_folder_of(path)
    if (folder.parent / "run.json").is_file() and (folder.parent.parent.parent / "study.yaml").is_file():
        store = StudyStore(folder.parent.parent.parent)
        record = store.runs.record(folder.parent.name)
        return Found((folder,), record.label, _evidence(record, store), store)
    return Found((folder,), folder.name)


def load(
    name: str | Path,
    *,
    strategy: str | None = None,
    run: str | None = None,
    ensemble: bool = False,
    encoder: str | None = None,
) -> Classifier:
    """Load a trained model as a classifier: of a study's folder the recommended strategy's.

    name: a study's folder ("results/reviews"), a run's folder, or a model's folder. strategy: as on the leaderboard,
    "lora rank=16", or "lora" if there is one. run: id of one run. ensemble: average the probabilities of all seeds.
    encoder: place of the pretrained encoder of a probe or an adapter, if it is not where it was at training.
    Raises StoreError, ConfigError or ModelError, in one line.
    """
    return load_classifier(find(name, strategy, run, ensemble).folders, encoder)


def _find_in_study(
    store: StudyStore, strategy: str | None, run: str | None, ensemble: bool, encoder: str | None
) -> Found:
    if run is not None:
        if strategy or ensemble:
            raise ConfigError("a run is one model of one strategy; leave out the strategy and the ensemble")
        return _of_run(store, run)
    path = store.folder / "comparison.json"
    if not path.is_file():
        raise StoreError(f"study {store.folder} is not finished; finish it with tuneoff run {store.folder}")
    compared = read_json(path)
    row = _row(compared, strategy, encoder, store.folder)
    if row["strategy"] not in STRATEGIES:
        raise ConfigError(f"{row['label']} are predictions from a file, of which there is no model")
    records = [store.runs.record(run_id) for run_id in store.read_data()[1]]
    members = [r for r in records if r.group == row["group"] and r.status == OK]
    if members and members[0].spec.get("fold"):
        return _final(store, compared, members, row["label"])
    models = [record for record in members if (store.runs.path(record.run_id) / "model").is_dir()]
    if not models:
        raise StoreError(
            f"the models of {row['label']} were not kept; tuneoff run {store.folder} --keep all trains them again"
        )
    if not ensemble:
        metric = compared["selection_metric"] if "selection_metric" in compared else compared["metric"]
        models = [max(models, key=lambda r: direction(metric) * r.metrics["validation"][metric])]
    folders = tuple(store.runs.path(record.run_id) / "model" for record in models)
    return Found(folders, row["label"], tuple(models), store)


def _of_run(store: StudyStore, run: str) -> Found:
    if not store.runs.path(run).is_dir():
        stored = sorted(path.name for path in store.runs.folder.glob("*-s*"))
        raise StoreError(unknown("run", run, stored))
    folder, record = model_folder_of(store.runs.path(run)), store.runs.record(run)
    return Found((folder,), record.label, _evidence(record, store), store)


def _row(compared: Mapping[str, Any], strategy: str | None, encoder: str | None, folder: Path) -> dict[str, Any]:
    """Return the row of the leaderboard of a strategy, by default of the recommended one."""
    rows: list[dict[str, Any]] = compared["leaderboard"]
    if strategy is None:
        verdict = compared["verdict"] or {}
        if not verdict.get("recommended"):
            best = next((row["label"] for row in rows if row.get("standing") == BEST), None)
            hint = f"; choose one, e.g. --strategy {best!r}" if best else ""
            raise StoreError(f"the verdict of {folder} recommends no strategy (tuneoff report {folder} says why){hint}")
        return next(row for row in rows if row["group"] == verdict["recommended"])
    of_encoder = [row for row in rows if encoder in (None, row["model"])]
    label, short = _label(strategy), encoder_names({row["model"]: None for row in rows if row["model"]})
    fitting = [row for row in of_encoder if label in (row["label"], f"{row['label']} on {short.get(row['model'])}")]
    if not fitting:
        fitting = [row for row in of_encoder if row["strategy"] == strategy]
        if len({row["label"] for row in fitting}) != 1:
            raise ConfigError(unknown("strategy", strategy, dict.fromkeys(row["label"] for row in rows)))
    return fitting[0]  # the best one, of several encoders


def _label(strategy: str) -> str:
    """Return the label of a strategy that is written as in a study: lora:rank=16 -> lora rank=16."""
    from tuneoff.spec.strategy import parse_strategy

    return parse_strategy(strategy).label if ":" in strategy else strategy


def _final(store: StudyStore, compared: Mapping[str, Any], folds: Sequence[RunRecord], label: str) -> Found:
    final = next((r for r in store.read_final() if r.status == OK and _is_of(r, folds[0])), None)
    if final is None or not (store.runs.path(final.run_id) / "model").is_dir():
        raise StoreError(
            f"there is no model of {label}: with folds only the recommended strategy is trained on all labelled "
            "examples"
        )
    return Found((store.runs.path(final.run_id) / "model",), label, tuple(folds), store)


def _is_of(final: RunRecord, fold: RunRecord) -> bool:
    return (final.label, final.model) == (fold.label, fold.model)


def _evidence(record: RunRecord, store: StudyStore) -> tuple[RunRecord, ...]:
    """Return the runs whose predictions show what to expect of a run's model."""
    if not record.spec.get("final"):
        return (record,)
    records = [store.runs.record(run_id) for run_id in store.read_data()[1]]
    return tuple(r for r in records if r.status == OK and r.spec.get("fold") and _is_of(record, r))
