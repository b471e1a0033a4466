"""A Comparison -> index.html, report.md, tables and figures. Reads the Comparison, never a run folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vl_convert

from tuneoff import formats
from tuneoff.comparison.result import Comparison
from tuneoff.formats import Table
from tuneoff.report.charts import charts
from tuneoff.report.curves import curve_charts
from tuneoff.report.error_charts import error_charts
from tuneoff.report.page import page
from tuneoff.report.searches import said, search_charts
from tuneoff.report.slices import slice_charts, weakest
from tuneoff.report.tables import every_table, whole_study

_INK = "#222222"
# as the page shows charts; it adds the ink of light or dark itself
_ON_PAGE = {"background": "transparent", "font": "system-ui, sans-serif", "view": {"stroke": None}}
# as a column of a paper shows them: on white, letters that are still read when it is 8 cm wide
_ON_PAPER = {"background": "white", "font": "Helvetica, Arial, Liberation Sans, sans-serif", "view": {"stroke": None}}
_LEGEND = {"labelLimit": 300, "orient": "bottom"}
_PAPER_SIZES = {
    "axis": {
        "labelFontSize": 13,
        "titleFontSize": 14,
        "labelColor": _INK,
        "titleColor": _INK,
        "titleFontWeight": "normal",
    },
    "legend": {**_LEGEND, "labelFontSize": 13, "labelColor": _INK},
    "title": {"fontSize": 14, "color": _INK},
}
_SCALE = 2.5  # pixels of a PNG for one of the SVG: 300 dots an inch where a chart is 8 cm wide


def write_report(comparison: Comparison, folder: Path) -> None:
    """Write report/index.html, report.md, tables/ and figures/ into a study's folder."""
    tables = every_table(comparison)
    specs = {}
    if comparison.rows:
        made = {**charts(comparison), **curve_charts(comparison), **search_charts(comparison)}
        made |= error_charts(comparison) | slice_charts(comparison)
        specs = {name: _without_if(json.loads(chart.to_json(indent=None))) for name, chart in made.items()}
    on_page = {name: {**spec, "config": {**_ON_PAGE, "legend": _LEGEND}} for name, spec in specs.items()}
    html, text = page(comparison, tables, on_page), markdown(comparison, tables, specs)
    for name in ("report", "tables", "figures"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "report" / "index.html").write_text(html, encoding="utf-8")
    (folder / "report.md").write_text(text, encoding="utf-8")
    _write_tables(tables, comparison.name, folder / "tables")
    _write_figures(specs, folder / "figures")


def _without_if(spec: Any) -> Any:
    """A chart whose words or labels Vega does not take for its own "if": an invisible character follows that word.

    Vega 6 reads the string "if" in an order that is given as a list as the name of a function.
    """
    if isinstance(spec, dict):
        return {key: _without_if(value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_without_if(value) for value in spec]
    return "if\u2060" if spec == "if" else spec


def _write_tables(tables: Mapping[str, Table], study: str, folder: Path) -> None:
    for name, table in tables.items():
        if not table[1]:
            for suffix in ("csv", "md", "tex"):
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)
            continue
        formats.write_csv(table, folder / f"{name}.csv")
        (folder / f"{name}.md").write_text(formats.markdown(table) + "\n", encoding="utf-8")
        caption = f"{name.replace('-', ' ').capitalize()} of {study}"
        (folder / f"{name}.tex").write_text(formats.latex(table, caption), encoding="utf-8")


def _write_figures(specs: Mapping[str, Any], folder: Path) -> None:
    for old in [path for kind in ("confusion", "slice", "search") for path in folder.glob(f"{kind}-*.*")]:
        old.unlink()  # perhaps of what is compared no more
    for name, spec in specs.items():
        svg = vl_convert.vegalite_to_svg({**spec, "config": {**_ON_PAPER, **_PAPER_SIZES}})
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
        (folder / f"{name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=_SCALE))


def markdown(comparison: Comparison, tables: Mapping[str, Table], specs: Mapping[str, Any]) -> str:
    """The report for a code host: verdict, tables and the main figures. specs: charts by name."""
    text = formats.markdown_text

    def figures(*names: str) -> str:
        return " ".join(f"![{name.replace('-', ' ')}](figures/{name}.svg)" for name in names if name in specs)

    def table(name: str) -> str:
        return formats.markdown(tables[name]) if tables[name][1] else ""

    def part(title: str, *blocks: str) -> list[str]:
        return [f"## {title}", *blocks] if any(blocks) else []

    parts = [f"# {text(comparison.name)}"]
    if comparison.verdict:
        parts += [f"**{text(comparison.verdict.text)}**", table("leaderboard")]
        parts += [figures("scores", f"cost-{comparison.verdict.cost}")]
    else:
        parts += ["No run succeeded."]
    if comparison.failures:
        lines = [f"- {text(f.label)}, seed {f.seed}: {f.status} – {text(f.reason)}" for f in comparison.failures]
        parts += part("Runs that did not finish", "\n".join(lines))
    if comparison.pairs:
        parts += part("Every two strategies", "p after Holm's correction over all pairs.", table("pairs"))
    notes = [*comparison.data["notes"], *comparison.data["findings"]]
    parts += part("Data", table("data"), "\n".join(f"- {text(note)}" for note in notes), table("lengths"))
    if comparison.rows:
        parts += part("Every metric", table("metrics"))
        if comparison.curve:
            parts += part("Learning curves", text(comparison.advice), figures("learning-curve"), table("curves"))
        found = [figures(*[name for name in specs if name.startswith("search-")]), table("searches")]
        parts += part("Search", text(said(comparison)), *found)
        parts += part("Training", figures("validation", "loss"), table("parameters"))
        parts += part("Classes", figures("f1"), figures(*[name for name in specs if name.startswith("confusion-")]))
        parts += part("Where they fail", figures("errors-true", "errors-predicted"), figures("errors-length", "words"))
        sliced = figures(*[name for name in specs if name.startswith("slice-")])
        parts += part("Slices", text(weakest(comparison)), sliced, table("slices"))
        parts += part("Calibration", figures("reliability"), table("calibration"))
        parts += part("Compute", figures("compute"), table("costs"), f"The whole study: {whole_study(comparison)}")
        parts += part("Reported elsewhere", table("reported"))
    parts += part("How it was run", _how(comparison))
    return "\n\n".join(part for part in parts if part) + "\n"


def _how(comparison: Comparison) -> str:
    lines = [
        f"- Data fingerprint: `{comparison.data['fingerprint']}`",
        "- The study, every default written out: `study.yaml`",
    ]
    if comparison.records:
        found = comparison.records[0]
        versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
        lines += [f"- {found.machine.get('processor')}, {found.machine.get('cores')} cores; {versions}"]
    return "\n".join(map(str, lines))
