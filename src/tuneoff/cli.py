"""The command line: parse, call, print. Every command is a few lines around a function of the package.

Imports stand inside the commands: torch and transformers take seconds, and help and mistakes need neither.
"""

import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tuneoff.cli_options import (
    COST,
    Data,
    DropEmpty,
    DropUnlabelled,
    Group,
    Json,
    Label,
    LabelColumns,
    Labels,
    Limit,
    Pair,
    Separator,
    Slices,
    SplitFile,
    Text,
    Word,
    data_of,
    limits_of,
    options_of,
    parts_of,
    seeds_of,
)
from tuneoff.errors import TuneoffError

app = typer.Typer(
    help="Which way of fine-tuning a text classifier should you use, what does it cost, and is the difference real?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(highlight=False)


def main() -> None:
    """Run the command line; an error that a user can mend is one line and exit code 2."""
    try:
        app(standalone_mode=True)
    except (TuneoffError, OSError) as error:  # the system's own: a full disk, no permission
        print(f"tuneoff: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


@app.command()
def compare(
    data: Data = None,
    model: Annotated[
        str, typer.Option(help="encoder: a folder, packaged:NAME or a hub name; several with commas")
    ] = "packaged:minilm",
    strategies: Annotated[str | None, typer.Option(help="with commas; options with colons: full,lora:rank=16")] = None,
    seeds: Annotated[str, typer.Option(help="how many, or which: 3 or 1,2,42")] = "3",
    epochs: Annotated[int, typer.Option(help="passes over train")] = 3,
    batch_size: Annotated[int, typer.Option(help="examples a step")] = 16,
    max_length: Annotated[int, typer.Option(help="tokens of an example")] = 128,
    recipe: Annotated[
        Word,
        typer.Option(help="more of the recipe: class_weights=balanced,schedule=cosine (tuneoff strategies lists all)"),
    ] = None,
    search: Annotated[
        str, typer.Option(help="trials of every strategy on validation before the runs, a time such as 10m, or none")
    ] = "4",
    metric: Annotated[
        Word,
        typer.Option(help="what ranks strategies and chooses epochs; by default accuracy, of several labels micro_f1"),
    ] = None,
    text: Text = None,
    text_pair: Pair = None,
    label: Label = None,
    label_separator: Separator = None,
    label_columns: LabelColumns = None,
    labels: Labels = None,
    group: Group = None,
    slices: Slices = None,
    train: SplitFile = None,
    validation: SplitFile = None,
    test: SplitFile = None,
    limit: Limit = None,
    drop_unlabelled: DropUnlabelled = False,
    drop_empty: DropEmpty = False,
    fractions: Annotated[
        Word,
        typer.Option(help="learning curve: also train on these shares of train: 0.05,0.2"),
    ] = None,
    per_class: Annotated[
        Word,
        typer.Option(help="learning curve: also train on so many examples of each class: 8,64"),
    ] = None,
    cost: Annotated[str, typer.Option(help=COST)] = "train_seconds",
    name: Annotated[Word, typer.Option(help="the study's name and folder under results/")] = None,
    workers: Annotated[Optional[int], typer.Option(help="runs at once")] = None,  # noqa: UP045
) -> None:
    """Compare strategies on your data, and say what to pick."""
    with _worker() as pool:
        from tuneoff.spec import study_from
        from tuneoff.study import RESULTS, Study, default_name

        where = data_of(
            source=data,
            text=text,
            text_pair=text_pair,
            label=label,
            label_separator=label_separator,
            label_columns=label_columns,
            labels=labels,
            group=group,
            slices=slices,
            splits={"train": train, "validation": validation, "test": test},
            limit=limit,
            drop_unlabelled=drop_unlabelled,
            drop_empty=drop_empty,
        )
        given: dict[str, Any] = {
            "name": name or default_name(data or train or "study"),
            "data": where,
            "model": parts_of(model),
            "seeds": seeds_of(seeds),
            "recipe": {"epochs": epochs, "batch_size": batch_size, "max_length": max_length, **options_of(recipe)},
            "search": search,
            "fractions": parts_of(fractions or ""),
            "per_class": parts_of(per_class or ""),
            "metric": metric,
            "cost": cost,
            "workers": workers,
        }
        if strategies:
            given["strategies"] = parts_of(strategies)
        spec = study_from(given, "compare")
        _run(Study(spec, RESULTS / spec.name), pool)


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="a YAML file, a study's folder, or studies:NAME")],
    data: Annotated[
        Word,
        typer.Option(help="data in place of the study's: a file, a folder, packaged:NAME or hf:NAME"),
    ] = None,
    model: Annotated[Word, typer.Option(help="encoder in place of the study's; several with commas")] = None,
    limit: Limit = None,
    epochs: Annotated[Optional[int], typer.Option(help="instead of the study's")] = None,  # noqa: UP045
    max_length: Annotated[Optional[int], typer.Option(help="instead of the study's")] = None,  # noqa: UP045
    seeds: Annotated[Word, typer.Option(help="instead of the study's: 3 or 1,2,42")] = None,
    search: Annotated[Word, typer.Option(help="instead of the study's: 4, 10m or none")] = None,
    name: Annotated[Word, typer.Option(help="instead of the study's, and its folder's")] = None,
    workers: Annotated[Optional[int], typer.Option(help="runs at once")] = None,  # noqa: UP045
) -> None:
    """Run a study; what is stored already is not run again."""
    with _worker() as pool:
        from tuneoff.spec import study_from
        from tuneoff.study import RESULTS, Study

        opened = Study.open(study)
        given = opened.spec.model_dump(mode="json")
        if data:  # columns are found again: local copies name them their own way
            given["data"] |= {"source": data, "text": None, "text_pair": None, "label": None}
        if limit:
            given["data"]["limits"] = limits_of(limit)
        given["recipe"] |= {k: v for k, v in {"epochs": epochs, "max_length": max_length}.items() if v is not None}
        changes = {
            "model": parts_of(model or ""),
            "seeds": seeds_of(seeds) if seeds else None,
            "workers": workers,
            "name": name,
        }
        given |= {key: value for key, value in changes.items() if value}
        if search:
            given["search"] = search
        spec = study_from(given)
        _run(Study(spec, RESULTS / spec.name if name else opened.folder), pool)


@app.command()
def plan(
    study: Annotated[str, typer.Argument(help="a YAML file, a study's folder, or studies:NAME")], as_json: Json = False
) -> None:
    """What would run: parameters, time, memory and disk. Nothing is trained."""
    from tuneoff.execute.local import num_workers
    from tuneoff.formats import number, seconds, size
    from tuneoff.study import Study

    opened = Study.open(study)
    _quiet()
    with console.status("loading data and timing a few steps"):
        found, speed = opened.plan()
    if not found and not as_json:
        console.print(f"Nothing is missing: every run of {escape(opened.spec.name)} is stored in {opened.folder}")
        return
    workers = num_workers(
        len(found), max((e.parameters.total if e.parameters else 0 for e in found), default=0), opened.spec.workers
    )
    total = sum(e.seconds(speed) for e in found) / workers
    if as_json:
        runs = [{**e.to_json(), "seconds": e.seconds(speed)} for e in found]
        print(json.dumps({"runs": runs, "workers": workers, "seconds": total}, indent=1))
        return
    table = _table("strategy", "seed", "trainable", "time", "memory", "disk")
    for e in found:
        trainable = number(e.parameters.trainable if e.parameters else None)
        needs = (f"about {seconds(e.seconds(speed))}", size(e.memory_bytes), size(e.disk_bytes))
        table.add_row(escape(e.name), "search" if e.is_search else str(e.run.seed), trainable, *needs)
    console.print(table)
    disk = size(sum(e.disk_bytes for e in found))
    searches = sum(e.is_search for e in found)
    made = f"{len(found) - searches} runs" + (f" after {searches} searches" if searches else "")
    console.print(f"{made}, {workers} at once: about {seconds(total)}, {disk} on disk in {opened.folder}")


@app.command()
def report(
    folder: Annotated[str, typer.Argument(help="a study's folder")],
    cost: Annotated[Word, typer.Option(help=f"{COST}; the study's own if not given")] = None,
) -> None:
    """Rebuild comparison.json, the page, tables and figures from the stored runs."""
    from tuneoff.errors import StoreError
    from tuneoff.runs import check_cost
    from tuneoff.study import Study

    if cost:
        check_cost(cost)
    if not Path(folder).is_dir():
        raise StoreError(f"study folder {folder!r} does not exist; run a study first: tuneoff run studies:quickstart")
    opened = Study.open(folder)
    _show(opened.report(cost), opened.folder)


@app.command()
def inspect(
    data: Data = None,
    text: Text = None,
    text_pair: Pair = None,
    label: Label = None,
    label_separator: Separator = None,
    label_columns: LabelColumns = None,
    labels: Labels = None,
    group: Group = None,
    slices: Slices = None,
    train: SplitFile = None,
    validation: SplitFile = None,
    test: SplitFile = None,
    limit: Limit = None,
    drop_unlabelled: DropUnlabelled = False,
    drop_empty: DropEmpty = False,
    model: Annotated[str, typer.Option(help="whose tokenizer counts lengths")] = "packaged:minilm",
    samples: Annotated[int, typer.Option(help="examples to show of each label")] = 2,
) -> None:
    """The data alone: splits, label balance, lengths, findings and samples."""
    from tuneoff.data.checks import describe
    from tuneoff.data.dataset import DataSpec
    from tuneoff.data.encode import encode
    from tuneoff.data.load import load_dataset
    from tuneoff.encoder.load import load_tokenizer
    from tuneoff.validated import validated

    where = data_of(
        source=data,
        text=text,
        text_pair=text_pair,
        label=label,
        label_separator=label_separator,
        label_columns=label_columns,
        labels=labels,
        group=group,
        slices=slices,
        splits={"train": train, "validation": validation, "test": test},
        limit=limit,
        drop_unlabelled=drop_unlabelled,
        drop_empty=drop_empty,
    )
    dataset = load_dataset(validated(DataSpec, where, "inspect"))
    found = describe(dataset, {model: encode(dataset, load_tokenizer(model), 512)})
    table = _table("label", *found["splits"])
    for index, name in enumerate(found["label_names"]):
        table.add_row(escape(name), *[f"{split['labels'][index]:,}" for split in found["splits"].values()])
    table.add_section()
    table.add_row("all", *[f"{split['examples']:,}" for split in found["splits"].values()])
    console.print(table)
    for split, lengths in found["lengths"][model].items():
        most = f"95 % up to {lengths['p95']:.0f}, longest {lengths['max']}"
        console.print(f"{split}: {lengths['mean']:.1f} tokens on average, {most}")
    for line in [*found["notes"], *(found["findings"] or ["no repeats, leaks or contradicting labels found"])]:
        console.print(f"- {escape(line)}")
    for index, name in enumerate(found["label_names"][:10]):
        console.print(f"\n[bold]{escape(name)}[/bold]")
        for example in _samples(dataset, index, samples):
            console.print(f"  {escape(example)}")


@app.command()
def params(
    model: Annotated[
        str, typer.Argument(help="encoder: a folder, packaged:NAME or a hub name; only its config is read")
    ],
    strategies: Annotated[Word, typer.Option(help="with commas; options with colons: lora:rank=16")] = None,
    num_labels: Annotated[int, typer.Option("--labels", min=2, help="number of classes")] = 2,
    as_json: Json = False,
) -> None:
    """Trainable and total parameters of each strategy. Needs no weights, only a config."""
    from tuneoff.estimate import parameters_of
    from tuneoff.spec import parse_strategy
    from tuneoff.strategies import STRATEGIES

    names = (
        parts_of(strategies)
        if strategies
        else [name for name, row in STRATEGIES.items() if row.kind != "text" and name != "peft"]
    )
    rows = [
        {"strategy": config.label, **vars(parameters_of(config, model, num_labels))}
        for config in map(parse_strategy, names)
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = _table("strategy", "trainable", "share", "added", "head", "total")
    for found in rows:
        share = f"{100 * found['trainable'] / found['total']:.4f} %"
        table.add_row(
            escape(found["strategy"]),
            f"{found['trainable']:,}",
            share,
            *[f"{found[k]:,}" for k in ("added", "head", "total")],
        )
    console.print(table)
    console.print("Every parameter is counted once, added ones included; peft's own totals count the head twice.")


@app.command("strategies")
def list_strategies() -> None:
    """The strategies and the recipe, with their options."""
    from tuneoff.engine.recipe import Recipe
    from tuneoff.strategies import STRATEGIES

    for name, row in STRATEGIES.items():
        console.print(f"[bold]{name}[/bold]  {escape(row.summary)}")
        _print_options(row.config)
    console.print("[bold]recipe[/bold]  how every gradient strategy is trained; class_weights also in tfidf and probe")
    _print_options(Recipe)


def _print_options(config: Any) -> None:
    for option, field in config.model_fields.items():
        description = f"  {field.description}" if field.description else ""
        default = "+".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        default = "..." if field.is_required() else default
        console.print(f"    {option}={escape(str(default))}[dim]{escape(description)}[/dim]")


@app.command("studies")
def list_studies() -> None:
    """The studies that come with Tuneoff."""
    from tuneoff.spec import packaged_studies

    for name, summary in packaged_studies().items():
        console.print(f"studies:{name}  {escape(summary)}")


@app.command()
def doctor() -> None:
    """What this machine and installation offer."""
    from tuneoff import packaged
    from tuneoff.cache import cache_folder
    from tuneoff.engine.precision import has_native_bf16
    from tuneoff.formats import size
    from tuneoff.machine import cores, device, machine, versions

    found, where = machine(), device()
    console.print(", ".join(f"{name} {version}" for name, version in versions().items()))
    console.print(
        f"{found['processor']}, {cores()} cores, {size(found['memory_bytes'])} memory, {found['gpu'] or 'no GPU'}"
    )
    is_native = has_native_bf16(where)
    console.print(
        f"runs on {where}; bf16 is {'' if is_native else 'not '}native: auto is {'bf16' if is_native else 'fp32'}"
    )
    kept = (
        sum(file.stat().st_size for file in cache_folder().rglob("*") if file.is_file())
        if cache_folder().exists()
        else 0
    )
    console.print(f"cache: {cache_folder()} ({size(kept)}; set TUNEOFF_CACHE to move it)")
    for kind, names, find in (
        ("model", packaged.MODELS, packaged.model_folder),
        ("data", packaged.DATASETS, packaged.reviews_file),
    ):
        for name in names:
            try:
                find(name)
                console.print(f"packaged {kind} {name}: ready")
            except TuneoffError as error:
                console.print(f"packaged {kind} {name}: {escape(str(error))}")


@contextmanager
def _worker() -> Iterator[Any]:
    """The process that makes runs: it imports what it needs while we do."""
    from tuneoff.execute.pool import Pool

    with Pool() as pool:
        gc.disable()  # looking for garbage is a fifth of the time of importing
        try:
            yield pool
        finally:
            gc.enable()


def _run(study: Any, pool: Any) -> None:
    from tuneoff.progress import StudyProgress

    gc.freeze()  # what is imported is no garbage
    gc.enable()
    _quiet()
    with StudyProgress(console, study.spec.name) as progress:
        try:
            comparison = study.run(progress.on_event, progress.on_plan, pool)
        except KeyboardInterrupt:
            console.print("\nStopped. What is finished is stored; the same command goes on from here.")
            raise typer.Exit(130) from None
    _show(comparison, study.folder)
    if comparison.failures and not comparison.rows:
        raise typer.Exit(1)


def _show(comparison: Any, folder: Path) -> None:
    """The leaderboard, the verdict, and where the report is."""
    from tuneoff.report import tables

    head, body = tables.leaderboard(comparison) if console.width >= 140 else tables.short_leaderboard(comparison)
    if body:
        table = _table(*head)
        for cells, row in zip(body, comparison.rows, strict=True):
            style = "bold green" if row.group == comparison.verdict.recommended else "" if row.is_tied else "dim"
            table.add_row(*map(escape, cells), style=style)
        console.print(table)
        console.print(f"\n{escape(comparison.verdict.text)}\n")
    for record in comparison.failures:
        console.print(f"[red]{escape(record.run_id)} {record.status}[/red]: {escape(record.reason)}")
    if comparison.failures:
        console.print(f"More about failed runs: {folder / 'runs'} (run.json), {folder / 'workers.log'}")
    console.print(f"Report: {folder / 'report' / 'index.html'}", soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    return table


def _samples(dataset: Any, label: int, count: int) -> list[str]:
    import pyarrow as pa

    from tuneoff.data.dataset import labels_of
    from tuneoff.metrics import as_rows

    train = dataset.splits["train"]
    is_chosen = as_rows(labels_of(train), dataset.num_labels)[:, label]
    rows = train.filter(pa.array(is_chosen)).slice(0, count).to_pylist()
    texts = [" ¶ ".join(str(row[name]) for name in ("text", "text_pair") if name in row) for row in rows]
    return [" ".join(text.split())[:160] for text in texts]


def _quiet() -> None:
    """Libraries' own progress bars and advice stay off the screen."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
