"""Race: how the time was spent, why each strategy stopped, and what the time limit left out."""

from typing import Any

import altair as alt
import pandas as pd

from tuneoff.comparison.notes import unfinished_note
from tuneoff.comparison.result import Comparison
from tuneoff.formats import chance_text, counted, rough_seconds
from tuneoff.report.chart import COLOURS, WIDTH
from tuneoff.report.section import Block, Bullets, Chart, Section, Text, details_if_any, figures_if_any, table_if_any
from tuneoff.scoring.metrics import display_name
from tuneoff.search.race_record import COMPLETE, DECIDED, REPEAT, STOPPED, TIME, LeftOut, RaceRecord, Standing
from tuneoff.tables import COUNT, SCORE, SECONDS, SHARE, TEXT, Column, Format, Table

_CHANCE = Format(chance_text)
_ENDS = {
    DECIDED: "It ended because the pick was decided.",
    COMPLETE: "It ended when every run that it asked for had ended.",
    TIME: "It ended at the time limit.",
    "": "It has not ended.",
}


def section(comparison: Comparison) -> Section | None:
    """Return the race of the study's strategies; None for a study that ran its whole grid."""
    race = comparison.race
    if race is None:
        return None
    blocks: list[Block] = [Text(_summary(comparison, race), is_key=True), Text(_method(comparison, race))]
    blocks += [*table_if_any(strategies(comparison, race)), Bullets(reasons(comparison, race))]
    charts = {"race-time": time_chart(comparison, race), "race-chances": chance_chart(comparison, race)}
    blocks += [*figures_if_any(charts), *table_if_any(left_out(comparison, race))]
    blocks += details_if_any("Every decision", *table_if_any(decisions(comparison, race), is_tall=True))
    return Section("race", "How the time was spent, and why each strategy stopped", blocks, menu="Race")


def _summary(comparison: Comparison, race: RaceRecord) -> str:
    num_missing, num_planned = comparison.missing_runs
    parts = [
        f"The strategies raced: {num_planned - num_missing} of {counted(num_planned, 'run')} of the grid ran, in "
        f"{rough_seconds(race.seconds)}",
        _ENDS.get(race.ended, ""),
    ]
    limit = f" of at most {rough_seconds(race.time)}" if race.time else ""
    return " ".join(filter(None, [f"{parts[0]}{limit}.", parts[1], unfinished_note(comparison)]))


def _method(comparison: Comparison, race: RaceRecord) -> str:
    noun = "fold" if comparison.data.folds else "seed"
    text = (
        f"After each {noun} a strategy stopped whose chance to be picked by the verdict's rule once every run has "
        "ended was below 2 %; after trials of the search, one whose chance to come within the margin of the best on "
        f"validation was below 2 %. Because test scores are looked at up to {race.num_looks} times, intervals, tests "
        f"and limits are at an error rate of 0.05 / {race.num_looks}, so that they hold at all looks together "
        "(repeated confidence intervals, Jennison and Turnbull 1989, with Bonferroni's split)."
    )
    if race.trials == 0:
        text += " There was no time for searches: every strategy ran with its default options."
    elif race.trials:
        text += f" There was time for {counted(race.trials, 'trial')} of each search."
    return text


def strategies(comparison: Comparison, race: RaceRecord) -> Table:
    """The last decision about each strategy, and the time that it took."""
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("runs", "runs", COUNT),
        Column("seconds", "time", SECONDS),
        Column("state", "state", TEXT),
        Column("chance", "chance to be picked", _CHANCE),
    )
    rows = [row[:-1] for row in _last_decisions(comparison, race)]
    return Table("race", columns, rows)


def reasons(comparison: Comparison, race: RaceRecord) -> list[str]:
    """Return why each strategy stopped or goes on, in words."""
    return [f"{name}: {reason}." for name, *_, reason in _last_decisions(comparison, race) if reason]


def _last_decisions(comparison: Comparison, race: RaceRecord) -> list[list[Any]]:
    """Return name, runs, seconds, state, chance and reason of each strategy, the most likely pick first."""
    seconds = _seconds(comparison)
    last: dict[tuple[str, str | None], Standing] = {}
    for entry in race.rounds:
        last |= {(s.label, s.model): s for s in entry.standings}
    left: dict[tuple[str, str | None], LeftOut] = {
        (entry.label, entry.model): entry for entry in race.left_out if entry.kind == REPEAT
    }
    keys = dict.fromkeys([*last, *left, *seconds])
    order = sorted(keys, key=lambda key: -((last[key].chance or 0.0) if key in last and last[key].runs else -1.0))
    rows = []
    for key in order:
        standing, runs = last.get(key), sum((r.label, r.model) == key for r in comparison.stored_runs)
        state, reason = (standing.state, standing.reason) if standing else ("", "")
        if key in left and state != STOPPED:
            state, reason = "left out", "; ".join(filter(None, [f"no time for {_names(left[key])}", reason]))
        chance = standing.chance if standing and standing.runs else None
        rows.append([_name(comparison, key), runs, sum(seconds.get(key, {}).values()), state, chance, reason])
    return rows


def left_out(comparison: Comparison, race: RaceRecord) -> Table:
    """Runs and trials that did not fit into the time."""
    columns = (Column("strategy", "left out", TEXT), Column("jobs", "jobs", TEXT), Column("seconds", "about", SECONDS))
    rows = [[_name(comparison, (e.label, e.model)), _names(e), e.seconds] for e in race.left_out]
    return Table("race_left_out", columns, rows)


def decisions(comparison: Comparison, race: RaceRecord) -> Table:
    """Every decision of every round."""
    columns = (
        Column("round", "after", TEXT),
        Column("strategy", "strategy", TEXT),
        Column("score", f"{display_name(comparison.metric)} so far", SCORE),
        Column("expected_loss", "expected loss", SCORE),
        Column("chance", "chance", SHARE),
        Column("state", "state", TEXT),
        Column("reason", "reason", TEXT),
    )
    rows = [
        [entry.name, _name(comparison, (s.label, s.model)), s.score, s.expected_loss, s.chance, s.state, s.reason]
        for entry in race.rounds
        for s in entry.standings
    ]
    return Table("race_decisions", columns, rows)


def time_chart(comparison: Comparison, race: RaceRecord) -> Chart | None:
    """Bars of the time of searches and runs for each strategy."""
    kinds = {"search": "search", "runs": "runs"}
    rows = pd.DataFrame(
        {"strategy": _name(comparison, key), "part": kinds[kind], "seconds": round(value, 2)}
        for key, parts in _seconds(comparison).items()
        for kind, value in parts.items()
    )
    if rows.empty:
        return None
    totals = rows.groupby("strategy")["seconds"].sum().sort_values(ascending=False)
    scale = alt.Scale(domain=list(kinds.values()), range=list(COLOURS[:2]))
    bars = alt.Chart(rows).mark_bar()
    bars = bars.encode(
        y=alt.Y("strategy:N", sort=list(totals.index), title=None, axis=alt.Axis(labelLimit=220)),
        x=alt.X("sum(seconds):Q", title="seconds of jobs"),
        color=alt.Color("part:N", title=None, scale=scale),
        tooltip=["strategy", "part", alt.Tooltip("sum(seconds)", title="seconds", format=",.1f")],
    )
    return bars.properties(width=WIDTH, height=alt.Step(22))


def chance_chart(comparison: Comparison, race: RaceRecord) -> Chart | None:
    """Chance of each strategy to be picked, after each seed or fold."""
    rounds = [entry for entry in race.rounds if entry.kind == REPEAT]
    rows = pd.DataFrame(
        {"after": entry.name, "strategy": _name(comparison, (s.label, s.model)), "chance": round(s.chance or 0.0, 4)}
        for entry in rounds
        for s in entry.standings
        if s.chance
    )
    if len(rounds) < 2 or rows.empty:
        return None
    names = list(dict.fromkeys(rows["strategy"]))[: len(COLOURS)]
    scale = alt.Scale(domain=names, range=list(COLOURS[: len(names)]))
    lines = alt.Chart(rows[rows["strategy"].isin(names)]).mark_line(point=True)
    lines = lines.encode(
        x=alt.X("after:N", sort=[entry.name for entry in rounds], title=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("chance:Q", title="chance to be picked", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("strategy:N", title=None, scale=scale, legend=alt.Legend(columns=4, symbolLimit=0)),
        tooltip=["strategy", "after", alt.Tooltip("chance", format=".1%")],
    )
    return lines.properties(width=WIDTH)


def _seconds(comparison: Comparison) -> dict[tuple[str, str | None], dict[str, float]]:
    """Return the seconds of the search and of the runs of each strategy."""
    spent: dict[tuple[str, str | None], dict[str, float]] = {}
    for search in comparison.searches:
        spent.setdefault((search.label, search.model), {})["search"] = search.seconds
    for record in comparison.stored_runs:
        parts = spent.setdefault((record.label, record.model), {})
        parts["runs"] = parts.get("runs", 0.0) + record.costs.get("run_seconds", 0.0)
    return spent


def _names(entry: LeftOut) -> str:
    return ", ".join(entry.names)


def _name(comparison: Comparison, key: tuple[str, str | None]) -> str:
    label, model = key
    encoders = comparison.study_encoders
    return f"{label} on {encoders[model]}" if model and len(encoders) > 1 else label
