"""What stands in the tables of a comparison."""

from pathlib import Path

from tuneoff.comparison.result import Comparison, Row
from tuneoff.formats import Table, number, seconds, size


def leaderboard(comparison: Comparison) -> Table:
    """Strategies, best first, with intervals, differences to the best, and costs."""
    several = len({row.model for row in comparison.rows if row.model}) > 1
    head = [
        "strategy",
        *(["encoder"] if several else []),
        comparison.metric.replace("_", " "),
        "95 % interval",
        "difference to best",
        "seeds",
        "trainable",
        "training",
        "memory",
        "model",
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
                str(len(row.seeds)),
                number(row.parameters.get("trainable")),
                seconds(row.costs.get("train_seconds")),
                size(row.costs.get("peak_bytes")),
                size(row.costs.get("model_bytes")),
            ]
        )
    return head, body


def short_leaderboard(comparison: Comparison) -> Table:
    """The leaderboard in the width of a plain terminal."""
    several = len({row.model for row in comparison.rows if row.model}) > 1
    body = []
    for index, row in enumerate(comparison.rows):
        name = f"{row.label} {Path(row.model).name}" if several and row.model else row.label
        least, most = -row.difference_interval[1], -row.difference_interval[0]
        gap = "tied" if row.is_tied else f"{-row.difference:.3f}"
        gap = "best" if index == 0 else f"{gap} ({least:.3f}..{most:.3f})"
        low, high = row.interval
        body.append([name, f"{row.score:.3f} ({low:.3f}..{high:.3f})", gap, seconds(row.costs.get("train_seconds"))])
    return ["strategy", comparison.metric.replace("_", " "), "behind the best", "training"], body


def metrics(comparison: Comparison) -> Table:
    """Every metric on test, mean over seeds."""
    names = list(comparison.rows[0].scores) if comparison.rows else []
    body = [[comparison.names[row.group], *[f"{row.scores[name]:.3f}" for name in names]] for row in comparison.rows]
    return ["strategy", *[name.replace("_", " ") for name in names]], body


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
    """What each strategy trains and adds."""
    body = []
    for row in comparison.rows:
        if row.parameters:
            counts = [row.parameters[name] for name in ("trainable", "added", "head", "total")]
            body.append(
                [comparison.names[row.group], *map(number, counts), f"{100 * counts[0] / max(1, counts[3]):.3f} %"]
            )
    return ["strategy", "trainable", "added", "head", "total", "trainable share"], body


def costs(comparison: Comparison) -> Table:
    """Seconds by phase, memory, size and speed, mean over seeds."""
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
                size(found.get("model_bytes")),
                number(found.get("examples_per_second")),
                number(found.get("tokens_per_second")),
            ]
        )
    head = [
        "encode",
        "frozen blocks",
        "train",
        "evaluate",
        "whole run",
        "peak memory",
        "model",
        "examples/s",
        "tokens/s",
    ]
    return ["strategy", *head], body


def per_class(comparison: Comparison, group: str) -> Table:
    """Precision, recall and F1 of each class."""
    body = [
        [str(c["label"]), *[f"{c[name]:.3f}" for name in ("precision", "recall", "f1")], number(c["examples"])]
        for c in comparison.classes[group]
    ]
    return ["label", "precision", "recall", "F1", "examples"], body


def score(row: Row) -> str:
    """Mean, and standard deviation over seeds where there are several."""
    return f"{row.score:.3f}" + (f" ± {row.spread:.3f}" if row.spread is not None else "")


def difference(row: Row, is_best: bool) -> str:
    """The difference to the best with its interval, and whether they can be told apart."""
    if is_best:
        return "best"
    low, high = row.difference_interval
    return f"{row.difference:+.3f} ({low:+.3f} to {high:+.3f})" + (" tied" if row.is_tied else "")
