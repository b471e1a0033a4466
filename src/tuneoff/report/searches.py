"""What was searched, in a sentence, tables and charts."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.formats import Table, number, seconds
from tuneoff.metrics import spoken
from tuneoff.report.charts import HEIGHT, INK, WIDTH, by_strategy, shown
from tuneoff.search import CUT, DONE, FAILED, SearchRecord
from tuneoff.strategies.base import short

_STATES = {"done": "to the end", "stopped": "stopped early", "cut": "cut at the end of the time", "failed": "failed"}


def said(comparison: Comparison) -> str:
    """What was searched, or that nothing was."""
    asked = comparison.study.get("search")
    if not asked:
        return "Nothing was searched: every strategy ran with the options that the study gives it, or its defaults."
    each = f"{asked['trials']} trials" if asked["trials"] else f"{seconds(asked['budget'])} of trials"
    text = f"Before the runs every strategy had {each} of its own, judged on validation alone, "
    text += f"with seed {comparison.study['seeds'][0]}; the first trial is the strategy as it is, where the space "
    text += "holds that (a probe: the middle of its C). The best one's options made the runs."
    if asked["halving"]:
        text += " A trial was stopped when, after 1, 2, 4, ... epochs, it was not in the better half of those so far."
    if any(trial.state in (CUT, FAILED) for found in comparison.searches for trial in found.trials):
        text += " Trials that failed, or that the end of the time cut short, count too."
    names = set(comparison.names.values()) - {name(comparison, found) for found in comparison.searches}
    return text + (f" Nothing was searched of {', '.join(sorted(names))}." if names else "")


def name(comparison: Comparison, found: SearchRecord) -> str:
    """What the strategy of a search is called in the comparison."""
    rows = [row for row in comparison.rows if (row.label, row.model) == (found.label, found.model)]
    called = comparison.names[rows[0].group] if rows else found.label
    return f"{called} on {found.part}" if found.part else called


def searches(comparison: Comparison) -> Table:
    """What was searched of each strategy, and what was found."""
    head = ["strategy", "searched", "trials", "to the end", "took", "first score", "best score", "chosen"]
    body = []
    for found in comparison.searches:
        best, first = found.best, found.trials[0].score if found.trials else None
        body.append(
            [
                name(comparison, found),
                "; ".join(f"{spoken(option)} {_space(values)}" for option, values in found.space.items()),
                number(len(found.trials)),
                number(sum(trial.state == DONE for trial in found.trials)),
                seconds(sum(trial.seconds for trial in found.trials)),
                _score(first),
                _score(best.score if best else None),
                _options(best.options) if best else "its own: every trial failed",
            ]
        )
    return head, body


def trials(comparison: Comparison) -> Table:
    """Every trial."""
    body = [
        [
            name(comparison, found),
            number(index + 1),
            _options(trial.options),
            " ".join(f"{score:.3f}" for score in trial.scores) or "–",
            _score(trial.score),
            _STATES[trial.state],
            seconds(trial.seconds),
        ]
        for found in comparison.searches
        for index, trial in enumerate(found.trials)
    ]
    score = comparison.searches[0].metric if comparison.searches else comparison.metric
    return ["strategy", "trial", "options", "by epoch", f"validation {spoken(score)}", "went", "took"], body


def search_charts(comparison: Comparison) -> dict[str, Any]:
    """For each option that is a number and was searched: validation's score against it, a line a strategy."""
    names, rows = {comparison.names[row.group] for row in shown(comparison)}, []
    for found in comparison.searches:
        for trial in found.trials if name(comparison, found) in names else ():
            for option, value in trial.options.items():
                if trial.score is not None and isinstance(value, (int, float)) and value > 0:
                    score = {"score": round(trial.score, 4), "went": _STATES[trial.state]}
                    rows.append({"strategy": name(comparison, found), "option": option, "value": value, **score})
    points = pd.DataFrame(rows)
    return {f"search-{option}": _chart(comparison, option, part) for option, part in _parts(points).items()}


def _parts(points: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    return {str(option): part for option, part in points.groupby("option", sort=False)} if len(points) else {}


def _chart(comparison: Comparison, option: str, points: pd.DataFrame) -> Any:
    value, score = alt.Tooltip("value", title=spoken(option), format=".3~g"), alt.Tooltip("score", format=".3f")
    base = alt.Chart(points).encode(
        x=alt.X(
            "value:Q",
            title=f"{spoken(option)} (log scale)",
            scale=alt.Scale(type="log", nice=True),
            axis=alt.Axis(tickCount=5, format=".2~g", grid=False),
        ),
        y=alt.Y("score:Q", title=f"validation {spoken(comparison.searches[0].metric)}", scale=alt.Scale(zero=False)),
        color=by_strategy(comparison),
        tooltip=[alt.Tooltip("strategy"), value, score, alt.Tooltip("went")],
    )
    shapes = alt.Shape(
        "went:N",
        title=None,
        scale=alt.Scale(domain=list(_STATES.values())[:3], range=["circle", "cross", "square"]),
        legend=alt.Legend(orient="top", symbolFillColor=INK, symbolStrokeColor=INK),
    )
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(shape=shapes)
    return (base.mark_line(opacity=0.5) + dots).properties(width=WIDTH, height=HEIGHT)


def _space(values: Any) -> str:
    if isinstance(values, dict):
        return f"{values['low']:.3g} to {values['high']:.3g}{' (log)' if values['log'] else ''}"
    return ", ".join(short(value) for value in values)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{spoken(option)} {short(value)}" for option, value in options.items()) or "–"


def _score(score: float | None) -> str:
    return "–" if score is None else f"{score:.3f}"
