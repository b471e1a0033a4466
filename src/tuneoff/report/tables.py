"""What stands in the tables of a comparison."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneoff.comparison.result import Comparison, Row, has_encoders
from tuneoff.formats import Table, cut, number, seconds, size
from tuneoff.metrics import spoken
from tuneoff.report.curves import curves
from tuneoff.report.searches import searches, trials
from tuneoff.report.slices import slices

_MOST_DOUBTED = 25  # likely label errors that are listed
_TEXT_LENGTH = 300  # characters of a text in a table


def every_table(comparison: Comparison) -> dict[str, Table]:
    """The tables that are files of their own, by name."""
    made: dict[str, Callable[[Comparison], Table]] = {
        "leaderboard": leaderboard,
        "pairs": pairs,
        "data": data,
        "lengths": lengths,
        "metrics": metrics,
        "slices": slices,
        "curves": curves,
        "searches": searches,
        "trials": trials,
        "parameters": parameters,
        "classes": classes,
        "calibration": calibration,
        "label-errors": label_errors,
        "words": words,
        "costs": costs,
        "reported": reported,
    }
    return {name: make(comparison) for name, make in made.items()}


def data(comparison: Comparison) -> Table:
    """Examples of each label in each split."""
    splits = comparison.data["splits"]
    body = [
        [label, *[number(found["labels"][index]) for found in splits.values()]]
        for index, label in enumerate(comparison.label_names)
    ]
    return ["label", *splits], [*body, ["all", *[number(found["examples"]) for found in splits.values()]]]


def lengths(comparison: Comparison) -> Table:
    """Tokens an example, and how many were cut, for each encoder and split."""
    body = [
        [
            model,
            split,
            f"{found['mean']:.1f}",
            number(found["median"]),
            number(found["p95"]),
            number(found["max"]),
            f"{100 * found['truncated']:.1f} %",
        ]
        for model, splits in comparison.data["lengths"].items()
        for split, found in splits.items()
    ]
    return ["encoder", "split", "mean tokens", "median", "95 % up to", "longest", "cut"], body


def leaderboard(comparison: Comparison) -> Table:
    """Strategies, best first, with intervals, differences to the best, and costs."""
    several = has_encoders(comparison.rows)
    head = [
        "strategy",
        *(["encoder"] if several else []),
        spoken(comparison.metric),
        "95 % interval",
        "difference to best",
        "p",
        "seeds",
        "trainable",
        "training",
        "memory",
        "model",
        "latency",
    ]
    body = []
    for row in comparison.rows:
        body.append(
            [
                row.label,
                *([row.model or "–"] if several else []),
                score(row),
                f"{row.interval[0]:.3f} to {row.interval[1]:.3f}",
                difference(row, is_best=row is comparison.rows[0]),
                "–" if row is comparison.rows[0] else p_value(row.p_value),
                str(len(row.seeds)),
                number(row.parameters.get("trainable")),
                seconds(row.costs.get("train_seconds")),
                size(row.costs.get("peak_bytes")),
                size(row.costs.get("model_bytes")),
                seconds(row.costs.get("latency_seconds")),
            ]
        )
    return head, body


def short_leaderboard(comparison: Comparison) -> Table:
    """The leaderboard in the width of a plain terminal."""
    several = has_encoders(comparison.rows)
    body = []
    for index, row in enumerate(comparison.rows):
        name = f"{row.label} {Path(row.model).name}" if several and row.model else row.label
        p = p_value(row.p_value)
        gap = f"{abs(row.difference):.3f} {'tied ' if row.is_tied else ''}(p {p if p.startswith('<') else f'= {p}'})"
        low, high = row.interval
        score = f"{row.score:.3f} ({low:.3f} to {high:.3f})"
        body.append([name, score, "best" if index == 0 else gap, seconds(row.costs.get("train_seconds"))])
    return ["strategy", f"{spoken(comparison.metric)} (95 %)", "behind the best", "training"], body


def metrics(comparison: Comparison) -> Table:
    """Every metric on test, mean over seeds, and how the study's own would vary."""
    names = list(comparison.rows[0].scores) if comparison.rows else []
    body = [
        [
            comparison.names[row.group],
            *[f"{row.scores[name]:.3f}" for name in names],
            f"{row.validation:.3f}",
            f"{row.from_examples:.3f}",
            "–" if row.from_seeds is None else f"{row.from_seeds:.3f}",
        ]
        for row in comparison.rows
    ]
    extra = [f"validation {spoken(comparison.metric)}", "sd from examples", "sd from seeds"]
    return ["strategy", *map(spoken, names), *extra], body


def pairs(comparison: Comparison) -> Table:
    """Every two strategies: how far apart, how sure that is, and what would make it sure."""
    head = ["better", "worse", "difference", "95 % interval", "p (Holm)", "p", "McNemar", "Cohen's g"]
    body = [
        [
            comparison.names[pair.better],
            comparison.names[pair.worse],
            f"{pair.difference:.3f}",
            f"{pair.interval[0]:+.3f} to {pair.interval[1]:+.3f}",
            *map(p_value, (pair.p_corrected, pair.p_value, pair.mcnemar)),
            f"{pair.effect:+.2f}",
            number(pair.needed_examples) if pair.needed_examples and not pair.is_told else "–",
            number(pair.needed_seeds) if pair.needed_seeds and not pair.is_told else "–",
        ]
        for pair in comparison.pairs
    ]
    return [*head, "examples to settle", "seeds to settle"], body


def p_value(p: float) -> str:
    """
    >>> p_value(0.0004), p_value(0.03)
    ('< 0.001', '0.030')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def parameters(comparison: Comparison) -> Table:
    """What each strategy trains and adds, and how much less that is than everything that full fine-tuning trains."""
    body = []
    for row in comparison.rows:
        if row.parameters:
            trainable, added, head, total = (row.parameters[name] for name in ("trainable", "added", "head", "total"))
            less = f"{(total - added) / trainable:,.0f} x" if trainable and row.model else "–"
            cells = [*map(number, (total, trainable, added, head)), f"{100 * trainable / max(1, total):.3f} %", less]
            body.append([comparison.names[row.group], *cells])
    return ["strategy", "total", "trainable", "added", "head", "trainable share", "fewer than full"], body


def costs(comparison: Comparison) -> Table:
    """Seconds by phase, memory, size, speed and use of the machine, mean over seeds."""
    phases = ("encode_seconds", "prefix_seconds", "train_seconds", "evaluate_seconds", "run_seconds")
    body = []
    for row in comparison.rows:
        found = row.costs
        alone = found["train_seconds"] - found.get("prefix_seconds", 0.0)
        body.append(
            [
                comparison.names[row.group],
                *[seconds(alone if name == "train_seconds" else found.get(name)) for name in phases],
                size(found.get("peak_bytes")),
                number(found.get("examples_per_second")),
                number(found.get("tokens_per_second")),
                operations(found.get("operations")),
                _share_of_peak(found, alone),
            ]
        )
    head = [
        "encode",
        "frozen blocks",
        "train",
        "evaluate",
        "whole run",
        "peak memory",
        "examples/s",
        "tokens/s",
        "operations",
        "of peak",
    ]
    return ["strategy", *head], body


def operations(count: float | None) -> str:
    """
    >>> operations(3.489e12), operations(None)
    ('3.49 T', '–')
    """
    if not count:
        return "–"
    unit, factor = next((u, f) for u, f in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("", 1.0)) if count >= f or f == 1)
    return f"{count / factor:.3g} {unit}".strip()


def _share_of_peak(found: dict[str, float], train_seconds: float) -> str:
    peak = found.get("peak_operations_per_second")
    if not peak or not found.get("operations") or not train_seconds:
        return "–"
    return f"{100 * found['operations'] / train_seconds / peak:.0f} %"


def whole_study(comparison: Comparison) -> str:
    """What making all of the runs took, in a sentence or two."""
    sessions = comparison.data.get("sessions") or []
    made = (*comparison.records, *comparison.parts)
    said = f"{len(made)} runs of {seconds(sum(record.costs.get('run_seconds', 0.0) for record in made))} in all"
    trials = [trial.seconds for found in comparison.searches for trial in found.trials]
    if trials:
        said += f" and {len(trials)} trials of {seconds(sum(trials))}"
    if sum(session["runs"] for session in sessions) < len(made):
        return f"{said}."  # some were made in sessions that are not known
    said += f", made in {seconds(sum(session['seconds'] for session in sessions))}"
    said += f", {max(session['workers'] for session in sessions)} at once."
    joules = [session["joules"] for session in sessions]
    if None in joules:
        return f"{said} Energy is not known: this machine does not show what its processor draws."
    return f"{said} The machine's processors drew {sum(joules) / 3600:,.1f} Wh meanwhile, other work included."


def classes(comparison: Comparison) -> Table:
    """Precision, recall and F1 of each class and strategy."""
    body = [
        [
            comparison.names[row.group],
            str(c["label"]),
            *[f"{c[name]:.3f}" for name in ("precision", "recall", "f1")],
            number(c["examples"]),
        ]
        for row in comparison.rows
        for c in comparison.classes[row.group]
    ]
    return ["strategy", "label", "precision", "recall", "F1", "examples"], body


def calibration(comparison: Comparison) -> Table:
    """How far probabilities can be taken at their word."""
    body = [
        [comparison.names[row.group], *[f"{x:.3f}" for x in (c.error, c.brier, c.temperature, c.scaled_error)]]
        for row in comparison.rows
        if comparison.errors and row.group in comparison.errors.joint
        for c in (comparison.calibration[row.group],)
    ]
    return ["strategy", "ECE", "Brier score", "temperature", "ECE with it"], body


def label_errors(comparison: Comparison) -> Table:
    """The test examples whose label the strategies together doubt most."""
    head = ["example", "label", "likely", "probability of label", "of likely", "text"]
    if comparison.errors is None:
        return head, []
    names, texts = comparison.label_names, comparison.texts
    body = [
        [
            number(found["example"]),
            names[int(found["label"])],
            names[int(found["likely"])],
            f"{found['label_probability']:.3f}",
            f"{found['likely_probability']:.3f}",
            cut(texts[int(found["example"])], _TEXT_LENGTH) if texts else "–",
        ]
        for found in comparison.errors.label_errors.head(_MOST_DOUBTED).to_dict("records")
    ]
    return head, body


def words(comparison: Comparison) -> Table:
    """Words that errors hold more often, or less, than right predictions; surest first."""
    head = ["word", "log-odds", "95 % interval", "false findings", "texts", "in errors"]
    if comparison.errors is None:
        return head, []
    body = [
        [
            str(found["word"]),
            f"{found['log_odds']:+.2f}",
            f"{found['low']:+.2f} to {found['high']:+.2f}",
            p_value(found["q"]),
            number(found["texts"]),
            f"{found['in_errors']:.1f}",
        ]
        for found in comparison.errors.words.head(_MOST_DOUBTED).to_dict("records")
    ]
    return head, body


def reported(comparison: Comparison) -> Table:
    """Published numbers beside the measured ones of the same strategy and metric."""
    body = []
    for found in comparison.study.get("reported", ()):
        row = _row_of(comparison, found)
        measured = row.scores.get(found["metric"]) if row else None
        body.append(
            [
                found["strategy"],
                found.get("model") or "–",
                spoken(found["metric"]),
                f"{found['score']:.3f}",
                "–" if measured is None else f"{measured:.3f}",
                "–" if measured is None else f"{measured - found['score']:+.3f}",
                found["source"],
                found["note"],
            ]
        )
    return ["strategy", "encoder", "metric", "reported", "measured", "difference", "source", "note"], body


def _row_of(comparison: Comparison, reported: dict[str, Any]) -> Row | None:
    """The row that a published number is about: of its label or name, and of its encoder if that is here."""
    rows = [r for r in comparison.rows if r.label == reported["strategy"]]
    rows = rows or [r for r in comparison.rows if r.strategy == reported["strategy"]]
    rows = [r for r in rows if r.model == reported.get("model")] or rows
    return rows[0] if len(rows) == 1 else None


def score(row: Row) -> str:
    """Mean, and standard deviation over seeds where there are several."""
    return f"{row.score:.3f}" + (f" ± {row.spread:.3f}" if row.spread is not None else "")


def difference(row: Row, is_best: bool) -> str:
    """The difference to the best with its interval, and whether they can be told apart."""
    if is_best:
        return "best"
    low, high = row.difference_interval
    return f"{row.difference:+.3f} ({low:+.3f} to {high:+.3f})" + (" tied" if row.is_tied else "")
