"""Compute: time by phase, throughput, use of the machine, and the cost of the whole study."""

import altair as alt
import pandas as pd

from tuneoff import formats
from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import Row
from tuneoff.costs import COSTS, Rates
from tuneoff.formats import join_names
from tuneoff.report.chart import COLOURS, WIDTH
from tuneoff.report.section import Block, Chart, Section, Text, figures_if_any, table_if_any
from tuneoff.report.steps import inference_blocks, step_blocks, step_chart
from tuneoff.tables import TEXT, Column, Table

_MUCH_WAITING = 0.1  # of a run's time


def section(comparison: Comparison) -> Section | None:
    """Return time and throughput of each strategy; None without a successful run."""
    if not comparison.rows:
        return None
    text = (
        f"Means over {comparison.repeat}s. "
        "Tokens and the outputs of frozen blocks are computed once and shared between runs; each row "
        "shows what they would cost a run on its own. Operations are those of training's matrix products; the last "
        "column compares their speed with that of the fastest matrix product on the same number of threads."
    )
    if waiting := _waiting(comparison):
        text += f" {waiting}"
    charts = {"compute": phase_chart(comparison), "steps": step_chart(comparison)}
    blocks: list[Block] = [Text(text), *figures_if_any(charts), *table_if_any(costs(comparison))]
    blocks += [*step_blocks(comparison), *inference_blocks(comparison)]
    return Section("compute", "Compute", [*blocks, Text(f"The whole study: {whole_study(comparison)}")])


def costs(comparison: Comparison) -> Table:
    """The costs that are not on the leaderboard, mean over seeds or folds."""
    keys = [k for k, cost in comparison.costs.items() if not (cost.is_choosable or cost.part or cost.is_inference)]
    columns = (Column("strategy", "strategy", TEXT), *[Column(k, COSTS[k].column, COSTS[k].format) for k in keys])
    rows = [[comparison.names[row.group], *[row.costs.get(key) for key in keys]] for row in _runs(comparison)]
    return Table("costs", columns, rows)


def phase_chart(comparison: Comparison) -> Chart:
    """Seconds of a run by phase, mean over seeds or folds."""
    phases = {key: cost.phase for key, cost in COSTS.items() if cost.phase}
    rows = pd.DataFrame(
        {
            "strategy": comparison.names[row.group],
            "phase": phase,
            "order": index,
            "seconds": round(row.costs.get(key, 0.0), 3),
        }
        for row in _runs(comparison)
        for index, (key, phase) in enumerate(phases.items())
    )
    names, order = list(phases.values()), [comparison.names[row.group] for row in _runs(comparison)]
    scale = alt.Scale(domain=names, range=list(COLOURS[: len(names)]))
    bars = alt.Chart(rows).mark_bar()
    bars = bars.encode(
        y=alt.Y("strategy:N", sort=order, title=None, axis=alt.Axis(labelLimit=260)),
        x=alt.X("seconds:Q", title=f"seconds of a run, mean over {comparison.repeat}s"),
        color=alt.Color("phase:N", title=None, sort=names, scale=scale),
        order=alt.Order("order:Q"),
        tooltip=["strategy", "phase", alt.Tooltip("seconds", format=",.1f")],
    )
    return bars.properties(width=WIDTH, height=alt.Step(22))


def _runs(comparison: Comparison) -> list[Row]:
    """Return the rows of runs: nothing was measured for predictions from files."""
    return [row for row in comparison.rows if not row.is_external]


def _waiting(comparison: Comparison) -> str:
    """Sentence on runs that waited for a processor; empty where none waited for long."""
    waited = {
        comparison.names[row.group]: row.costs.get("waited_seconds", 0.0) / row.costs["run_seconds"]
        for row in _runs(comparison)
        if row.costs.get("run_seconds")
    }
    longest = max(waited, key=waited.__getitem__, default="")
    if not longest or waited[longest] < _MUCH_WAITING:
        return ""
    return (
        f"Other work had the processors for up to {100 * waited[longest]:.0f} % of a run's time ({longest}): the times "
        "of training and of other phases are without it, that of the whole run has it."
    )


def whole_study(comparison: Comparison) -> str:
    """Return the time, and where known the energy, of all runs and searches in words."""
    final = [comparison.final] if comparison.final else []
    sessions, records = comparison.sessions, (*comparison.records, *comparison.subset_records, *final)
    total = formats.seconds(sum(record.costs.get("run_seconds", 0.0) for record in records))
    text = f"{formats.counted(len(records), 'run')} that took {total} in total"
    trials = [trial.seconds for record in comparison.searches for trial in record.trials]
    if trials:
        text += f" and {formats.counted(len(trials), 'trial')} that took {formats.seconds(sum(trials))}"
    if sum(session.runs for session in sessions) < len(records):
        return f"{text}."  # some sessions are not known
    elapsed, rates = sum(session.seconds for session in sessions), comparison.study.rates
    text += f", finished in {formats.seconds(elapsed)} with {max(session.workers for session in sessions)} at once."
    if rates.usd_per_hour is not None:
        text += f" That time costs {formats.money(elapsed / 3600 * rates.usd_per_hour)} USD."
    joules = [session.joules for session in sessions if session.joules is not None]
    gpu_joules = [session.gpu_joules for session in sessions if session.gpu_joules is not None]
    parts = {"processors": joules, "GPUs": gpu_joules}
    known = {part: sum(used) for part, used in parts.items() if used and len(used) == len(sessions)}
    if not known:
        return f"{text} The energy is unknown: this machine has no readable counters."
    used = join_names([f"{part} used {total / 3600:,.1f} Wh{_emitted(total, rates)}" for part, total in known.items()])
    return f"{text} The machine's {used} in that time, including other work."


def _emitted(joules: float, rates: Rates) -> str:
    """Return the CO2 of energy as a phrase; empty without the rate."""
    return "" if rates.grams_per_kwh is None else f" ({formats.grams(joules / 3.6e6 * rates.grams_per_kwh)} of CO2)"
