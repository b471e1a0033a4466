"""The commands: each parses its options, calls a function of the package, and prints the result.

Imports are inside the commands: torch and transformers take seconds, and most commands need neither.
"""

import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tuneoff import __version__
from tuneoff.cli.options import (
    COST_HELP,
    Cost,
    Json,
    Quiet,
    StudyName,
    Word,
    parse_limits,
    parse_recipe,
    parse_seeds,
    split_list,
    with_data_options,
)
from tuneoff.costs import DEFAULT_COST, choosable_costs
from tuneoff.errors import TuneoffError

if TYPE_CHECKING:
    from tuneoff.comparison.result import Comparison
    from tuneoff.execute.executor import Executor
    from tuneoff.spec import StudySpec
    from tuneoff.tables import Table as TypedTable

_MAX_CLASSES = 20  # that inspect lists one by one
_MAX_ENDS = 5  # largest and smallest classes that it lists of more

app = typer.Typer(
    help="Which way of fine-tuning a text classifier should you use, what does it cost, and is the difference real?",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(highlight=False)


def main() -> None:
    """Run the command line; an error that a user can fix is one line and exit code 2."""
    gc.disable()  # garbage collection is a fifth of the import time; _end_imports enables it
    try:
        app(standalone_mode=True)
    except (TuneoffError, OSError) as error:  # OSError: a full disk, no permission
        print(f"tuneoff: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"tuneoff {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


@app.command()
@with_data_options
def compare(
    data: dict[str, Any],
    model: Annotated[
        str, typer.Option(help="encoder: a folder, packaged:NAME or a hub name; several separated by commas")
    ] = "packaged:minilm",
    strategies: Annotated[
        Word, typer.Option(help="separated by commas, options after colons: full,lora:rank=16")
    ] = None,
    seeds: Annotated[str, typer.Option(help="how many, or which: 3 or 1,2,42")] = "3",
    epochs: Annotated[int, typer.Option(help="passes over train")] = 3,
    batch_size: Annotated[int, typer.Option(help="examples per step")] = 16,
    max_length: Annotated[int, typer.Option(help="tokens of a sequence; longer texts are truncated")] = 128,
    recipe: Annotated[
        Word, typer.Option(help="more of the recipe: class_weights=balanced,schedule=cosine (see tuneoff strategies)")
    ] = None,
    search: Annotated[
        str, typer.Option(help="hyperparameter search: trials of every strategy, a time such as 10m, or none")
    ] = "4",
    metric: Annotated[
        Word,
        typer.Option(help="ranks strategies and selects epochs; by default accuracy, for multi-label data micro_f1"),
    ] = None,
    fractions: Annotated[
        Word, typer.Option(help="learning curve: also train on these fractions of train: 0.05,0.2")
    ] = None,
    per_class: Annotated[
        Word, typer.Option(help="learning curve: also train on this many examples per class: 8,64")
    ] = None,
    cost: Annotated[str, typer.Option(help=COST_HELP, autocompletion=choosable_costs)] = DEFAULT_COST,
    name: Annotated[Word, typer.Option(help="name of the study, and of its folder under results/")] = None,
    workers: Annotated[Optional[int], typer.Option(help="jobs at once")] = None,  # noqa: UP045
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare strategies on your data, and recommend one."""
    with _executor() as executor:
        from tuneoff.spec import study_from
        from tuneoff.study import default_name

        options: dict[str, Any] = {
            "name": name or default_name(data["source"] or data["splits"]["train"]),
            "data": data,
            "model": split_list(model),
            "seeds": parse_seeds(seeds),
            "recipe": {"epochs": epochs, "batch_size": batch_size, "max_length": max_length, **parse_recipe(recipe)},
            "search": search,
            "fractions": split_list(fractions or ""),
            "per_class": split_list(per_class or ""),
            "metric": metric,
            "cost": cost,
            "workers": workers,
        }
        if strategies:
            options["strategies"] = split_list(strategies)
        _run(study_from(options, "compare"), None, executor, as_json, quiet)


@app.command()
def run(
    study: StudyName,
    data: Annotated[
        Word, typer.Option(help="data instead of the study's: a file, a folder, packaged:NAME or hf:NAME")
    ] = None,
    model: Annotated[Word, typer.Option(help="encoder instead of the study's; several separated by commas")] = None,
    limit: Annotated[
        Word, typer.Option(help="examples at most, instead of the study's: 2000, or train=2000,test=500")
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(help="instead of the study's")] = None,  # noqa: UP045
    max_length: Annotated[Optional[int], typer.Option(help="instead of the study's")] = None,  # noqa: UP045
    seeds: Annotated[Word, typer.Option(help="instead of the study's: 3 or 1,2,42")] = None,
    search: Annotated[Word, typer.Option(help="instead of the study's: 4, 10m or none")] = None,
    name: Annotated[Word, typer.Option(help="instead of the study's, and of its folder")] = None,
    workers: Annotated[Optional[int], typer.Option(help="jobs at once")] = None,  # noqa: UP045
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a study; runs that are stored already are not repeated."""
    with _executor() as executor:
        from tuneoff.spec import study_from
        from tuneoff.study import Study

        opened = Study.open(study)
        options = opened.spec.model_dump(mode="json")
        if data:  # columns are detected again: local copies of a dataset name them differently
            options["data"] |= {"source": data, "text": None, "text_pair": None, "label": None}
        if limit:
            options["data"]["limits"] = parse_limits(limit)
        recipe = {"epochs": epochs, "max_length": max_length}
        options["recipe"] |= {key: value for key, value in recipe.items() if value is not None}
        changes = {
            "model": split_list(model or ""),
            "seeds": parse_seeds(seeds) if seeds else None,
            "workers": workers,
            "name": name,
            "search": search,
        }
        options |= {key: value for key, value in changes.items() if value}
        _run(study_from(options), None if name else opened.folder, executor, as_json, quiet)


@app.command()
def plan(study: StudyName, as_json: Json = False) -> None:
    """Estimate what would run: parameters, time, memory and disk. Nothing is trained."""
    from tuneoff.formats import number, seconds, size
    from tuneoff.study import Study

    opened = Study.open(study)
    _quiet_libraries()
    _end_imports()
    with console.status("loading data and timing a few steps"):
        missing = opened.plan()
    if as_json:
        runs = [{**e.to_json(), "seconds": e.seconds(missing.speed)} for e in missing.estimates]
        print(json.dumps({"runs": runs, "workers": missing.slots.workers, "seconds": missing.seconds}, indent=1))
        return
    if not missing.estimates:
        console.print(f"Nothing is missing: every run of {escape(opened.spec.name)} is stored in {opened.folder}")
        return
    table = _table("strategy", "seed", "trainable", "time", "memory", "disk")
    for e in missing.estimates:
        trainable = number(e.parameters.trainable if e.parameters else None)
        needs = (f"about {seconds(e.seconds(missing.speed))}", size(e.memory_bytes), size(e.disk_bytes))
        table.add_row(escape(e.job.run.name), "search" if e.job.search else str(e.job.run.seed), trainable, *needs)
    console.print(table)
    disk = size(sum(e.disk_bytes for e in missing.estimates))
    searches = sum(e.job.search is not None for e in missing.estimates)
    jobs_text = f"{len(missing.estimates) - searches} runs" + (f" after {searches} searches" if searches else "")
    workers = min(missing.slots.workers, len(missing.estimates))
    console.print(
        f"{jobs_text}, {workers} at once: about {seconds(missing.seconds)}, {disk} on disk in {opened.folder}"
    )


@app.command()
def report(
    folder: Annotated[str, typer.Argument(help="a study's folder")],
    cost: Cost = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rebuild the report of a study from its stored runs."""
    from tuneoff.costs import check_cost
    from tuneoff.errors import StoreError

    if cost:
        check_cost(cost)
    if not Path(folder).is_dir():
        raise StoreError(f"study folder {folder!r} does not exist; run a study first: tuneoff run studies:quickstart")
    from tuneoff.study import Study

    opened = Study.open(folder)
    _end_imports()
    _print_result(opened.report(cost), opened.folder, as_json, quiet)


@app.command()
@with_data_options
def inspect(
    data: dict[str, Any],
    model: Annotated[str, typer.Option(help="encoder whose tokenizer counts lengths")] = "packaged:minilm",
    samples: Annotated[int, typer.Option(help="examples to print of each label")] = 2,
    page: Annotated[Word, typer.Option("--report", help="also write a page with everything, e.g. data.html")] = None,
    as_json: Json = False,
) -> None:
    """Describe the data: splits, class balance, lengths, what the checks found, and samples."""
    from tuneoff.data.describe import describe
    from tuneoff.data.load import load_dataset
    from tuneoff.data.spec import DataSpec, TruncationPolicy
    from tuneoff.data.tokens import tokenize
    from tuneoff.encoder.config import load_tokenizer
    from tuneoff.validation import validated

    _quiet_libraries()
    _end_imports()
    dataset = load_dataset(validated(DataSpec, data, "inspect"))
    policy = TruncationPolicy(512)
    description = describe(dataset, {model: tokenize(dataset, load_tokenizer(model), policy)})
    if page:
        from tuneoff.report.write import write_data_page

        write_data_page(description, policy, Path(page))
    if as_json:
        print(json.dumps(description.to_json(), indent=1, ensure_ascii=False))
        return
    _print_classes(description.label_names, {name: split.labels for name, split in description.splits.items()}, page)
    for split, lengths in description.lengths[model].items():
        longest = f"95th percentile {lengths.p95:.0f}, longest {lengths.max}"
        console.print(f"{split}: {lengths.mean:.1f} tokens on average, {longest}")
    clean = "no duplicates, leakage, contradicting labels or rare classes found"
    for line in [*description.notes, *(description.findings or [clean])]:
        console.print(f"- {escape(line)}")
    for index, name in enumerate(description.label_names[:10]):
        console.print(f"\n[bold]{escape(name)}[/bold]")
        for example in _samples(dataset, index, samples):
            console.print(f"  {escape(example)}")


def _print_classes(names: tuple[str, ...], counts: dict[str, list[int]], page: str | None) -> None:
    """Print the examples of each class in each split; of many classes the largest and smallest only."""
    order = list(range(len(names)))
    if len(names) > _MAX_CLASSES:
        by_size = sorted(order, key=lambda index: -counts["train"][index])
        largest, smallest = names[by_size[0]], names[by_size[-1]]
        sizes = f"{counts['train'][by_size[0]]:,} ({largest}) to {counts['train'][by_size[-1]]:,} ({smallest})"
        where = f"all of them are on {page}" if page else "--report data.html shows all of them"
        console.print(f"{len(names)} classes of {escape(sizes)} training examples; {where}")
        order = [*by_size[:_MAX_ENDS], -1, *by_size[-_MAX_ENDS:]]
    table = _table("label", *counts)
    for index in order:
        cells = ["..."] * len(counts) if index < 0 else [f"{split[index]:,}" for split in counts.values()]
        table.add_row("..." if index < 0 else escape(names[index]), *cells)
    table.add_section()
    table.add_row("all", *[f"{sum(split):,}" for split in counts.values()])
    console.print(table)


@app.command()
def params(
    model: Annotated[
        str, typer.Argument(help="encoder: a folder, packaged:NAME or a hub name; only its config is read")
    ],
    strategies: Annotated[Word, typer.Option(help="separated by commas, options after colons: lora:rank=16")] = None,
    num_labels: Annotated[int, typer.Option("--labels", min=2, help="number of classes")] = 2,
    as_json: Json = False,
) -> None:
    """Count the trainable and total parameters of each strategy, from the encoder's config."""
    from tuneoff.execute.estimate import parameters_of
    from tuneoff.spec import parse_strategy
    from tuneoff.strategies import STRATEGIES

    all_names = [name for name, row in STRATEGIES.items() if row.uses_encoder and not row.needs_options]
    configs = [parse_strategy(name) for name in (split_list(strategies) if strategies else all_names)]
    counts = {config.label: parameters_of(config, model, num_labels) for config in configs}
    if as_json:
        print(json.dumps([{"strategy": label, **vars(count)} for label, count in counts.items()], indent=1))
        return
    table = _table("strategy", "trainable", "share", "added", "head", "total")
    for label, count in counts.items():
        share = f"{100 * count.trainable / count.total:.4f} %"
        table.add_row(
            escape(label), f"{count.trainable:,}", share, f"{count.added:,}", f"{count.head:,}", f"{count.total:,}"
        )
    console.print(table)
    console.print("Every parameter is counted once, added ones included; peft's own totals count the head twice.")


@app.command("strategies")
def list_strategies(as_json: Json = False) -> None:
    """List the strategies and the recipe, with their options."""
    from tuneoff.engine.recipe import Recipe
    from tuneoff.strategies import STRATEGIES

    if as_json:
        rows = {name: {"summary": row.summary, "options": _options_of(row.config)} for name, row in STRATEGIES.items()}
        print(json.dumps({"strategies": rows, "recipe": _options_of(Recipe)}, indent=1))
        return
    for name, row in STRATEGIES.items():
        console.print(f"[bold]{name}[/bold]  {escape(row.summary)}")
        _print_options(row.config)
    console.print("[bold]recipe[/bold]  training of every strategy by gradient; class_weights also for tfidf and probe")
    _print_options(Recipe)


def _options_of(config: Any) -> dict[str, dict[str, Any]]:
    return {
        option: {"default": None if field.is_required() else field.default, "description": field.description or ""}
        for option, field in config.model_fields.items()
    }


def _print_options(config: Any) -> None:
    for option, field in config.model_fields.items():
        description = f"  {field.description}" if field.description else ""
        default = "+".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        default = "..." if field.is_required() else default
        console.print(f"    {option}={escape(str(default))}[dim]{escape(description)}[/dim]")


@app.command("studies")
def list_studies(as_json: Json = False) -> None:
    """List the studies that come with Tuneoff."""
    from tuneoff.studies import packaged_studies

    if as_json:
        print(json.dumps(packaged_studies(), indent=1))
        return
    for name, summary in packaged_studies().items():
        console.print(f"studies:{name}  {escape(summary)}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine and installation."""
    from tuneoff.doctor import examine
    from tuneoff.formats import size

    found = examine()
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
        return
    console.print(", ".join(f"{name} {version}" for name, version in found.versions.items()))
    console.print(f"{found.processor}, {found.cores} cores, {size(found.memory_bytes)} memory, {found.gpu or 'no GPU'}")
    console.print(f"training precision auto: {found.auto_precision}")
    console.print(f"cache: {found.cache} ({size(found.cache_bytes)}; set TUNEOFF_CACHE to move it)")
    for name, state in found.packaged.items():
        console.print(f"{name}: {escape(state)}")


@contextmanager
def _executor() -> "Iterator[Executor]":
    """Start the worker process, which imports what jobs need while this process imports the rest."""
    from tuneoff.execute.local import LocalExecutor

    with LocalExecutor() as executor:
        yield executor


def _run(spec: "StudySpec", folder: Path | None, executor: "Executor", as_json: bool, quiet: bool) -> None:
    from tuneoff.cli.progress import StudyProgress
    from tuneoff.study import RESULTS, Study

    study = Study(spec, folder or RESULTS / spec.name)
    _quiet_libraries()
    _end_imports()
    screen = Console(quiet=True) if quiet else Console(stderr=True, highlight=False) if as_json else console
    with StudyProgress(screen, spec.name) as progress:
        try:
            comparison = study.run(progress.on_event, progress.on_plan, executor)
        except KeyboardInterrupt:
            screen.print("\nStopped. Finished jobs are stored; the same command continues.")
            raise typer.Exit(130) from None
    _print_result(comparison, study.folder, as_json, quiet)
    if comparison.failures and not comparison.rows:
        raise typer.Exit(1)


def _print_result(comparison: "Comparison", folder: Path, as_json: bool, quiet: bool) -> None:
    """Print the leaderboard, the verdict and the path of the report."""
    if as_json:
        print(json.dumps(comparison.to_json(), indent=1, ensure_ascii=False))
        return
    if quiet:
        return
    from tuneoff.report.sections.leaderboard import leaderboard, short_leaderboard

    is_wide = console.width >= 160
    if comparison.verdict:
        recommended, text = comparison.verdict.recommended, comparison.verdict.text
        styles = ["bold green" if row.group == recommended else "" if row.is_tied else "dim" for row in comparison.rows]
        _print_table(leaderboard(comparison) if is_wide else short_leaderboard(comparison), styles)
        console.print(f"\n{escape(text)}\n")
    for record in comparison.failures:
        console.print(f"[red]{escape(record.run_id)} {record.status}[/red]: {escape(record.reason)}")
    if comparison.failures:
        console.print(f"More about failed runs: {folder / 'runs'} (run.json), {folder / 'workers.log'}")
    console.print(f"Report: {folder / 'report' / 'index.html'}", soft_wrap=True)


def _print_table(typed: "TypedTable", styles: list[str]) -> None:
    table = _table(*[column.title for column in typed.columns])
    for cells, style in zip(typed.text_rows(), styles, strict=True):
        table.add_row(*map(escape, cells), style=style)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    return table


def _samples(dataset: Any, label: int, count: int) -> list[str]:
    import pyarrow as pa

    from tuneoff.data.dataset import labels_of
    from tuneoff.scoring.metrics import as_rows

    train = dataset.splits["train"]
    has_label = as_rows(labels_of(train), dataset.num_labels)[:, label]
    rows = train.filter(pa.array(has_label)).slice(0, count).to_pylist()
    texts = [" ¶ ".join(str(row[name]) for name in ("text", "text_pair") if name in row) for row in rows]
    return [" ".join(text.split())[:160] for text in texts]


def _end_imports() -> None:
    """Enable garbage collection before real work starts; imported modules are not garbage."""
    gc.freeze()
    gc.enable()


def _quiet_libraries() -> None:
    """Keep the progress bars and advice of libraries off the screen. To be called before they are imported."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
