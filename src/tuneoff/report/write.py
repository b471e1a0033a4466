"""Write a report: page, Markdown, LaTeX, tables and figures. Reads a Comparison, never a run folder."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import vl_convert

from tuneoff import tables
from tuneoff.comparison.result import Comparison
from tuneoff.data.describe import DataDescription
from tuneoff.data.spec import TruncationPolicy
from tuneoff.files import read_json, write_bytes, write_json, write_text
from tuneoff.formats import markdown_text
from tuneoff.report.page import page
from tuneoff.report.paper import paper
from tuneoff.report.section import Block, Bullets, Chart, Details, Figures, Heading, Section, TableBlock, Text
from tuneoff.report.sections import sections
from tuneoff.report.sections.data import data_sections
from tuneoff.tables import Table

_INK = "#222222"
# charts on the page, which adds the ink of its light or dark scheme
_ON_PAGE = {"background": "transparent", "font": "system-ui, sans-serif", "view": {"stroke": None}}
# charts in a paper's column: white, with letters that are still readable at a width of 8 cm
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
# names of the tables and figures that the last report wrote, so that the next one removes no file of the user
_WRITTEN = "report/written.json"
_WRITTEN_NAME = re.compile(r"(tables/[^/\\]+\.(csv|md|tex)|figures/[^/\\]+\.(svg|png))")
# figures of reports without such a list, by an earlier version: those whose names depend on the study
_FORMER_FIGURES = ("confusion-*", "slice-*", "search-*")
_SCALE = 2.5  # pixels of a PNG per pixel of the SVG: 300 dots per inch where a chart is 8 cm wide


def write_report(comparison: Comparison, folder: Path) -> None:
    """Write report/index.html, report/report.tex, report.md, tables/ and figures/ into a study's folder."""
    encoders = ", ".join(dict.fromkeys(comparison.study.model))
    summary = f"{_summary(comparison.data)} · {encoders}"
    abstract = " ".join(comparison.verdict.summary) if comparison.verdict else "No run succeeded."
    write_sections(comparison.name, summary, sections(comparison), folder, abstract)


def write_sections(title: str, summary: str, parts: Sequence[Section], folder: Path, abstract: str = "") -> None:
    """Write sections as a page, Markdown, LaTeX, tables and figures. summary: a line under the title."""
    charts = {name: chart for section in parts for name, chart in section.charts()}
    specs, on_page = _specs(charts)
    figures = {name: _svg(spec) for name, spec in specs.items()}
    sizes = _sizes(figures)
    html = page(title, summary, parts, on_page, sizes)
    text = markdown(title, parts)
    written_paper = paper(title, abstract, parts, sizes)
    for name in ("report", "tables", "figures"):
        (folder / name).mkdir(exist_ok=True)
    _write(folder / "report" / "index.html", html)
    _write(folder / "report" / "report.tex", written_paper)
    _write(folder / "report.md", text)
    tables_to_write = [table for section in parts for table in section.tables()]
    names = [f"tables/{table.name}.{suffix}" for table in tables_to_write for suffix in ("csv", "md", "tex")]
    names += [f"figures/{name}.{suffix}" for name in specs for suffix in ("svg", "png")]
    _remove_old_files(folder, set(names))
    write_json(folder / _WRITTEN, names)
    _write_tables(tables_to_write, title, folder / "tables")
    _write_figures(figures, folder / "figures")


def write_data_page(data: DataDescription, truncation: TruncationPolicy, path: Path) -> None:
    """Write a page with the description of a dataset and nothing else."""
    parts = data_sections(data, truncation)
    specs, on_page = _specs({name: chart for section in parts for name, chart in section.charts()})
    sizes = _sizes({name: _svg(spec) for name, spec in specs.items()})
    _write(path, page(data.name, _summary(data), parts, on_page, sizes))


def _write(path: Path, text: str) -> None:
    """Write a file of a report, which can be made again."""
    write_text(path, text, is_synced=False)


def _summary(data: DataDescription) -> str:
    """Return name, classes and split sizes of a dataset in one line."""
    sizes = ", ".join(f"{split.examples:,} {name}" for name, split in data.splits.items())
    return f"{data.name} · {len(data.label_names)} classes · {sizes}"


def _specs(charts: Mapping[str, Chart]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the Vega-Lite specifications of charts, plain and as the page shows them."""
    # not validated: tests validate every chart, and for each report that takes longer than to draw them
    specs = {name: _escape_if(json.loads(chart.to_json(indent=None, validate=False))) for name, chart in charts.items()}
    return specs, {name: {**spec, "config": {**_ON_PAGE, "legend": _LEGEND}} for name, spec in specs.items()}


def _escape_if(spec: Any) -> Any:
    """Put an invisible character after every string "if".

    Vega 6 reads that string, in an order given as a list, as the name of a function.
    """
    if isinstance(spec, dict):
        return {key: _escape_if(value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_escape_if(value) for value in spec]
    return "if\u2060" if spec == "if" else spec


def _remove_old_files(folder: Path, names: set[str]) -> None:
    """Remove the tables and figures that the last report wrote and this one does not. names: of this one's files."""
    if (folder / _WRITTEN).exists():
        written = [name for name in read_json(folder / _WRITTEN) if _WRITTEN_NAME.fullmatch(name)]
    else:
        former = [path for pattern in _FORMER_FIGURES for path in (folder / "figures").glob(pattern)]
        written = [f"figures/{path.name}" for path in former if path.suffix in (".svg", ".png")]
    for name in set(written) - names:
        (folder / name).unlink(missing_ok=True)


def _write_tables(written: Sequence[Table], study: str, folder: Path) -> None:
    for table in written:
        tables.write_csv(table, folder / f"{table.name}.csv")
        _write(folder / f"{table.name}.md", tables.markdown(table) + "\n")
        caption = f"{table.name.replace('-', ' ').capitalize()} of {study}"
        _write(folder / f"{table.name}.tex", tables.latex(table, caption))


def _svg(spec: Any) -> str:
    return vl_convert.vegalite_to_svg({**spec, "config": {**_ON_PAPER, **_PAPER_SIZES}})


def _sizes(figures: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Return the width and height of each SVG in pixels; the page's charts, with smaller letters, are a little less."""
    ends = {name: re.search(r'<svg[^>]* width="([0-9.]+)" height="([0-9.]+)"', svg) for name, svg in figures.items()}
    return {name: (round(float(match[1])), round(float(match[2]))) for name, match in ends.items() if match}


def _write_figures(figures: Mapping[str, str], folder: Path) -> None:
    for name, svg in figures.items():
        _write(folder / f"{name}.svg", svg)
        write_bytes(folder / f"{name}.png", vl_convert.svg_to_png(svg, scale=_SCALE), is_synced=False)


def markdown(name: str, parts: Sequence[Section]) -> str:
    """Return the report as Markdown for a code host; charts are links to figures/."""
    lines = [f"# {markdown_text(name)}"]
    for section in parts:
        lines += [f"## {section.heading}", *_markdown_blocks(section.blocks)]
    return "\n\n".join(lines) + "\n"


def _markdown_blocks(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Text(is_page_only=True) | TableBlock(is_page_only=True):
                pass
            case Text():
                yield f"**{markdown_text(block.text)}**" if block.is_key else markdown_text(block.text)
            case Heading():
                yield f"### {markdown_text(block.text)}"
            case Bullets():
                yield "\n".join(f"- {markdown_text(item)}" for item in block.items)
            case TableBlock():
                yield tables.markdown(block.table)
            case Figures():
                names = [*block.charts, *([block.menu.selected] if block.menu else [])]
                yield " ".join(map(_figure, names))
                if block.table:
                    yield tables.markdown(block.table)
            case Details() if inner := list(_markdown_blocks(block.blocks)):
                yield f"<details><summary>{markdown_text(block.summary)}</summary>"
                yield from inner
                yield "</details>"
            case _:
                pass  # on the page only


def _figure(name: str) -> str:
    return f"![{name.replace('-', ' ')}](figures/{name}.svg)"
