"""What may be said at the command line of data and studies, and its words as plain data."""

from typing import Annotated, Any, Optional

import typer
import yaml

from tuneoff.errors import ConfigError

Word = Optional[str]  # noqa: UP045  typer reads Optional
Data = Annotated[
    Word,
    typer.Argument(help="a file (csv, tsv, jsonl, parquet), a folder with one file a split, packaged:NAME or hf:NAME"),
]
Text = Annotated[Word, typer.Option(help="column of the text")]
Pair = Annotated[Word, typer.Option("--text-pair", help="column of the second text")]
Label = Annotated[Word, typer.Option(help="column of the label")]
Separator = Annotated[
    Word,
    typer.Option("--label-separator", help="what parts several labels of an example: | for news|sport"),
]
LabelColumns = Annotated[
    Word,
    typer.Option("--label-columns", help="columns of 0 and 1, one a label, instead of a label column; with commas"),
]
Group = Annotated[
    Word,
    typer.Option(help="column of what must stand in one split alone: author, patient, thread"),
]
Slices = Annotated[
    Word,
    typer.Option(help="columns by whose values test scores are parted, with commas: source,language"),
]
Labels = Annotated[Word, typer.Option(help="label names in the order of their ids: negative,positive")]
SplitFile = Annotated[Word, typer.Option(help="file of this split, or the source's own name of it")]
Limit = Annotated[
    Word,
    typer.Option(help="at most so many examples: 2000 for train, or train=2000,validation=500,test=500"),
]
DropUnlabelled = Annotated[bool, typer.Option("--drop-unlabelled", help="leave out examples without a label")]
DropEmpty = Annotated[bool, typer.Option("--drop-empty", help="leave out examples with an empty text")]
COST = "what the verdict chooses by among what is tied: training time, parameters, size, memory or latency"
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


def data_of(
    source: str | None,
    splits: dict[str, str | None],
    limit: str | None,
    labels: str | None,
    label_columns: str | None,
    slices: str | None,
    **plain: Any,
) -> dict[str, Any]:
    """What was said of the data, as DataSpec's fields. plain: those that are as they came."""
    if source is None and splits["train"] is None:
        raise ConfigError("no data given; name a file, a folder, packaged:NAME or hf:NAME, or --train FILE")
    return {
        "source": source,
        "splits": {split: given for split, given in splits.items() if given},
        "labels": parts_of(labels) if labels else None,
        "label_columns": parts_of(label_columns or ""),
        "slices": parts_of(slices or ""),
        "limits": limits_of(limit),
        **plain,
    }


def parts_of(given: str) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in given.split(",") if part.strip()]


def options_of(given: str | None) -> dict[str, Any]:
    """key=value,key=value as a dictionary; values as YAML reads them."""
    found = {}
    for part in parts_of(given or ""):
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"--recipe {given!r}: {part!r} is not key=value; write e.g. class_weights=balanced")
        found[key.strip()] = yaml.safe_load(value)
    return found


def limits_of(given: str | None) -> dict[str, Any]:
    """2000, or train=2000,test=500, as numbers by split."""
    found = {}
    for part in given.split(",") if given else ():
        split, equals, count = part.rpartition("=")
        if not count.isdigit():
            raise ConfigError(f"--limit {given!r} is not a number or split=number; write e.g. train=2000,test=500")
        found[split if equals else "train"] = int(count)
    return found


def seeds_of(given: str) -> int | list[int]:
    """3, or 1,2,42, as a number or numbers."""
    words = given.split(",")
    if not all(part.strip().isdigit() for part in words):
        raise ConfigError(f"--seeds {given!r} is not a number or numbers with commas; write 3 or 1,2,42")
    return int(given) if len(words) == 1 else [int(part) for part in words]
