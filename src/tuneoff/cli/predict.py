"""The commands that use a trained model: predict and embed."""

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from tuneoff.cli.options import OptionalText, Quiet
from tuneoff.cli.output import console, error_console, visible
from tuneoff.errors import join_limited
from tuneoff.formats import shorten

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
    screen.print(f"{done.rows:,} {_plural('row', done.rows)} in {done.seconds:.1f} s{speed}")
    if done.answered:
        top = done.counts.most_common(_MAX_LABELS)
        shares = ", ".join(f"{shorten(name, 40)} {100 * count / done.answered:.0f} %" for name, count in top)
        rest = len(done.counts) - len(top)
        more = f" and {rest} other {_plural('label', rest)}" if rest else ""
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
        count = f"{len(rows):,} {_plural('row', len(rows))}"
        screen.print(f"! {count} {_plural('has', len(rows), 'have')} {reason}: {join_limited(rows)}", soft_wrap=True)


def _plural(word: str, count: int, plural: str = "") -> str:
    return word if count == 1 else plural or f"{word}s"


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

    columns = TextColumns(text, text_pair, is_pair=text_pair is not None)
    rows = embed_file(Embedder(model, pooling, TruncationPolicy(max_length)), data, out, columns)
    console.print(f"{rows:,} {_plural('vector', rows)} written to {visible(out)}", soft_wrap=True)
