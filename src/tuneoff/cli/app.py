"""The commands: each parses its options, calls a function of the package, and prints the result.

Imports are inside the commands: torch and transformers take seconds, and most commands need neither.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console

from tuneoff import __version__
from tuneoff.cli.completion import complete_in_bash, is_bash_completion
from tuneoff.cli.hub import stay_offline_without_network
from tuneoff.cli.imports import begin_imports, end_imports
from tuneoff.cli.inspection import inspect
from tuneoff.cli.options import (
    COST_HELP,
    Command,
    Cost,
    GramsPerKwh,
    Imported,
    Json,
    Keep,
    Margin,
    On,
    OptionalText,
    Ordered,
    Positive,
    Predictions,
    PricePerHour,
    Quiet,
    Replace,
    SelectBy,
    StudyName,
    Tags,
    TestSet,
    TextList,
    Threshold,
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
    with_spaces,
    without_encoders,
)
from tuneoff.cli.output import (
    console,
    error_console,
    new_table,
    options_of,
    print_detection,
    print_options,
    print_report,
    print_result,
    print_tracked,
    visible,
)
from tuneoff.cli.unforeseen import EXIT_CODE, print_unforeseen
from tuneoff.cli.winner import check, embed, export, predict, serve, track
from tuneoff.costs import DEFAULT_COST
from tuneoff.errors import StopRequested, StoreError, TuneoffError
from tuneoff.formats import show_control_characters

if TYPE_CHECKING:
    from tuneoff.comparison.result import Comparison
    from tuneoff.datasets import StudySet
    from tuneoff.execute.executor import Executor
    from tuneoff.spec.study import StudySpec
    from tuneoff.study import Study
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
    """Run the commands; an error that a user can fix is one line and exit code 2."""
    for variable, value in _QUIET_LIBRARIES.items():  # before any command: peft's options are checked by peft
        os.environ.setdefault(variable, value)
    _print_any_character()
    begin_imports()
    try:
        if is_bash_completion():
            complete_in_bash(app)
        else:
            app(standalone_mode=True)
    except (TuneoffError, OSError) as error:  # OSError: a full disk, no permission
        print(f"tuneoff: {show_control_characters(' '.join(_message(error).split()))}", file=sys.stderr)
        sys.exit(2)
    except BaseException as error:  # the last resort; tokenizers' PanicException is no Exception
        if isinstance(error, (SystemExit, KeyboardInterrupt, StopRequested)):
            raise
        print_unforeseen(error)
        sys.exit(EXIT_CODE)


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
    if isinstance(error, TuneoffError) or not isinstance(error, OSError):
        return str(error)
    from tuneoff.cache import cache_folder
    from tuneoff.files import full_disk_text, is_full_disk

    if is_full_disk(error):
        return full_disk_text(Path(str(error.filename or ".")))
    if error.filename is None:
        return str(error)
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
    more_data: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[DATA]...", help="more datasets, each a study of its own, and an overview of all"),
    ] = None,
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
    search_space: Annotated[
        TextList,
        typer.Option(
            metavar="STRATEGY.OPTION=VALUES",
            help="search these hyperparameters too: lora.rank=4,8,16, lora.learning_rate=1e-5..1e-3, or of the recipe "
            "of every strategy: recipe.epochs=2,3,5; repeatable, or separated by commas",
        ),
    ] = None,
    metric: Annotated[
        OptionalText,
        typer.Option(
            help="ranks strategies and selects epochs: any metric, or module:name of a function of your own; by "
            "default accuracy, for multi-label data micro_f1"
        ),
    ] = None,
    select_by: SelectBy = None,
    positive: Positive = None,
    ordered: Ordered = False,
    threshold: Threshold = None,
    fractions: Annotated[
        TextList, typer.Option(help="learning curve: also train on these fractions of train: 0.05,0.2")
    ] = None,
    per_class: Annotated[
        TextList, typer.Option(help="learning curve: also train on this many examples per class: 8,64")
    ] = None,
    cost: Annotated[str, typer.Option(help=COST_HELP, autocompletion=complete_cost)] = DEFAULT_COST,
    margin: Margin = None,
    test_set: TestSet = None,
    predictions: Predictions = None,
    tag: Tags = None,
    imported: Imported = None,
    price_per_hour: PricePerHour = None,
    watts: Watts = None,
    grams_per_kwh: GramsPerKwh = None,
    name: Annotated[OptionalText, typer.Option(help="name of the study, and of its folder under results/")] = None,
    workers: Annotated[Optional[int], typer.Option(help="jobs at once")] = None,  # noqa: UP045
    track: Track = None,
    keep: Keep = None,
    replace: Replace = False,
    on: On = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare strategies on your data, and recommend one."""
    models = split_list(joined(model))
    stay_offline_without_network(models, data["source"])
    with _executor(on) as executor:
        from tuneoff.spec.file import study_from
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
            "search": with_spaces(search, search_space),
            "fractions": split_list(joined(fractions)),
            "per_class": split_list(joined(per_class)),
            "metric": metric,
            "select_by": select_by,
            "positive": positive,
            "ordered": ordered,
            "threshold": threshold,
            "cost": parse_cost(cost),
            "tests": split_lists(test_set),
            "predictions": split_lists(predictions),
            "tags": tag,
            "imported": split_lists(imported),
            "rates": parse_rates(price_per_hour, watts, grams_per_kwh),
            "workers": workers,
            "track": split_lists(track),
            **({} if margin is None else {"margin": margin}),
            **({"keep": keep} if keep else {}),
        }
        if strategies:
            options["strategies"] = split_list(joined(strategies))
        if more_data:
            from tuneoff.cli.datasets import set_of

            _run_set(set_of([data["source"], *more_data], options, name), executor, replace, as_json, quiet)
            return
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
    metric: Annotated[OptionalText, typer.Option(help="instead of the study's")] = None,
    select_by: SelectBy = None,
    positive: Positive = None,
    ordered: Ordered = False,
    threshold: Threshold = None,
    margin: Margin = None,
    test_set: TestSet = None,
    predictions: Predictions = None,
    tag: Tags = None,
    imported: Imported = None,
    price_per_hour: PricePerHour = None,
    watts: Watts = None,
    grams_per_kwh: GramsPerKwh = None,
    name: Annotated[OptionalText, typer.Option(help="instead of the study's, and of its folder")] = None,
    workers: Annotated[Optional[int], typer.Option(help="jobs at once")] = None,  # noqa: UP045
    track: Track = None,
    keep: Keep = None,
    replace: Replace = False,
    on: On = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a study; runs that are stored already are not repeated."""
    with _executor(on) as executor:
        from tuneoff.cli.datasets import check_is_of_all
        from tuneoff.data.tags import parse_tags
        from tuneoff.datasets import StudySet
        from tuneoff.spec.file import study_from
        from tuneoff.spec.stated import merged_imports, merged_predictions, parse_tests
        from tuneoff.study import Study
        from tuneoff.track import dump_track, parse_track

        limits, models = parse_limits(joined(limit)), split_list(joined(model))
        stated: dict[str, dict[str, Any]] = {
            "recipe": {"epochs": epochs, "max_length": max_length},
            "rates": parse_rates(price_per_hour, watts, grams_per_kwh),
            "tags": parse_tags(tag),
            "track": dump_track(parse_track(split_lists(track))),
        }
        changes = {
            "model": models,
            "seeds": parse_seeds(seeds) if seeds else None,
            "workers": workers,
            "search": search,
            "metric": metric,
            "select_by": select_by,
            "positive": positive,
            "ordered": ordered,
            "threshold": threshold,
            "keep": keep,
        }

        def change(spec: "StudySpec") -> "StudySpec":
            """Return a study with the options of the command line in place of its own."""
            options = spec.model_dump(mode="json")
            if data:  # columns are detected again: local copies of a dataset name them differently
                options["data"] |= {"source": data, "text": None, "text_pair": None, "label": None}
            options["data"]["limits"] = limits or options["data"]["limits"]
            options["predictions"] = merged_predictions(spec.predictions, split_lists(predictions))
            options["imported"] = merged_imports(spec.imported, split_lists(imported))
            options["tests"] |= parse_tests(split_lists(test_set))
            for field, values in stated.items():
                options[field] |= {key: value for key, value in values.items() if value is not None}
            if folds:  # the study's own seeds do not go with folds
                options |= {"evaluate": parse_folds(folds), "seeds": None}
            options |= {key: value for key, value in changes.items() if value}
            options |= {} if margin is None else {"margin": margin}
            if models:  # the study's strategies for certain encoders run on those that take their place
                options["strategies"] = without_encoders(options["strategies"], models)
            return study_from(options)

        if study_set := StudySet.open(study_name):
            check_is_of_all(
                {"--data": data, "--predictions": predictions, "--test-set": test_set, "--import": imported}
            )
            _run_set(study_set.changed(change, name), executor, replace, as_json, quiet)
            return
        study = Study.open(study_name)
        spec = change(study.spec)
        spec = study_from({**spec.model_dump(mode="json"), "name": name or spec.name})
        stay_offline_without_network(spec.model, spec.data.source)
        _run(spec, None if name else study.folder, executor, replace, as_json, quiet)


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
    from tuneoff.spec.study import check_difference
    from tuneoff.study import Study

    gap = check_difference(detect) if detect else None
    study = Study.open(study_name)
    stay_offline_without_network(study.spec.model, study.spec.data.source)
    end_imports()
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
    if missing.extension:
        console.print(visible(missing.extension), soft_wrap=True)
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
    if missing.final:
        console.print(
            "Included: after them, the strategy that the verdict picks is trained once on all labelled examples, in at "
            f"most {seconds(missing.final_seconds(missing.speed))}."
        )


@app.command(cls=Command)
def report(
    folder: Annotated[str, typer.Argument(help="a study's folder")],
    cost: Cost = None,
    margin: Margin = None,
    predictions: Predictions = None,
    tag: Tags = None,
    imported: Imported = None,
    price_per_hour: PricePerHour = None,
    watts: Watts = None,
    grams_per_kwh: GramsPerKwh = None,
    metric: Annotated[
        OptionalText, typer.Option(help="rank the stored runs by another metric than the study's; nothing is trained")
    ] = None,
    positive: Positive = None,
    ordered: Ordered = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rebuild the report of a study from its stored runs. Other costs, rates and predictions need no new runs."""
    from tuneoff.costs import check_cost
    from tuneoff.data.tags import parse_tags
    from tuneoff.spec.study import check_margin

    cost = check_cost(parse_cost(cost)) if cost else None
    accepted = None if margin is None else check_margin(margin)
    rates, tags = parse_rates(price_per_hour, watts, grams_per_kwh), parse_tags(tag)
    if not Path(folder).is_dir():
        raise StoreError(f"study folder {folder!r} does not exist; run a study first: tuneoff run studies:quickstart")
    from tuneoff.study import Study

    study = Study.open(folder)
    if predictions:
        study = study.add_predictions(split_lists(predictions))
    if imported:
        study = study.add_imported(split_lists(imported))
    roles = {"positive": positive or study.spec.positive, "ordered": ordered or study.spec.ordered}
    rates_given = {**study.spec.rates.model_dump(), **rates}
    study = study.changed(rates=rates_given, tags=study.spec.tags | tags, **roles)
    end_imports()
    comparison = study.report(cost, accepted, metric)
    print_result(comparison, study.folder, as_json, quiet)
    print_report(comparison, study.folder, as_json, quiet)


@app.command(cls=Command)
def overview(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="folders of finished studies")],
    out: Annotated[
        OptionalText, typer.Option(help="folder for the report; of one study over several datasets, its own")
    ] = None,
    metric: Annotated[
        OptionalText, typer.Option(help="rank the strategies of all studies by this metric; nothing is trained")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare strategies over the datasets of several studies: mean ranks, and whether they are more than chance."""
    from tuneoff.cli.datasets import print_overview
    from tuneoff.datasets import StudySet
    from tuneoff.datasets import overview as overview_of

    end_imports()
    if len(studies) == 1 and (study_set := StudySet.open(studies[0])):
        studies = [str(study.folder) for study in study_set.joined_with_stored().studies.values()]
        out = out or str(study_set.folder)
    folder = Path(out) if out else Path("results") / "overview"
    print_overview(overview_of(studies, out=folder, metric=metric), folder, as_json, quiet)


app.command(cls=Command)(inspect)


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
    from tuneoff.spec.strategy import parse_strategy
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


for command in (predict, embed, export, serve, track, check):
    app.command(cls=Command)(command)


@app.command("strategies", cls=Command)
def list_strategies(as_json: Json = False) -> None:
    """List the strategies and the recipe, with their options."""
    from tuneoff.engine.recipe import Recipe
    from tuneoff.strategies import STRATEGIES, StrategyConfig
    from tuneoff.strategies.base import COMMON_OPTIONS

    if as_json:
        rows = {name: {"summary": row.summary, "options": options_of(row.config)} for name, row in STRATEGIES.items()}
        print(json.dumps({"strategies": rows, "recipe": options_of(Recipe)}, indent=1))
        return
    for name, row in STRATEGIES.items():
        console.print(f"[bold]{name}[/bold]  {visible(row.summary)}")
        print_options(row.config, COMMON_OPTIONS)
    console.print("[bold]every strategy[/bold]  also takes")
    print_options(StrategyConfig)
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
def verify(
    folder: Annotated[str, typer.Argument(help="a study's folder; of several datasets, the folder of all")],
    repair: Annotated[
        bool,
        typer.Option("--repair", help="move what is damaged into FOLDER/damaged and make exactly that again"),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare every stored file of a study with its checksum; --repair makes again what is damaged."""
    from tuneoff.cli.verify import print_damage, restore

    if not print_damage(folder, repair, as_json):
        return
    if not repair:
        raise typer.Exit(1)
    for study_folder in restore(folder):
        with _executor() as executor:
            from tuneoff.study import Study

            _run(Study.open(study_folder).spec, study_folder, executor, replace=False, as_json=False, quiet=quiet)
    if print_damage(folder, repairs=False, as_json=False):
        raise typer.Exit(1)


@app.command(cls=Command)
def clean(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="remove without asking")] = False,
    as_json: Json = False,
) -> None:
    """Free disk space: the cache, models in results/ that no verdict picks, runs that their study no longer lists."""
    from tuneoff.cli.clean import clean_disk

    clean_disk(yes, as_json)


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
def _executor(on: str | None = None) -> "Iterator[Executor]":
    """Start the worker process, which imports what jobs need while this process imports the rest.

    on: address of a Ray cluster that runs the jobs instead; None for this machine.
    """
    if on:
        from tuneoff.execute.cluster import RayExecutor

        with RayExecutor(on) as cluster:
            yield cluster
        return
    from tuneoff.execute.local import LocalExecutor

    with LocalExecutor() as executor:
        yield executor


def _run(
    spec: "StudySpec", folder: Path | None, executor: "Executor", replace: bool, as_json: bool, quiet: bool
) -> None:
    from tuneoff.cli.stored import print_orphans
    from tuneoff.study import RESULTS, Study

    study = Study(spec, folder or RESULTS / spec.name)
    end_imports()
    screen = Console(quiet=True) if quiet else error_console if as_json else console
    tracked: list[Tracked] = []
    comparison = _completed(
        study, executor, replace, screen, not as_json, tracked, lambda c: print_result(c, study.folder, as_json, quiet)
    )
    print_report(comparison, study.folder, as_json, quiet)
    for result in tracked:
        print_tracked(result, error_console if quiet and result.error else screen)
    print_orphans(study.folder, screen)
    if comparison.failures and not comparison.rows:
        raise typer.Exit(1)


def _completed(
    study: "Study",
    executor: "Executor",
    replace: bool,
    screen: Console,
    has_opening: bool,
    tracked: "list[Tracked]",
    on_comparison: "Callable[[Comparison], None]",
) -> "Comparison":
    """Run a study with progress on the screen. on_comparison: prints the result, before the report is written."""
    from tuneoff.cli.progress import StudyProgress

    with StudyProgress(screen, study.spec.name, has_opening=has_opening) as progress:

        def show(comparison: "Comparison") -> None:
            progress.end()
            on_comparison(comparison)

        try:
            return study.run(progress.on_event, progress.on_plan, executor, replace, tracked.append, show)
        except (KeyboardInterrupt, StopRequested) as stop:
            # --quiet silences no reason for ending early
            has_checkpoint = lambda job_id: study.store.runs.checkpoint(job_id).is_file()  # noqa: E731
            line = progress.stopped_line(study.folder, has_checkpoint)
            (error_console if screen.quiet else screen).print(visible(line), soft_wrap=True)
            raise typer.Exit(stop.exit_code if isinstance(stop, StopRequested) else 130) from None


def _run_set(study_set: "StudySet", executor: "Executor", replace: bool, as_json: bool, quiet: bool) -> None:
    """Run the study of each dataset, print its conclusion, and write and print the overview."""
    from tuneoff.cli.datasets import print_overview

    end_imports()
    screen = Console(quiet=True) if quiet else error_console if as_json else console
    tracked: list[Tracked] = []

    def run_study(name: str, study: "Study") -> "Comparison":
        number, count = list(study_set.studies).index(name) + 1, len(study_set.studies)
        screen.print(f"[bold]{visible(name)}[/bold], dataset {number} of {count}")
        return _completed(study, executor, replace, screen, not as_json, tracked, show)

    def show(comparison: "Comparison") -> None:
        for sentence in comparison.verdict.summary[:1] if comparison.verdict else ["No run succeeded."]:
            screen.print(f"{visible(sentence)}\n")

    list(study_set.run(run_study, replace))
    for result in tracked:
        print_tracked(result, error_console if quiet and result.error else screen)
    print_overview(study_set.overview(), study_set.folder, as_json, quiet)
