"""Report of several datasets: mean ranks, scores by dataset, and the studies behind them."""

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd

from tuneoff.comparison.overview import Overview, OverviewRow
from tuneoff.files import write_json
from tuneoff.formats import counted, fixed, join_names
from tuneoff.report.chart import COLOURS, MAX_STRATEGIES, WIDTH, score_axis
from tuneoff.report.section import Block, Chart, Section, TableBlock, Text, figures_if_any
from tuneoff.report.write import write_sections
from tuneoff.scoring.metrics import display_name
from tuneoff.tables import COUNT, ESTIMATE, P_VALUE, SHARE, SIGNED_ESTIMATE, TEXT, Column, Format, Table, csv_key

# names of datasets that would be those of the report's own files and folders
RESERVED = ("report", "tables", "figures", "overview", "runs", "searches", "tests", "predictions", "damaged")
_RANK = Format(lambda e: f"{fixed(e[0], 2)} ({fixed(e[1], 2)} to {fixed(e[2], 2)})", ("", "_low", "_high"))


def write_overview(overview: Overview, folder: Path) -> None:
    """Write overview.json, report/index.html, report.md, tables/ and figures/ into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "overview.json", overview.to_json())
    names = join_names([dataset.name for dataset in overview.datasets])
    write_sections(overview.name, f"{counted(len(overview.datasets), 'dataset')}: {names}", parts(overview), folder)


def parts(overview: Overview) -> list[Section]:
    """Return the sections of an overview."""
    return [_ranks_section(overview), _scores_section(overview), _datasets_section(overview)]


def _ranks_section(overview: Overview) -> Section:
    metric = display_name(overview.metric)
    blocks: list[Block] = [Text(" ".join(overview.summary), is_key=True)]
    if len(overview.ranked) > 1:
        text = (
            f"Mean rank by test {metric} over the datasets, 1 is best, of the strategies that every dataset has and "
            "that use the text. Its 95 % interval, and that of the mean difference to the best of each dataset, are "
            "over the test examples and seeds of these datasets, and say nothing about others. The p value takes each "
            "dataset as one observation: Nemenyi's test that a strategy has the same expected rank as the first "
            "(Demsar, JMLR 2006), corrected for all pairs. It is an approximation; Friedman's test, by permutation, in "
            "the sentences above comes first."
        )
        if overview.critical_difference is not None:
            text += f" Mean ranks that differ by {fixed(overview.critical_difference, 2)} or more differ significantly."
        blocks += [Text(text), *figures_if_any({"ranks": rank_chart(overview)}), TableBlock(rank_table(overview))]
    return Section("ranks", "Ranks over the datasets", blocks, menu="Ranks")


def _scores_section(overview: Overview) -> Section:
    text = (
        f"Test {display_name(overview.metric)} of every strategy on each dataset, with 95 % confidence intervals over "
        "test examples and seeds."
    )
    left_out = [row.name for row in overview.rows if row.mean_rank is None and len(row.scores) < len(overview.datasets)]
    if left_out:
        text += f" Not every dataset has {join_names(left_out)}, so that they have no mean rank."
    blocks = [Text(text), *figures_if_any({"scores": score_chart(overview)}), TableBlock(score_table(overview))]
    return Section("scores", "Scores by dataset", blocks, menu="Scores")


def _datasets_section(overview: Overview) -> Section:
    columns = (
        Column("dataset", "dataset", TEXT),
        Column("examples", "scored examples", COUNT),
        Column("classes", "classes", COUNT),
        Column("best", "best measured", TEXT),
        Column("pick", "its verdict picks", TEXT),
        Column("folder", "study", TEXT),
    )
    rows = [[d.name, d.examples, d.num_labels, d.best, d.pick, d.folder] for d in overview.datasets]
    text = "Each dataset is a study of its own, with its own report (report/index.html in its folder)."
    return Section("datasets", "Datasets", [Text(text), TableBlock(Table("datasets", columns, rows))])


def rank_table(overview: Overview) -> Table:
    """Mean ranks, with the mean difference to the best of each dataset."""
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("mean_rank", "mean rank", _RANK),
        Column("num_best", "datasets where best", COUNT),
        Column("mean_difference", "mean difference to the best", SIGNED_ESTIMATE),
        Column("share_best", "ranks best in draws", SHARE),
        Column("p_value", "p against the first", P_VALUE),
    )
    rows = [
        [
            row.name,
            (row.mean_rank, *row.rank_interval),
            row.num_best,
            row.mean_difference,
            row.share_best,
            row.p_value if number else None,
        ]
        for number, row in enumerate(overview.ranked)
    ]
    return Table("ranks", columns, rows)


def score_table(overview: Overview) -> Table:
    """Scores of each strategy (rows) on each dataset (columns)."""
    names = [dataset.name for dataset in overview.datasets]
    columns = [Column(f"score_{csv_key(name)}", name, ESTIMATE) for name in names]
    rows = [[row.name, *[row.scores.get(name) for name in names]] for row in overview.rows]
    return Table("scores", (Column("strategy", "strategy", TEXT), *columns), rows)


def rank_chart(overview: Overview) -> Chart | None:
    """Mean ranks with their intervals, best first."""
    rows = pd.DataFrame(
        {
            "strategy": row.name,
            "rank": round(row.mean_rank or 0.0, 3),
            "low": round(row.rank_interval[0], 3),
            "high": round(row.rank_interval[1], 3),
        }
        for row in _charted(overview)
    )
    numbers = [alt.Tooltip(name, format=".2f") for name in ("rank", "low", "high")]
    base = alt.Chart(rows).encode(
        y=alt.Y("strategy:N", sort=list(rows["strategy"]), title=None, axis=alt.Axis(labelLimit=220)),
        tooltip=[alt.Tooltip("strategy"), *numbers],
    )
    axis = alt.Axis(tickCount=6)
    low = alt.X("low:Q", title="mean rank, 95 % interval", scale=alt.Scale(zero=False, nice=True), axis=axis)
    intervals = base.mark_rule(strokeWidth=2, color=COLOURS[0]).encode(x=low, x2="high:Q")
    dots = base.mark_circle(size=70, opacity=1, color=COLOURS[0]).encode(x="rank:Q")
    return (intervals + dots).properties(width=WIDTH, height=alt.Step(24))


def score_chart(overview: Overview) -> Chart | None:
    """Scores on each dataset, one dot per strategy."""
    charted = _charted(overview)
    names = [row.name for row in charted]
    rows = pd.DataFrame(
        {
            "dataset": name,
            "strategy": row.name,
            **dict(zip(("score", "low", "high"), map(_rounded, scores), strict=True)),
        }
        for row in charted
        for name, scores in row.scores.items()
    )
    scale = alt.Scale(domain=names, range=[COLOURS[index % len(COLOURS)] for index in range(len(names))])
    datasets = [dataset.name for dataset in overview.datasets]
    base = alt.Chart(rows).encode(
        y=alt.Y("dataset:N", sort=datasets, title=None, axis=alt.Axis(labelLimit=180)),
        yOffset=alt.YOffset("strategy:N", sort=names),
        color=alt.Color("strategy:N", title=None, scale=scale, legend=alt.Legend(columns=4, symbolLimit=0)),
        tooltip=["dataset", "strategy", *[alt.Tooltip(name, format=".3f") for name in ("score", "low", "high")]],
    )
    axis = score_axis(f"test {display_name(overview.metric)}, 95 % interval")
    intervals = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", axis=alt.Axis(tickCount=6), **axis), x2="high:Q")
    dots = base.mark_circle(size=50, opacity=1).encode(x="score:Q")
    return (intervals + dots).properties(width=WIDTH, height=alt.Step(11))


def _rounded(value: float) -> float:
    return round(value, 4)


def _charted(overview: Overview) -> Sequence[OverviewRow]:
    return overview.ranked[:MAX_STRATEGIES]
