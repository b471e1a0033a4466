"""One study over several datasets, each a study of its own in a folder of its own, and the overview of all of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tuneoff.checksums import copy_of, resealing
from tuneoff.errors import ConfigError, StoreError
from tuneoff.files import check_new_name, write_text
from tuneoff.spec.file import load_yaml, study_from
from tuneoff.spec.stated import NAME_PATTERN
from tuneoff.spec.study import StudySpec
from tuneoff.study import RESULTS, Study

if TYPE_CHECKING:
    from tuneoff.comparison.overview import Overview
    from tuneoff.comparison.result import Comparison

STORED = "datasets.yaml"  # in the folder of a study over several datasets: the spec of each


@dataclass(frozen=True)
class StudySet:
    """Studies of several datasets with the same strategies, encoders and recipe."""

    name: str
    folder: Path
    studies: dict[str, Study]  # by name of the dataset

    @classmethod
    def open(cls, name: str | Path) -> "StudySet | None":
        """Open a study over several datasets from its folder or YAML file; None for a study of one dataset."""
        path = Path(name)
        if path.is_dir():
            return cls._stored(path) if (path / STORED).is_file() else None
        if not path.is_file():
            return None
        given = load_yaml(path)
        if not isinstance(given, dict) or "datasets" not in given:
            return None
        where = f"study file {path.name!r}"
        return cls.of({"name": path.stem, **given}, where)

    @classmethod
    def of(cls, given: dict[str, Any], where: str = "study", folder: Path | None = None) -> "StudySet":
        """Build it from plain data: fields of StudySpec, and datasets in place of data. Raises ConfigError.

        data: options that all datasets share. folder: by default results/NAME.
        """
        rest = {key: value for key, value in given.items() if key not in ("datasets", "data", "name")}
        name, shared = str(given["name"]), given.get("data") or {}
        folder = folder or RESULTS / name
        datasets = given["datasets"]
        if not isinstance(datasets, Mapping) or not datasets:
            raise ConfigError(f"{where}: datasets is no mapping; write datasets: {{tweets: tweets.csv, ...}}")
        check_names([name, *map(str, datasets)])
        studies = {}
        for dataset, data in datasets.items():
            options = {"source": str(data)} if isinstance(data, (str, Path)) else data
            if not isinstance(options, Mapping):
                raise ConfigError(
                    f"{where}: dataset {dataset!r} is neither a source nor options; write {{source: FILE}}"
                )
            spec = study_from({**rest, "name": str(dataset), "data": {**shared, **options}}, f"{where}, {dataset}")
            studies[str(dataset)] = Study(spec, folder / str(dataset))
        return cls(name, folder, studies)

    @classmethod
    def _stored(cls, folder: Path) -> "StudySet":
        given = load_yaml(folder / STORED)
        try:
            specs = {name: study_from(spec, f"{folder / STORED}, {name}") for name, spec in given["studies"].items()}
            return cls(str(given["name"]), folder, {name: Study(spec, folder / name) for name, spec in specs.items()})
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{folder / STORED} cannot be read ({error}); run the study's file again") from error

    def changed(self, change: Callable[[StudySpec], StudySpec], name: str | None = None) -> "StudySet":
        """Return it with the spec of each dataset changed. name: of the whole, and so of its folder."""
        folder = RESULTS / name if name else self.folder
        specs = {dataset: change(study.spec) for dataset, study in self.studies.items()}
        return StudySet(name or self.name, folder, {d: Study(spec, folder / d) for d, spec in specs.items()})

    def joined_with_stored(self) -> "StudySet":
        """Return it with the datasets that its folder holds and that are not asked for again."""
        stored = StudySet._stored(self.folder).studies if (self.folder / STORED).is_file() else {}
        kept = {name: study for name, study in stored.items() if (study.folder / "comparison.json").is_file()}
        return StudySet(self.name, self.folder, kept | self.studies)

    def store(self) -> None:
        """Write the specs of all datasets, so that the folder alone is enough to run it again."""
        if (self.folder / "study.yaml").is_file():
            raise StoreError(f"{self.folder} holds a study of one dataset; give this one another name (--name)")
        if not self.folder.exists():
            check_new_name(self.folder.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        specs = {name: study.spec.model_dump(mode="json") for name, study in self.studies.items()}
        text = yaml.safe_dump({"name": self.name, "studies": specs}, sort_keys=False, allow_unicode=True)
        with resealing(self.folder / STORED):
            write_text(self.folder / STORED, text)
        write_text(copy_of(self.folder / STORED), text)

    def run(self, run_study: "Callable[[str, Study], Comparison]", replace: bool = False) -> "Iterator[Comparison]":
        """Run the study of each dataset, one after another; stored runs are not repeated."""
        (self if replace else self.joined_with_stored()).store()
        for name, study in self.studies.items():
            yield run_study(name, study)

    def overview(self, metric: str | None = None) -> "Overview":
        """Compare the strategies over all datasets, and write the report into the folder."""
        folders = [study.folder for study in self.joined_with_stored().studies.values()]
        return overview(folders, out=self.folder, name=self.name, metric=metric)


def check_names(names: Sequence[str]) -> None:
    """Raise ConfigError for the name of a study or dataset that cannot be a folder's name, or is given twice."""
    from tuneoff.report.overview import RESERVED

    lower = [name.lower() for name in names[1:]]  # as some file systems see them
    for name in names:
        if not NAME_PATTERN.fullmatch(name):
            raise ConfigError(f"name {name!r} is no folder's name; use letters, digits, _, - and .")
    for name in names[1:]:
        if name.lower() in RESERVED:
            raise ConfigError(f"dataset {name!r} has the name of a part of the report; choose another name")
        if lower.count(name.lower()) > 1:
            raise ConfigError(
                f"dataset {name!r} is given twice; give each a name of its own (datasets: in a study file)"
            )


def overview(
    studies: "Sequence[str | Path | Study | Comparison]",
    *,
    out: str | Path | None = None,
    name: str | None = None,
    metric: str | None = None,
) -> "Overview":
    """Compare strategies over the datasets of several finished studies: mean ranks, and whether they are chance.

    studies: folders ("results/reviews"), studies or comparisons. out: folder for a report; None writes nothing.
    metric: ranks the strategies of all studies; by default each study's own, which must be the same.
    Raises ConfigError for studies by different metrics, of the same data, or without a common strategy.
    """
    from tuneoff.comparison.overview import overview_of
    from tuneoff.report.overview import write_overview

    comparisons: dict[str, Comparison] = {}
    for given in studies:
        comparison = _comparison(given, metric)
        key = Path(comparison.folder).name or comparison.name
        comparisons[key if key not in comparisons else comparison.folder] = comparison
    made = overview_of(name or (Path(out).name if out else "overview"), comparisons)
    if out is not None:
        if (Path(out) / "study.yaml").is_file():
            raise StoreError(f"{out} holds a study, whose report would be overwritten; choose another folder")
        write_overview(made, Path(out))
    return made


def _comparison(given: "str | Path | Study | Comparison", metric: str | None) -> "Comparison":
    if not isinstance(given, (str, Path, Study)):
        return given
    study = given if isinstance(given, Study) else Study.open(given)
    if not (study.folder / "data.json").is_file():
        raise StoreError(f"study {study.folder} has no runs; run it first: tuneoff run {given}")
    return study.comparison(metric=metric)
