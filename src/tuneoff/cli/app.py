"""The commands: each parses its options, calls a function of the package, and prints the result.

Imports are inside the commands: torch and transformers take seconds, and most commands need neither.
"""

import gc
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console

from tuneoff import __version__
from tuneoff.cli.completion import complete_in_bash, is_bash_completion
from tuneoff.cli.hub import stay_offline_without_network
from tuneoff.cli.options import (
    COST_HELP,
    FORMAT_HELP,
    Command,
    Cost,
    GramsPerKwh,
    Json,
    Keep,
    Margin,
    OptionalText,
    Predictions,
    PricePerHour,
    Quiet,
    Replace,
    StudyName,
    TextList,
    Track,
    Watts,
    complete_cost,
    joined,
    parse_cost,
    parse_folds,
    parse_limits,
    parse_rates,
    parse_recipe,
    parse_seeds,
    split_list,
    split_lists,
    with_data_options,
)
from tuneoff.cli.output import (
    console,
    error_console,
    new_table,
    options_of,
    print_classes,
    print_detection,
    print_export,
    print_options,
    print_result,
    print_samples,
    print_tracked,
    visible,
)
from tuneoff.cli.predict import embed, predict
from tuneoff.costs import DEFAULT_COST
from tuneoff.errors import ConfigError, StoreError, TuneoffError
from tuneoff.formats import show_control_characters

if TYPE_CHECKING:
    from tuneoff.execute.executor import Executor
    from tuneoff.spec import StudySpec
    from tuneoff.trackers import Tracked

app = typer.Typer(
    help="Which way of fine-tuning a text classifier should you use, what does it cost, and is the difference real?",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# environment variables that keep progress bars, advice and retries of libraries off the screen; read at their import
_QUIET_LIBRARIES = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main() -> None:
    """Run the command line; an error that a user can fix is one line and exit code 2."""
    for variable, value in _QUIET_LIBRARIES.items():  # before any command: peft's options are checked by peft
        os.environ.setdefault(variable, value)
    _print_any_character()
    gc.disable()  # garbage collection is a fifth of the import time; _end_imports enables it
    try:
        if is_bash_completion():
            complete_in_bash(app)
        else:
            app(standalone_mode=True)
    except (TuneoffError, OSError) as error:  # OSError: a full disk, no permission
        print(f"tuneoff: {show_control_characters(' '.join(_message(error).split()))}", file=sys.stderr)
        sys.exit(2)


def _print_any_character() -> None:
    """Write pipes and files in UTF-8, as JSON is, and what a terminal cannot show as "?".

    Windows writes pipes and files in its code page, which lacks most characters of the user's texts and labels.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            has_own_encoding = stream.isatty() or "PYTHONIOENCODING" in os.environ
            stream.reconfigure(encoding=None if has_own_encoding else "utf-8", errors="replace")


def _message(error: Exception) -> str:
    """Return the message of an error. The system's own errors name a file and a cause, but nothing to do."""
    if isinstance(error, TuneoffError) or not isinstance(error, OSError) or error.filename is None:
        return str(error)
    from tuneoff.cache import cache_folder

    place, cache = Path(str(error.filename)), cache_folder()
    is_in_cache = place == cache or cache in place.parents or place in cache.parents
    hint = "set TUNEOFF_CACHE to a folder that can be written" if is_in_cache else "check its path and permissions"
    return f"{place} cannot be read or written: {error.strerror or error}; {hint}"


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


@app.command(cls=Command)
@with_data_options
def compare(
    data: dict[str, Any],
    model: Annotated[
        TextList, typer.Option(help="encoder: a folder, packaged:NAME or a hub name; several separated by commas")
    ] = ["packaged:minilm"],  # noqa: B006  typer reads it
    strategies: Annotated[
        TextList, typer.Option(help="separated by commas, options after colons: full,lora:rank=16")
    ] = None,
    folds: Annotated[
        OptionalText,
        typer.Option(
            help="score on this many folds, or none: on one test split; by default 5 for fewer than 5,000 examples "
            "without a test split"
        ),
    ] = None,
    seeds: Annotated[
        OptionalText,
        typer.Option(
            help="of one split: how many, or which: 3 (default) or 1,2,42; head=3,order=3: sources of randomness that "
            "vary apart (head, order, dropout, split), every combination"
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="passes over train")] = 3,
    batch_size: Annotated[int, typer.Option(help="examples per step")] = 16,
    max_length: Annotated[int, typer.Option(help="tokens of a sequence; longer texts are truncated")] = 128,
    recipe: Annotated[
        TextList,
        typer.Option(help="more of the recipe: class_weights=balanced,schedule=cosine (see tuneoff strategies)"),
    ] = None,
    search: Annotated[
        str, typer.Option(help="hyperparameter search: trials of every strategy, a time such as 10m, or none")
    ] = "4",
    metric: Annotated[
        OptionalText,
        typer.Option(help="ranks strategies and selects epochs; by default accuracy, for multi-label data micro_f1"),
    ] = None,
    fractions: Annotated[
        TextList, typer.Option(help="learning curve: also train on these fractions of train: 0.05,0.2")
    ] = None,
    per_class: Annotated[
        TextList, typer.Option(help="learning curve: also train on this many examples per class: 8,64")
    ] = None,
    cost: Annotated[str, typer.Option(help=COST_HELP, autocompletion=complete_cost)] = DEFAULT_COST,
    margin: Margin = None,
    predictions: Predictions = None,
    price_per_hour: PricePerHour = None,
    watts: Watts = None,
    grams_per_kwh: GramsPerKwh = None,
    name: Annotated[OptionalText, typer.Option(help="name of the study, and of its folder under results/")] = None,
    workers: Annotated[Optional[int], typer.Option(help="jobs at once")] = None,  # noqa: UP045
    track: Track = None,
    keep: Keep = None,
    replace: Replace = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare strategies on your data, and recommend one."""
    models = split_list(joined(model))
    stay_offline_without_network(models, data["source"])
    with _executor() as executor:
        from tuneoff.spec import study_from
        from tuneoff.study import default_name

        options: dict[str, Any] = {
            "name": name or default_name(data["source"] or data["splits"]["train"]),
            "data": data,
            "model": models,
            "evaluate": parse_folds(folds) if folds else None,
            "seeds": parse_seeds(seeds) if seeds else None,
            "recipe": {
                "epochs": epochs,
                "batch_size": batch_size,
                "max_length": max_length,
                **parse_recipe(joined(recipe)),
            },
            "search": search,
            "fractions": split_list(joined(fractions)),
            "per_class": split_list(joined(per_class)),
            "metric": metric,
            "cost": parse_cost(cost),
            "predictions": split_lists(predictions),
            "rates": parse_rates(price_per_hour, watts, grams_per_kwh),
            "workers": workers,
            "track": split_lists(track),
            **({} if margin is None else {"margin": margin}),
            **({"keep": keep} if keep else {}),
        }
        if strategies:
            options["strategies"] = split_list(joined(strategies))
        _run(study_from(options, "compare"), None, executor, replace, as_json, quiet)


@app.command(cls=Command)
def run(
    study_name: StudyName,
    data: Annotated[
        OptionalText, typer.Option(help="data instead of the study's: a file, a folder, packaged:NAME or hf:NAME")
    ] = None,
    model: Annotated[TextList, typer.Option(help="encoder instead of the study's; several separated by commas")] = None,
    limit: Annotated[
        TextList, typer.Option(help="examples at most, instead of the study's: 2000, or train=2000,test=500")
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(help="instead of the study's")] = None,  # noqa: UP045
    max_length: Annotated[Optional[int], typer.Option(help="instead of the study's")] = None,  # noqa: UP045
    folds: Annotated[OptionalText, typer.Option(help="instead of the study's: 5, or none for one split")] = None,
    seeds: Annotated[OptionalText, typer.Option(help="instead of the study's: 3, 1,2,42 or head=3,order=3")] = None,
    search: Annotated[OptionalText, typer.Option(help="instead of the study's: 4, 10m or none")] = None,
    margin: Margin = None,
    predictions: Predictions = None,
    price_per_hour: PricePerHour = None,
    watts: Watts = None,
    grams_per_kwh: GramsPerKwh = None,
    name: Annotated[OptionalText, typer.Option(help="instead of the study's, and of its folder")] = None,
    workers: Annotated[Optional[int], typer.Option(help="jobs at once")] = None,  # noqa: UP045
    track: Track = None,
    keep: Keep = None,
    replace: Replace = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a study; runs that are stored already are not repeated."""
    with _executor() as executor:
        from tuneoff.spec import merged_predictions, study_from
        from tuneoff.study import Study
        from tuneoff.track import dump_track, parse_track

        study = Study.open(study_name)
        options = study.spec.model_dump(mode="json")
        if data:  # columns are detected again: local copies of a dataset name them differently
            options["data"] |= {"source": data, "text": None, "text_pair": None, "label": None}
        if limit:
            options["data"]["limits"] = parse_limits(joined(limit))
        recipe = {"epochs": epochs, "max_length": max_length}
        options["recipe"] |= {key: value for key, value in recipe.items() if value is not None}
        options["predictions"] = merged_predictions(study.spec.predictions, split_lists(predictions))
        options["rates"] |= parse_rates(price_per_hour, watts, grams_per_kwh)
        options["track"] |= dump_track(parse_track(split_lists(track)))
        if folds:  # the study's own seeds do not go with folds
            options |= {"evaluate": parse_folds(folds), "seeds": None}
        changes = {
            "model": split_list(joined(model)),
            "seeds": parse_seeds(seeds) if seeds else None,
            "workers": workers,
            "name": name,
            "search": search,
            "keep": keep,
        }
        options |= {key: value for key, value in changes.items() if value}
        options |= {} if margin is None else {"margin": margin}
        stay_offline_without_network(options["model"], options["data"]["source"])
        _run(study_from(options), None if name else study.folder, executor, replace, as_json, quiet)


@app.command(cls=Command)
def plan(
    study_name: StudyName,
    detect: Annotated[
        OptionalText,
        typer.Option(help="also say how many examples and seeds, or folds, detect a difference in accuracy: 0.01"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate what would run: parameters, time, memory and disk. Nothing is trained."""
    from tuneoff.formats import counted, encoder_names, number, seconds, size
    from tuneoff.spec import check_difference
    from tuneoff.study import Study

    gap = check_difference(detect) if detect else None
    study = Study.open(study_name)
    stay_offline_without_network(study.spec.model, study.spec.data.source)
    _end_imports()
    with console.status("loading data and timing a few steps"):
        missing = study.plan()
        detection = study.detection(gap, missing) if gap else None
    assert missing.speed is not None  # it was measured
    if as_json:
        jobs = [{**e.to_json(), "seconds": e.seconds(missing.speed)} for e in missing.estimates]
        planned = {"runs": jobs, "workers": missing.slots.workers, "seconds": missing.seconds}
        print(json.dumps({**planned, **({"detection": detection.to_json()} if detection else {})}, indent=1))
        return
    if detection:
        print_detection(detection)
    if not missing.estimates:
        console.print(
            f"Nothing is missing: every run of {visible(study.spec.name)} is stored in {visible(str(study.folder))}"
        )
        return
    table = new_table("strategy", "fold" if missing.dataset.folds else "seed", "trainable", "time", "memory", "disk")
    encoders = encoder_names(missing.spec.model)
    for e in missing.estimates:
        trainable = number(e.parameters.trainable if e.parameters else None)
        needs = (f"about {seconds(e.seconds(missing.speed))}", size(e.memory_bytes), size(e.disk_bytes))
        cell = ", ".join(f"{source} {seed}" for source, seed in e.job.run.sources.items())
        repeat = "search" if e.job.is_search else cell or str(e.job.run.seed)
        table.add_row(visible(e.job.run.name_among(encoders)), repeat, trainable, *needs)
    console.print(table)
    disk = size(sum(e.disk_bytes for e in missing.estimates))
    if missing.spec.keep == "recommended":  # models of other strategies are removed at the end
        disk = f"at most {disk}"
    searches = sum(e.job.is_search for e in missing.estimates)
    runs = len(missing.estimates) - searches
    parts = [counted(runs, "run")] if runs else []
    parts += [counted(searches, "search", "searches")] if searches else []
    jobs_text = " after ".join(parts)
    workers = min(missing.slots.workers, len(missing.estimates))
    folder = visible(str(study.folder))
    console.print(f"{jobs_text}, {workers} at once: about {seconds(missing.seconds)}, {disk} on disk in {folder}")
    if missing.dataset.folds:
        console.print("After them, the strategy that the verdict picks is trained once on all labelled examples.")


@app.command(cls=Command)
def report(
    folder: Annotated[str, typer.Argument(help="a study's folder")],
    cost: Cost = None,
    margin: Margin = None,
    predictions: Predictions = None,
    price_per_hour: PricePerHour = None,
    watts: Watts = None,
    grams_per_kwh: GramsPerKwh = None,
    metric: Annotated[
        OptionalText, typer.Option(help="rank the stored runs by another metric than the study's; nothing is trained")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rebuild the report of a study from its stored runs. Other costs, rates and predictions need no new runs."""
    from tuneoff.costs import check_cost
    from tuneoff.spec import check_margin

    cost = check_cost(parse_cost(cost)) if cost else None
    accepted = None if margin is None else check_margin(margin)
    rates = parse_rates(price_per_hour, watts, grams_per_kwh)
    if not Path(folder).is_dir():
        raise StoreError(f"study folder {folder!r} does not exist; run a study first: tuneoff run studies:quickstart")
    from tuneoff.study import Study

    study = Study.open(folder)
    if predictions:
        study = study.add_predictions(split_lists(predictions))
    study = study.changed(rates={**study.spec.rates.model_dump(), **rates})
    _end_imports()
    print_result(study.report(cost, accepted, metric), study.folder, as_json, quiet)


@app.command(cls=Command)
def track(
    folder: Annotated[str, typer.Argument(help="a study's folder")],
    to: Annotated[
        TextList,
        typer.Option(
            help="mlflow, tensorboard, wandb or trackio; options after colons: mlflow:uri=http://localhost:5000; "
            "repeatable, or separated by commas; by default those of the study"
        ),
    ] = None,
) -> None:
    """Store a finished study in trackers. Nothing is trained, and what is stored already is not stored twice."""
    if not Path(folder).is_dir():
        raise StoreError(f"study folder {folder!r} does not exist; run a study first: tuneoff run studies:quickstart")
    from tuneoff.study import Study
    from tuneoff.track import check_installed

    study = Study.open(folder)
    study = study.changed(track=split_lists(to)) if to else study
    if not study.spec.track:
        raise ConfigError("no tracker given; name one, e.g. --to mlflow")
    check_installed(study.spec.track)
    if not (study.folder / "report.md").is_file():
        raise StoreError(f"study {folder!r} has no report; write it first: tuneoff report {folder}")
    _end_imports()
    results = list(study.track())
    for result in results:
        print_tracked(result, console)
    if any(result.error for result in results):
        raise typer.Exit(1)


@app.command(cls=Command)
def check(
    new: Annotated[str, typer.Argument(help="a study's folder, or a folder of runs of one strategy")],
    old: Annotated[str, typer.Option("--not-worse-than", help="the same of what it is compared with")],
    margin: Annotated[
        OptionalText, typer.Option(help="largest acceptable loss, in the metric's units: 0.01 is a point")
    ] = None,
    metric: Annotated[OptionalText, typer.Option(help="any stored metric; by default that of the new study")] = None,
    strategy: Annotated[
        OptionalText, typer.Option(help="new strategy, as on the leaderboard; by default the recommended one")
    ] = None,
    old_strategy: Annotated[OptionalText, typer.Option(help="old strategy; by default the recommended one")] = None,
    comment: Annotated[OptionalText, typer.Option(metavar="FILE", help="also write a comment in Markdown")] = None,
    as_json: Json = False,
) -> None:
    """Check that a new model is not worse than an old one on the same test examples. Exit code 1 if it is not shown."""
    from tuneoff.comparison import gate
    from tuneoff.scoring.decision import DEFAULT_MARGIN
    from tuneoff.spec import check_margin

    accepted = DEFAULT_MARGIN if margin is None else check_margin(margin)
    for folder in (new, old):
        if not Path(folder).is_dir():
            raise StoreError(f"folder {folder!r} does not exist; give a study's folder: results/NAME")
    comment_path = _checked_path(comment, "--comment", "comment.md") if comment else None
    _end_imports()
    checked = gate.check(new, old, accepted, metric, strategy, old_strategy)
    if comment_path:
        comment_path.write_text(checked.markdown, encoding="utf-8")
    if as_json:
        print(json.dumps(checked.to_json(), indent=1, ensure_ascii=False))
    else:
        for line in checked.lines:
            console.print(visible(line), soft_wrap=True)
    if not checked.passes:
        raise typer.Exit(1)


@app.command(cls=Command)
def export(
    name: Annotated[str, typer.Argument(metavar="RUN", help="a study's folder, a run's folder or a model's folder")],
    to: Annotated[str, typer.Option(help=FORMAT_HELP)],
    strategy: Annotated[
        OptionalText, typer.Option(help="of a study, as on its leaderboard; by default the recommended one")
    ] = None,
    encoder: Annotated[
        OptionalText, typer.Option(help="place of the pretrained encoder, if it is not where it was at training")
    ] = None,
    out: Annotated[OptionalText, typer.Option(help="folder to write; by default one in the study's exports/")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a folder that exists")] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="do not reload the export to compare its probabilities")
    ] = False,
    hub_format: Annotated[
        OptionalText, typer.Option("--format", help="with --to hub:NAME: format of what is uploaded")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="with --to hub:NAME: a repository that everyone reads, not a private one")
    ] = False,
    as_json: Json = False,
) -> None:
    """Export a trained model to a format of another library, and check there that it gives the same probabilities."""
    from tuneoff.deliver.export import export as export_model

    _end_imports()
    with error_console.status(f"exporting to {visible(to)}"):
        exported = export_model(
            name,
            to,
            strategy=strategy,
            encoder=encoder,
            out=out,
            overwrite=overwrite,
            is_checked=not no_check,
            hub_format=hub_format,
            is_public=public,
        )
    print_export(exported, as_json)


@app.command(cls=Command)
@with_data_options
def inspect(
    data: dict[str, Any],
    model: Annotated[str, typer.Option(help="encoder whose tokenizer counts lengths")] = "packaged:minilm",
    samples: Annotated[int, typer.Option(min=0, help="examples to print of each label")] = 2,
    report_name: Annotated[
        OptionalText, typer.Option("--report", help="also write a page with everything, e.g. data.html")
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe the data: splits, class balance, lengths, what the checks found, and samples."""
    report_path = _checked_path(report_name) if report_name else None
    stay_offline_without_network([model], data["source"])
    from tuneoff.data.describe import describe
    from tuneoff.data.load import load_dataset
    from tuneoff.data.spec import DataSpec, TruncationPolicy
    from tuneoff.data.tokens import tokenize
    from tuneoff.encoder.config import load_tokenizer
    from tuneoff.validation import validated

    _end_imports()
    dataset = load_dataset(validated(DataSpec, data, "inspect"), evaluate=None)  # folds or splits, as compare chooses
    policy = TruncationPolicy(512)
    description = describe(dataset, {model: tokenize(dataset, load_tokenizer(model), policy)})
    if report_path:
        from tuneoff.report.write import write_data_page

        write_data_page(description, policy, report_path)
    if as_json:
        print(json.dumps(description.to_json(), indent=1, ensure_ascii=False))
        return
    print_classes(description, report_path)
    for split, lengths in description.lengths[model].items():
        longest = f"95th percentile {lengths.p95:.0f}, longest {lengths.max}"
        truncated = f"; {100 * lengths.truncated:.1f} % truncated" if lengths.truncated else ""
        console.print(f"{split}: {lengths.mean:.1f} tokens on average, {longest}{truncated}")
    clean = "no duplicates, leakage, contradicting labels or rare classes found"
    for line in [*description.notes, *(description.findings or [clean])]:
        console.print(f"- {visible(line)}")
    print_samples(dataset, samples)
    if report_path:
        console.print(f"\nReport: {visible(str(report_path))}", soft_wrap=True)


def _checked_path(name: str, option: str = "--report", example: str = "data.html") -> Path:
    """Return the path of a file to write. Raises ConfigError, before any work, if it cannot be written there."""
    path = Path(name).expanduser()
    if path.is_dir():
        raise ConfigError(f"{option} {name!r} is a folder; name a file in it, e.g. {path / example}")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {name!r}: folder {str(path.parent)!r} does not exist; create it first")
    return path


@app.command(cls=Command)
def params(
    model: Annotated[
        str, typer.Argument(help="encoder: a folder, packaged:NAME or a hub name; only its config is read")
    ],
    strategies: Annotated[
        TextList, typer.Option(help="separated by commas, options after colons: lora:rank=16")
    ] = None,
    num_labels: Annotated[int, typer.Option("--labels", min=2, help="number of classes")] = 2,
    as_json: Json = False,
) -> None:
    """Count the trainable and total parameters of each strategy, from the encoder's config."""
    from tuneoff.execute.estimate import parameters_of
    from tuneoff.spec import parse_strategy
    from tuneoff.strategies import STRATEGIES

    stay_offline_without_network([model])
    all_names = [name for name, row in STRATEGIES.items() if row.uses_encoder and not row.needs_options]
    configs = [parse_strategy(name) for name in split_list(joined(strategies)) or all_names]
    counts = {config.label: parameters_of(config, model, num_labels) for config in configs}
    if as_json:
        print(json.dumps([{"strategy": label, **vars(count)} for label, count in counts.items()], indent=1))
        return
    table = new_table("strategy", "trainable", "share", "added", "head", "total")
    for label, count in counts.items():
        share = f"{100 * count.trainable / count.total:.4f} %"
        table.add_row(
            visible(label), f"{count.trainable:,}", share, f"{count.added:,}", f"{count.head:,}", f"{count.total:,}"
        )
    console.print(table)
    console.print("Every parameter is counted once, added ones included; peft's own totals count the head twice.")


app.command(cls=Command)(predict)
app.command(cls=Command)(embed)


@app.command("strategies", cls=Command)
def list_strategies(as_json: Json = False) -> None:
    """List the strategies and the recipe, with their options."""
    from tuneoff.engine.recipe import Recipe
    from tuneoff.strategies import STRATEGIES

    if as_json:
        rows = {name: {"summary": row.summary, "options": options_of(row.config)} for name, row in STRATEGIES.items()}
        print(json.dumps({"strategies": rows, "recipe": options_of(Recipe)}, indent=1))
        return
    for name, row in STRATEGIES.items():
        console.print(f"[bold]{name}[/bold]  {visible(row.summary)}")
        print_options(row.config)
    console.print("[bold]recipe[/bold]  training of every strategy by gradient; class_weights also for tfidf and probe")
    print_options(Recipe)


@app.command("studies", cls=Command)
def list_studies(
    folders: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="FOLDER", help="a study's folder, or its name in results/; by default all of them"),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="list stored runs and searches that their study no longer lists, and remove them"),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="with --prune: remove without asking")] = False,
    as_json: Json = False,
) -> None:
    """List the studies that come with Tuneoff and those in results/; --prune removes what they no longer use."""
    from tuneoff.cli.stored import print_studies, prune_studies, studies_as_json
    from tuneoff.studies import packaged_studies

    if prune:
        prune_studies(folders or [], yes, as_json)
        return
    if as_json:
        print(json.dumps({"packaged": packaged_studies(), "stored": studies_as_json(folders or [])}, indent=1))
        return
    for name, summary in () if folders else packaged_studies().items():
        console.print(f"studies:{name}  {visible(summary)}")
    print_studies(folders or [])


@app.command(cls=Command)
def clean(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="remove without asking")] = False,
    as_json: Json = False,
) -> None:
    """Free disk space: the cache, models in results/ that no verdict picks, runs that their study no longer lists."""
    from tuneoff.cli.clean import clean_disk

    clean_disk(yes, as_json)


@app.command(cls=Command)
def serve(
    folder: Annotated[str, typer.Argument(help="a study's folder, or the folder of a run or a model")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8000,
    host: Annotated[
        str, typer.Option(help="address to listen on; anything but loopback lets other machines send texts")
    ] = "127.0.0.1",
    encoder: Annotated[
        OptionalText, typer.Option(help="place of the pretrained encoder, if it is not where it was at training")
    ] = None,
) -> None:
    """Open a page on this machine to try the models: labels, confidences and the words that decided. Also as JSON."""
    from tuneoff.cli.serving import serve_models

    _end_imports()
    serve_models(folder, host, port, encoder)


@app.command(cls=Command)
def doctor(as_json: Json = False) -> None:
    """Check this machine and installation."""
    from tuneoff.doctor import examine
    from tuneoff.formats import counted, size

    examination = examine()
    if as_json:
        print(json.dumps(examination.to_json(), indent=1))
        return
    console.print(", ".join(f"{name} {version}" for name, version in examination.versions.items()))
    console.print(
        f"{examination.processor}, {counted(examination.cores, 'core')}, {size(examination.memory_bytes)} memory"
    )
    console.print(examination.device_text)
    console.print(examination.precision_text)
    console.print(f"cache: {examination.cache} ({size(examination.cache_bytes)}; set TUNEOFF_CACHE to move it)")
    for kind, states in (("model", examination.packaged_models), ("data", examination.packaged_data)):
        for name, state in states.items():
            console.print(f"packaged {kind} {name}: {visible(state)}")


@contextmanager
def _executor() -> "Iterator[Executor]":
    """Start the worker process, which imports what jobs need while this process imports the rest."""
    from tuneoff.execute.local import LocalExecutor

    with LocalExecutor() as executor:
        yield executor


def _run(
    spec: "StudySpec", folder: Path | None, executor: "Executor", replace: bool, as_json: bool, quiet: bool
) -> None:
    from tuneoff.cli.progress import StudyProgress
    from tuneoff.cli.stored import print_orphans
    from tuneoff.study import RESULTS, Study

    study = Study(spec, folder or RESULTS / spec.name)
    _end_imports()
    screen = Console(quiet=True) if quiet else error_console if as_json else console
    tracked: list[Tracked] = []
    with StudyProgress(screen, spec.name, has_opening=not as_json) as progress:
        try:
            comparison = study.run(progress.on_event, progress.on_plan, executor, replace, tracked.append)
        except KeyboardInterrupt:
            screen.print("\nStopped. Finished jobs are stored; the same command continues.")
            raise typer.Exit(130) from None
    print_result(comparison, study.folder, as_json, quiet)
    for result in tracked:
        print_tracked(result, error_console if quiet and result.error else screen)
    print_orphans(study.folder, screen)
    if comparison.failures and not comparison.rows:
        raise typer.Exit(1)


def _end_imports() -> None:
    """Enable garbage collection before real work starts; imported modules are not garbage."""
    gc.freeze()
    gc.enable()
