"""The commands of studies: compare, run, plan, report and overview."""

import heapq
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from tuneoff.cli.hub import stay_offline_without_network
from tuneoff.cli.imports import end_imports
from tuneoff.cli.options import (
    COST_HELP,
    CopyTo,
    Cost,
    Devices,
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
    Race,
    Replace,
    SelectBy,
    StudyName,
    Tags,
    TestSet,
    TextList,
    Threshold,
    Time,
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
    new_table,
    print_detection,
    print_report,
    print_result,
    visible,
)
from tuneoff.costs import DEFAULT_COST
from tuneoff.errors import StoreError

if TYPE_CHECKING:
    from tuneoff.spec.study import StudySpec
from tuneoff.cli.running import run_set_on_screen, run_study_on_screen, started_executor


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
    baselines: Annotated[bool, typer.Option(help="add the baselines, majority and tfidf")] = True,
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
    time: Time = None,
    race: Race = False,
    workers: Annotated[Optional[int], typer.Option(help="jobs at once")] = None,  # noqa: UP045
    devices: Devices = None,
    track: Track = None,
    keep: Keep = None,
    replace: Replace = False,
    on: On = None,
    copy_to: CopyTo = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare strategies on your data, and recommend one."""
    models = split_list(joined(model))
    stay_offline_without_network(models, data["source"])
    with started_executor(on) as executor:
        from tuneoff.spec.file import default_name, study_from

        options: dict[str, Any] = {
            "name": name or default_name(data["source"] or data["splits"]["train"]),
            "data": data,
            "model": models,
            **({} if baselines else {"baselines": False}),
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
            "time": time,
            "race": race,
            "workers": workers,
            **({} if devices is None else {"devices": devices}),
            "track": split_lists(track),
            **({} if margin is None else {"margin": margin}),
            **({"keep": keep} if keep else {}),
        }
        if strategies:
            options["strategies"] = split_list(joined(strategies))
        if more_data:
            from tuneoff.cli.datasets import set_of

            study_set = set_of([data["source"], *more_data], options, name)
            run_set_on_screen(study_set, executor, replace, as_json, quiet, copy_to)
            return
        run_study_on_screen(study_from(options, "compare"), None, executor, replace, as_json, quiet, copy_to)


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
    time: Time = None,
    race: Race = False,
    workers: Annotated[Optional[int], typer.Option(help="jobs at once")] = None,  # noqa: UP045
    devices: Devices = None,
    track: Track = None,
    keep: Keep = None,
    replace: Replace = False,
    on: On = None,
    copy_to: CopyTo = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a study; runs that are stored already are not repeated."""
    with started_executor(on) as executor:
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
            "time": time,
            "race": race,
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
            options |= {} if devices is None else {"devices": devices}
            if models:  # the study's strategies for certain encoders run on those that take their place
                options["strategies"] = without_encoders(options["strategies"], models)
            return study_from(options)

        if study_set := StudySet.open(study_name):
            check_is_of_all(
                {"--data": data, "--predictions": predictions, "--test-set": test_set, "--import": imported}
            )
            run_set_on_screen(study_set.changed(change, name), executor, replace, as_json, quiet, copy_to)
            return
        study = Study.open(study_name)
        spec = change(study.spec)
        spec = study_from({**spec.model_dump(mode="json"), "name": name or spec.name})
        stay_offline_without_network(spec.model, spec.data.source)
        run_study_on_screen(spec, None if name else study.folder, executor, replace, as_json, quiet, copy_to)


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
    at_once = heapq.nlargest(missing.slots.workers, (e.checkpoint_bytes for e in missing.estimates))
    checkpoints = f", and at most {size(sum(at_once))} for checkpoints while they run" if any(at_once) else ""
    searches = sum(e.job.is_search for e in missing.estimates)
    runs = len(missing.estimates) - searches
    parts = [counted(runs, "run")] if runs else []
    parts += [counted(searches, "search", "searches")] if searches else []
    jobs_text = " after ".join(parts)
    workers = min(missing.slots.workers, len(missing.estimates))
    folder = visible(str(study.folder))
    console.print(
        f"{jobs_text}, {workers} at once{missing.slots.devices_text}: about {seconds(missing.seconds)}, {disk} on disk "
        f"in {folder}{checkpoints}"
    )
    if missing.race:
        console.print(visible(f"{missing.race[0].upper()}{missing.race[1:]}."))
    if missing.final:
        console.print(
            "Included: after them, the strategy that the verdict picks is trained once on all labelled examples, in at "
            f"most {seconds(missing.final_seconds(missing.speed))}."
        )


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
