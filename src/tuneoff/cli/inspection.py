"""The command inspect: the data alone, before anything is trained."""

import dataclasses
import json
from typing import Annotated, Any, Optional

import typer

from tuneoff.cli.hub import stay_offline_without_network
from tuneoff.cli.imports import end_imports
from tuneoff.cli.options import Json, OptionalText, checked_path, with_data_options
from tuneoff.cli.output import (
    console,
    print_classes,
    print_lengths,
    print_review,
    print_samples,
    print_tokens,
    visible,
)


@with_data_options
def inspect(
    data: dict[str, Any],
    model: Annotated[str, typer.Option(help="encoder whose tokenizer counts lengths")] = "packaged:minilm",
    max_length: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=4, help="tokens of a sequence; by default 128, as in compare"),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="examples to print of each label")] = 2,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="print the tokens of the shortest, a median and the longest example")
    ] = False,
    rows: Annotated[OptionalText, typer.Option(help="print the tokens of these examples: train:5,test:17-20")] = None,
    report_name: Annotated[
        OptionalText, typer.Option("--report", help="also write a page with everything, e.g. data.html")
    ] = None,
    review_name: Annotated[
        OptionalText,
        typer.Option(
            "--review", help="also write the doubtful labels to this CSV file, to correct and apply with --corrections"
        ),
    ] = None,
    review_by: Annotated[
        OptionalText,
        typer.Option(help="doubt labels by the vectors of the encoder, or by tfidf; by default tfidf for large data"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe the data: splits, class balance, lengths, vocabulary, tokens, what the checks found, and samples."""
    report_path = checked_path(report_name) if report_name else None
    review_path = checked_path(review_name, "--review", "labels.csv") if review_name else None
    stay_offline_without_network([model], data["source"])
    if max_length is not None:
        from tuneoff.grid import check_length

        check_length(model, max_length)
    from tuneoff.data.describe import describe
    from tuneoff.data.doctor.finding import ranked
    from tuneoff.data.load import load_dataset
    from tuneoff.data.pieces import check_rows, parse_rows
    from tuneoff.data.spec import DataSpec, TruncationPolicy
    from tuneoff.data.tokens import tokenize
    from tuneoff.encoder.config import load_tokenizer
    from tuneoff.grid import encoder_fits, sampled_findings
    from tuneoff.review import review_labels
    from tuneoff.validation import validated

    end_imports()
    spec, keeps_rows = validated(DataSpec, data, "inspect"), review_path is not None
    chosen = parse_rows(rows) if rows else []
    dataset = load_dataset(spec, evaluate=None, keeps_rows=keeps_rows)  # folds or splits, as compare chooses
    check_rows(dataset, chosen)
    policy, tokenizer = TruncationPolicy(max_length or 128), load_tokenizer(model)
    tables = {model: tokenize(dataset, tokenizer, policy)}
    description = describe(dataset, tables, {model: tokenizer}, policy, chosen)
    fits = encoder_fits(dataset, tables)
    review = review_labels(dataset, model, review_by) if review_path else None
    found = [*sampled_findings(dataset, tables, policy, fits), *(review.findings if review else [])]
    description = dataclasses.replace(description, findings=tuple(ranked([*description.findings, *found])))
    if review and review_path:
        review.write(review_path)
    if report_path:
        from tuneoff.report.write import write_data_page

        write_data_page(description, policy, report_path)
    if as_json:
        stored = {**description.to_json(), "encoder_fit": {fit.encoder: fit.to_json() for fit in fits}}
        print(json.dumps(stored, indent=1, ensure_ascii=False))
        return
    print_classes(description, report_path)
    print_lengths(description.lengths[model], policy)
    for fit in fits:
        console.print(f"{visible(fit.encoder)}: {visible(fit.text)}")
    clean = "no duplicates, leakage, contradicting labels or rare classes found"
    for line in [*description.notes, *([finding.line for finding in description.findings] or [clean])]:
        console.print(f"- {visible(line)}")
    if description.token_examples and (tokens or chosen):
        print_tokens(description.token_examples)
    else:
        print_samples(dataset, samples)
    if report_path:
        console.print(f"\nReport: {visible(str(report_path))}", soft_wrap=True)
    if review and review_path:
        print_review(review, review_path)
