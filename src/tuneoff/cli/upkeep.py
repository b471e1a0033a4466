"""The commands around studies: params, strategies, studies, verify, clean and doctor."""

import json
from typing import Annotated, Optional

import typer

from tuneoff.cli.hub import stay_offline_without_network
from tuneoff.cli.options import (
    Json,
    Quiet,
    TextList,
    joined,
    split_list,
)
from tuneoff.cli.output import (
    console,
    new_table,
    options_of,
    print_options,
    visible,
)
from tuneoff.cli.running import run_study_on_screen, started_executor


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
        with started_executor() as executor:
            from tuneoff.study import Study

            run_study_on_screen(
                Study.open(study_folder).spec, study_folder, executor, replace=False, as_json=False, quiet=quiet
            )
    if print_damage(folder, repairs=False, as_json=False):
        raise typer.Exit(1)


def clean(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="remove without asking")] = False,
    as_json: Json = False,
) -> None:
    """Free disk space: the cache, models in results/ that no verdict picks, runs that their study no longer lists."""
    from tuneoff.cli.clean import clean_disk

    clean_disk(yes, as_json)


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
