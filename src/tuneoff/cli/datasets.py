"""Studies over several datasets at the command line: which studies, what changes in each, the overview on screen."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff.cli.output import console, new_table, visible
from tuneoff.datasets import StudySet
from tuneoff.errors import ConfigError
from tuneoff.spec.file import default_name

if TYPE_CHECKING:
    from tuneoff.comparison.overview import Overview

_MAX_NAME = 60  # characters of a folder that is named by its datasets


def set_of(sources: Sequence[str | None], options: Mapping[str, Any], name: str | None) -> StudySet:
    """Return the studies of several sources, which share all other options.

    options: fields of StudySpec. name: by default the names of the datasets.
    """
    shared = dict(options["data"])
    if sources[0] is None or shared.get("splits"):
        raise ConfigError(
            "--train, --validation and --test are of one dataset; write the others in a study (datasets:)"
        )
    names = [default_name(str(source)) for source in sources]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(f"two datasets would have the name {repeated[0]!r}; name them in a study file (datasets:)")
    datasets = {dataset: {"source": source} for dataset, source in zip(names, sources, strict=True)}
    rest = {**options, "data": shared, "name": name or "-".join(names)[:_MAX_NAME].rstrip("-."), "datasets": datasets}
    return StudySet.of(rest, "compare")


def check_is_of_all(of_one: Mapping[str, Any]) -> None:
    """Raise ConfigError for options that are of one dataset. of_one: such options, with their values."""
    for option, value in of_one.items():
        if value:
            raise ConfigError(f"{option} does not go with a study of several datasets; write it in its file")


def print_overview(overview: "Overview", folder: Path, as_json: bool, quiet: bool) -> None:
    """Print the mean ranks, the scores on each dataset, and the conclusion."""
    from tuneoff.formats import fixed

    if as_json:
        print(json.dumps(overview.to_json(), indent=1, ensure_ascii=False))
        return
    if quiet:
        return
    names = [dataset.name for dataset in overview.datasets]
    table = new_table("strategy", "mean rank", *names)
    for row in overview.rows:
        scores = [fixed(row.scores[name][0]) if name in row.scores else "–" for name in names]
        rank = "–" if row.mean_rank is None else fixed(row.mean_rank, 2)
        table.add_row(visible(row.name), rank, *scores)
    console.print(table)
    console.print()
    for sentence in overview.summary:
        console.print(visible(sentence))
    console.print(f"\nReport: {visible(str(folder / 'report' / 'index.html'))}", soft_wrap=True)
