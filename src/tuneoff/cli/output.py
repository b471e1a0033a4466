"""Printing of the commands: tables, results, classes, options. Text of the user's data is shown, never obeyed."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from tuneoff.formats import shorten, show_control_characters, size

if TYPE_CHECKING:
    from tuneoff.comparison.detection import Detection
    from tuneoff.comparison.result import Comparison
    from tuneoff.data.dataset import Dataset
    from tuneoff.data.describe import DataDescription, LengthSummary
    from tuneoff.data.pieces import TokenExamples
    from tuneoff.data.spec import TruncationPolicy
    from tuneoff.deliver.export import Exported
    from tuneoff.review import Review
    from tuneoff.tables import Table as TypedTable
    from tuneoff.trackers import Tracked

_MAX_CLASSES = 20  # that inspect lists one by one
_MAX_ENDS = 5  # largest and smallest classes that it lists of more
_MAX_SAMPLED = 10  # labels of which it prints examples
_SAMPLE_LENGTH = 160  # characters

console = Console(highlight=False)
error_console = Console(highlight=False, stderr=True)


def visible(text: str) -> str:
    """Text of the user's data for the terminal: in one line, without control characters and without rich's markup.

    >>> visible("a\\nb\\x1b[0m[red]")
    'a␊b␛[0m\\\\[red]'
    """
    return escape(show_control_characters(text).replace("\n", "␊").replace("\t", "␉"))


def new_table(*columns: str) -> Table:
    """Return an empty table; the first column is text, the others are numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    return table


def print_result(comparison: "Comparison", folder: Path, as_json: bool, quiet: bool) -> None:
    """Print the leaderboard, the verdict and failed runs. as_json: later, in print_report(). quiet: failures only."""
    if quiet:
        _print_failures(comparison, folder, error_console)
    if as_json or quiet:
        return
    from tuneoff.comparison.notes import metric_note, threshold_note, unfinished_note
    from tuneoff.comparison.rows import WORSE
    from tuneoff.report.sections.generalises import pick_text
    from tuneoff.report.sections.leaderboard import final_text, leaderboard, short_leaderboard

    is_wide = leaderboard(comparison).text_width <= console.width
    if comparison.verdict:
        recommended = comparison.verdict.recommended
        styles = ["bold green" if r.group == recommended else "dim" * (r.standing == WORSE) for r in comparison.rows]
        table = leaderboard(comparison) if is_wide else short_leaderboard(comparison)
        _print_typed_table(table, [*styles, *["dim"] * (len(table.rows) - len(styles))])
        console.print()
        for sentence in comparison.verdict.summary:
            console.print(visible(sentence))
        if unfinished := unfinished_note(comparison):
            console.print(visible(unfinished))
        if comparison.clean:
            console.print(visible(comparison.clean.summary))
        if comparison.final:
            console.print(visible(final_text(comparison)))
        for test in comparison.elsewhere:
            console.print(visible(pick_text(comparison, test)))
        if comparison.model_folder:
            console.print(f"Its model: {visible(comparison.model_folder)}", soft_wrap=True)
        if comparison.models_note:
            console.print(visible(comparison.models_note), soft_wrap=True)
        console.print()
    elif unfinished := unfinished_note(comparison):
        console.print(visible(unfinished))
    notes = [comparison.recipe_note, metric_note(comparison), comparison.selection_note, threshold_note(comparison)]
    for note in filter(None, [*notes, comparison.epochs_note, *comparison.notes]):
        console.print(visible(note))
    _print_failures(comparison, folder, console)


def print_report(comparison: "Comparison", folder: Path, as_json: bool, quiet: bool) -> None:
    """Print the path of the report that was written, or the comparison as JSON."""
    if as_json:
        print(json.dumps(comparison.to_json(), indent=1, ensure_ascii=False))
    elif not quiet:
        console.print(f"Report: {visible(str(folder / 'report' / 'index.html'))}", soft_wrap=True)


def print_tracked(tracked: "Tracked", screen: Console) -> None:
    """Print where a tracker stored a study, or a warning that it did not."""
    text = visible(tracked.text)
    screen.print(f"[yellow]Warning:[/yellow] {text}" if tracked.error else text, soft_wrap=True)


def _print_failures(comparison: "Comparison", folder: Path, screen: Console) -> None:
    for record in comparison.failures:
        screen.print(f"[red]{visible(record.run_id)} {record.status}[/red]: {visible(record.reason)}", soft_wrap=True)
    if comparison.failures:
        places = f"{folder / 'runs'} (run.json), {folder / 'workers.log'}"
        screen.print(f"More about failed runs: {visible(places)}", soft_wrap=True)


def _print_typed_table(typed: "TypedTable", styles: list[str]) -> None:
    table = new_table(*[column.title for column in typed.columns])
    for cells, style in zip(typed.text_rows(), styles, strict=True):
        table.add_row(*map(visible, cells), style=style)
    console.print(table)


def print_export(exported: "Exported", as_json: bool) -> None:
    """Print the folder of an export, its size, and what was checked."""
    if as_json:
        fields = {"folder": str(exported.folder), "strategy": exported.label, "format": exported.format}
        print(json.dumps({**fields, "bytes": exported.size_bytes, "notes": exported.notes}, indent=1))
        return
    for note in exported.notes:
        console.print(visible(note))
    console.print(
        f"{visible(exported.label)}: {visible(str(exported.folder))} ({size(exported.size_bytes)})", soft_wrap=True
    )


def print_detection(detection: "Detection") -> None:
    """Print the examples that detect a difference, for each number of seeds, and what the study itself detects."""
    source = "this study's stored runs" if detection.is_measured else "earlier studies (docs/benchmarks.md)"
    gap = 100 * detection.gap
    console.print(
        f"To detect a difference of {gap:.1f} points of accuracy (80 % power), with the variances of {source}:"
    )
    table = new_table("runs of each strategy", "examples")
    for name, count in detection.required.items():
        kind = "labelled" if name.endswith("folds") else "test"
        table.add_row(name, f"{count:,} {kind}" if count else "no number is enough")
    console.print(table)
    detectable = f"{100 * detection.detectable:.1f} points" if detection.detectable else "no difference"
    console.print(
        f"This study, with {detection.num_examples:,} examples and {detection.repeats}, detects {detectable}."
    )


def print_review(review: "Review", path: Path) -> None:
    """Print where the doubtful labels are and what to do with them."""
    by = "TF-IDF" if review.by == "tfidf" else "a probe on the encoder's vectors"
    part = f"{review.examples:,} of {review.total:,}" if review.examples < review.total else f"{review.total:,}"
    console.print(
        f"\n{len(review.table.rows):,} doubtful labels of {part} examples, by {by}, most doubtful first: "
        f"{visible(str(path))}\nFill its column corrected (a label, or - to remove the example; empty: no change), and "
        f"apply it with --corrections {visible(str(path))}",
        soft_wrap=True,
    )


def print_classes(description: "DataDescription", report_path: Path | None) -> None:
    """Print the examples of each class in each split; of many classes the largest and smallest only."""
    names, splits = description.label_names, description.splits
    train = splits["train"].labels
    rows: list[int | None] = list(range(len(names)))  # ids of the listed classes; None for those left out
    if len(names) > _MAX_CLASSES:
        by_size = sorted(range(len(names)), key=lambda index: -train[index])
        largest, smallest = by_size[0], by_size[-1]
        sizes = f"{train[largest]:,} ({names[largest]}) to {train[smallest]:,} ({names[smallest]})"
        place = f"all of them are on {report_path}" if report_path else "--report data.html shows all of them"
        console.print(f"{len(names)} classes of {visible(f'{sizes} training examples; {place}')}")
        rows = [*by_size[:_MAX_ENDS], None, *by_size[-_MAX_ENDS:]]
    table = new_table("label", *splits)
    for index in rows:
        if index is None:
            table.add_row("...", *["..."] * len(splits))
        else:
            table.add_row(visible(names[index]), *[f"{split.labels[index]:,}" for split in splits.values()])
    table.add_section()
    table.add_row("all", *[f"{split.examples:,}" for split in splits.values()])  # an example may have several labels
    console.print(table)


def print_lengths(lengths: "Mapping[str, LengthSummary]", policy: "TruncationPolicy") -> None:
    """Print the tokens per example of each split before truncation, and the max_length that truncates few texts."""
    from tuneoff.data.lengths import recommended_length

    for split, summary in lengths.items():
        assert summary.before is not None
        spread = summary.before.all
        longest = f"95th percentile {spread.p95:.0f}, longest {spread.max:,}"
        truncated = f"; {100 * summary.truncated:.1f} % truncated at {policy.max_length}" if summary.truncated else ""
        console.print(f"{split}: {spread.mean:.1f} tokens on average, {longest}{truncated}")
    train = lengths["train"]
    if not train.truncated or not train.before:
        return
    cut = recommended_length(train.before.cuts) or train.before.cuts[-1]
    console.print(f"max_length {cut.max_length} truncates {100 * cut.texts:.1f} % of train")


def print_tokens(tokens: "TokenExamples") -> None:
    """Print the tokens of some examples: pieces with their ids, truncated ones struck through and between scissors."""
    from tuneoff.report.sections.data_tokens import caption, first_token_text

    console.print(f"\n{visible(first_token_text(tokens))} Between ✂ is what truncation cuts.")
    styles = {"special": "cyan", "unknown": "red", "cut": "strike dim"}
    for example in tokens.examples:
        console.print(f"\n[bold]{visible(caption(example))}[/bold]")
        cells, position, is_cut = [], -1, False
        for piece in example.pieces:
            cells += [f"[dim]… {piece.position - position - 1:,} more …[/dim]"] if piece.position > position + 1 else []
            cells += ["✂"] if ("cut" in piece.marks) != is_cut else []
            style = " ".join(styles[mark] for mark in piece.marks) or "none"
            cells.append(f"[{style}]{visible(piece.text)}[/] [dim]{piece.id}[/dim]")
            position, is_cut = piece.position, "cut" in piece.marks
        console.print(Padding("  ".join(cells), (0, 0, 0, 2), expand=False))


def print_samples(dataset: "Dataset", count: int) -> None:
    """Print some training examples of each label; of many labels, of the first ones only."""
    if count < 1:
        return
    names = dataset.label_names
    if len(names) > _MAX_SAMPLED:
        console.print(f"\nExamples of the first {_MAX_SAMPLED} of {len(names)} labels:")
    for index, name in enumerate(names[:_MAX_SAMPLED]):
        console.print(f"\n[bold]{visible(name)}[/bold]")
        for example in _samples(dataset, index, count):
            console.print(Padding(visible(example), (0, 0, 0, 2), expand=False))


def _samples(dataset: "Dataset", label: int, count: int) -> list[str]:
    import numpy as np
    import pyarrow as pa

    from tuneoff.data.dataset import is_member, labels_of

    train = dataset.splits["train"]
    first = np.flatnonzero(is_member(labels_of(train), label))[:count]
    rows = train.take(pa.array(first)).to_pylist()
    texts = [" ¶ ".join(str(row[name]) for name in ("text", "text_pair") if name in row) for row in rows]
    return [shorten(" ".join(text.split()), _SAMPLE_LENGTH) for text in texts]


def options_of(config: Any) -> dict[str, dict[str, Any]]:
    """Return the default, the choices and the description of each option of a pydantic model, as plain data."""
    return {
        option: {
            "default": None if field.is_required() else field.default,
            "choices": list(_choices(field.annotation)),
            "description": field.description or "",
        }
        for option, field in config.model_fields.items()
    }


def print_options(config: Any, excluded: Collection[str] = ()) -> None:
    """Print the options of a pydantic model, one per line, but for those that are excluded."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for option, field in config.model_fields.items():
        if option in excluded:
            continue
        choices = ", ".join(map(str, _choices(field.annotation)))
        notes = [field.description, f"choices: {choices}" if choices else ""]
        default = "..." if field.is_required() else _as_written(field.default)
        name = f"{option}={default}" if default else f"{option} (not set)"
        table.add_row(escape(name), f"[dim]{escape('; '.join(note for note in notes if note))}[/dim]")
    if table.rows:
        console.print(Padding(table, (0, 0, 0, 4), expand=False))


def _as_written(value: Any) -> str:
    """Return a value as a user writes it on the command line; empty for None, which leaves an option unset."""
    if isinstance(value, (tuple, list)):
        return "+".join(map(_as_written, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _choices(annotation: Any) -> Iterable[Any]:
    """Return the allowed values of a Literal, also inside tuple[...] or Optional; none for any other type."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in _choices(part))
