"""The commands after a study: predict, embed, export, serve, track and check."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from tuneoff.cli.imports import end_imports
from tuneoff.cli.options import (
    FORMAT_HELP,
    Json,
    OptionalText,
    Ordered,
    Positive,
    Quiet,
    TextList,
    checked_path,
    split_lists,
)
from tuneoff.cli.output import console, error_console, print_export, print_tracked, visible
from tuneoff.errors import ConfigError, StoreError, join_limited
from tuneoff.formats import counted, shorten

if TYPE_CHECKING:
    from rich.console import Console

    from tuneoff.deliver.confidence import Answered
    from tuneoff.deliver.predict import Predicted

Data = Annotated[
    str, typer.Argument(metavar="DATA", help="csv, tsv, jsonl or parquet file with texts; - is standard input")
]
Out = Annotated[
    str, typer.Option("--out", "-o", help="file to write, csv, tsv, jsonl or parquet; - is standard output")
]
Text = Annotated[OptionalText, typer.Option("--text", help="text column; by default as in training")]
TextPair = Annotated[OptionalText, typer.Option("--text-pair", help="column of the second text of a pair")]
_MAX_LABELS = 6  # whose shares the screen shows


def predict(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="a study's folder: its recommended strategy; or a run's or model's")
    ],
    data: Data,
    out: Out = "-",
    strategy: Annotated[OptionalText, typer.Option(help="another strategy, as on the leaderboard")] = None,
    run: Annotated[OptionalText, typer.Option(help="id of one run, as in STUDY/runs")] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="average the probabilities of all seeds")] = False,
    encoder: Annotated[
        OptionalText, typer.Option(help="place of the pretrained encoder, if it is not where it was at training")
    ] = None,
    text: Text = None,
    text_pair: TextPair = None,
    min_confidence: Annotated[
        Optional[float], typer.Option(help="predict nothing below this probability of the class, e.g. 0.9")  # noqa: UP045
    ] = None,
    no_texts: Annotated[bool, typer.Option("--no-texts", help="leave the texts out of the output")] = False,
    prefix: Annotated[str, typer.Option(help="before the names of the new columns")] = "",
    input_format: Annotated[OptionalText, typer.Option(help="csv, tsv, jsonl or parquet; by the file's name")] = None,
    output_format: Annotated[
        OptionalText,
        typer.Option("--format", help="csv, tsv, jsonl, parquet, or glue (index and prediction); by the file's name"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Predict the texts of a file with the model of a study."""
    from rich.console import Console

    from tuneoff.deliver.classifier import load_classifier
    from tuneoff.deliver.confidence import evidence
    from tuneoff.deliver.find import find
    from tuneoff.deliver.predict import Output, predict_file
    from tuneoff.deliver.texts import TextColumns

    end_imports()
    output = Output(output_format, prefix, not no_texts, min_confidence)
    screen = Console(quiet=True) if quiet else error_console if out == "-" else console
    found = find(study, strategy, run, ensemble)
    classifier = load_classifier(found.folders, encoder)
    screen.print(visible(f"{classifier!r}".strip("<>")), soft_wrap=True)
    columns = TextColumns(text, text_pair, found.store.read_data()[0].text_columns if found.store else ())
    with screen.status("predicting") as status:

        def show(rows: int) -> None:
            status.update(f"predicting: {rows:,} rows")

        done = predict_file(classifier, data, out, columns, output, input_format, show)
    expected = None
    if min_confidence is not None and (measured := evidence(found)):
        expected = (measured.at(min_confidence), measured.source)
    _print_predicted(screen, done, classifier.saved.is_multilabel, min_confidence, expected)
    if out != "-":
        screen.print(visible(f"written to {out}"), soft_wrap=True)


def _print_predicted(
    screen: "Console",
    done: "Predicted",
    is_multilabel: bool,
    min_confidence: float | None,
    expected: "tuple[Answered, str] | None",
) -> None:
    """Print what became of the rows, and what to expect of the predictions."""
    speed = f", {done.rows / done.seconds:,.0f} a second" if done.seconds > 0.05 else ""
    screen.print(f"{counted(done.rows, 'row')} in {done.seconds:.1f} s{speed}")
    if done.answered:
        top = done.counts.most_common(_MAX_LABELS)
        shares = ", ".join(f"{shorten(name, 40)} {100 * count / done.answered:.0f} %" for name, count in top)
        rest = len(done.counts) - len(top)
        more = f" and {counted(rest, 'other label')}" if rest else ""
        screen.print(visible(f"{'labels' if is_multilabel else 'predicted'}: {shares}{more}"), soft_wrap=True)
    if min_confidence is not None:
        share = done.answered / max(1, done.answered + done.unsure)
        screen.print(
            f"at least {min_confidence:g} confident: {100 * share:.0f} % of the texts; the others have no label"
        )
    if expected:
        answered, source = expected
        low, high = answered.interval
        accuracy = (
            f"accuracy {answered.accuracy:.3f} ({low:.3f} to {high:.3f})" if answered.share else "no example reaches it"
        )
        where = "on validation" if source == "validation" else f"in {source}"
        screen.print(f"{where}: {100 * answered.share:.0f} % of {answered.examples:,} examples, {accuracy}")
    for reason, rows in done.bad.by_reason.items():
        count = counted(len(rows), "row has", "rows have")
        screen.print(f"! {count} {reason}: {join_limited(rows)}", soft_wrap=True)


def embed(
    data: Data,
    out: Annotated[
        str, typer.Option("--out", "-o", help="file to write: npy (N x H numbers) or parquet (a column embedding)")
    ],
    model: Annotated[str, typer.Option(help="encoder: a folder, packaged:NAME or a hub name")] = "packaged:minilm",
    pooling: Annotated[str, typer.Option(help="mean or cls")] = "mean",
    max_length: Annotated[int, typer.Option(min=4, help="tokens of a text; longer ones are truncated")] = 128,
    text: Text = None,
    text_pair: TextPair = None,
) -> None:
    """Embed the texts of a file with a frozen encoder: the vectors that probes are trained on."""
    from tuneoff.data.spec import TruncationPolicy
    from tuneoff.deliver.embed import Embedder, embed_file
    from tuneoff.deliver.texts import TextColumns

    end_imports()
    columns = TextColumns(text, text_pair, is_pair=text_pair is not None)
    rows = embed_file(Embedder(model, pooling, TruncationPolicy(max_length)), data, out, columns)
    console.print(f"{counted(rows, 'vector')} written to {visible(out)}", soft_wrap=True)


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

    end_imports()
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

    end_imports()
    serve_models(folder, host, port, encoder)


def track(
    folder: Annotated[str, typer.Argument(help="a study's folder")],
    to: Annotated[
        TextList,
        typer.Option(
            help="mlflow, tensorboard, wandb or trackio; options after colons: mlflow:uri=http://localhost:5000; "
            "repeatable, or separated by commas; by default those of the study"
        ),
    ] = None,
    metric: Annotated[OptionalText, typer.Option(help="by default the study's")] = None,
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
    end_imports()
    results = list(study.track(study.comparison(metric=metric)))
    for result in results:
        print_tracked(result, console)
    if any(result.error for result in results):
        raise typer.Exit(1)


def check(
    new: Annotated[str, typer.Argument(help="a study's folder, or a folder of runs of one strategy")],
    old: Annotated[str, typer.Option("--not-worse-than", help="the same of what it is compared with")],
    margin: Annotated[
        OptionalText, typer.Option(help="largest acceptable loss, in the metric's units: 0.01 is a point")
    ] = None,
    metric: Annotated[OptionalText, typer.Option(help="any metric; by default that of the new study")] = None,
    positive: Positive = None,
    ordered: Ordered = False,
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
    from tuneoff.spec.study import check_margin

    accepted = DEFAULT_MARGIN if margin is None else check_margin(margin)
    for folder in (new, old):
        if not Path(folder).is_dir():
            raise StoreError(f"folder {folder!r} does not exist; give a study's folder: results/NAME")
    comment_path = checked_path(comment, "--comment", "comment.md") if comment else None
    end_imports()
    checked = gate.check(new, old, accepted, metric, strategy, old_strategy, positive, ordered)
    if comment_path:
        comment_path.write_text(checked.markdown, encoding="utf-8")
    if as_json:
        print(json.dumps(checked.to_json(), indent=1, ensure_ascii=False))
    else:
        for line in checked.lines:
            console.print(visible(line), soft_wrap=True)
    if not checked.passes:
        raise typer.Exit(1)
