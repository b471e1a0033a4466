"""A Comparison -> index.html, report.md, tables and figures. Reads the Comparison, never a run folder."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
import yaml

from tuneoff import formats
from tuneoff.cache import cached
from tuneoff.comparison.result import Comparison
from tuneoff.report import tables
from tuneoff.report.charts import charts

_WORDS = ("strategy", "better", "worse", "encoder", "label", "split")


def write_report(comparison: Comparison, folder: Path) -> None:
    """Write report/index.html, report.md, tables/ and figures/ into a study's folder."""
    made = _tables(comparison)
    specs = {name: json.loads(chart.to_json()) for name, chart in charts(comparison).items()} if comparison.rows else {}
    for name in ("report", "tables", "figures"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "report" / "index.html").write_text(page(comparison, made, specs), encoding="utf-8")
    (folder / "report.md").write_text(markdown(comparison, made, has_curves="validation" in specs), encoding="utf-8")
    for name in ("leaderboard", "pairs", "metrics", "parameters", "costs"):
        formats.write_csv(made[name], folder / "tables" / f"{name}.csv")
        caption = f"{name.capitalize()} of {comparison.name}"
        (folder / "tables" / f"{name}.tex").write_text(formats.latex(made[name], caption), encoding="utf-8")
    for name, spec in specs.items():
        on_white = {**spec, "config": {**spec["config"], "background": "white"}}
        (folder / "figures" / f"{name}.svg").write_text(vl_convert.vegalite_to_svg(on_white), encoding="utf-8")
        (folder / "figures" / f"{name}.png").write_bytes(vl_convert.vegalite_to_png(on_white, scale=2))


def _tables(comparison: Comparison) -> dict[str, Any]:
    return {
        "leaderboard": tables.leaderboard(comparison),
        "pairs": tables.pairs(comparison),
        "metrics": tables.metrics(comparison),
        "parameters": tables.parameters(comparison),
        "costs": tables.costs(comparison),
        "classes": {row.group: tables.per_class(comparison, row.group) for row in comparison.rows},
        "data": _labels_by_split(comparison),
    }


def _labels_by_split(comparison: Comparison) -> formats.Table:
    splits = comparison.data["splits"]
    body = [
        [label, *[formats.number(found["labels"][index]) for found in splits.values()]]
        for index, label in enumerate(comparison.label_names)
    ]
    return ["label", *splits], body


def page(comparison: Comparison, made: Mapping[str, Any], specs: Mapping[str, Any]) -> str:
    """The one page that holds everything: no request leaves it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    any_record = next(iter(comparison.records), None)
    return environment.get_template("page.html.j2").render(
        comparison=comparison,
        data=comparison.data,
        models=", ".join(dict.fromkeys(comparison.study["model"])),
        tables=made,
        one_seed=max((len(row.seeds) for row in comparison.rows), default=0) == 1,
        words=_WORDS,
        specs=specs,
        specs_json=_inert(json.dumps(specs)),
        vega=_vega(),
        study=yaml.safe_dump(comparison.study, sort_keys=False, allow_unicode=True),
        machine=any_record.machine if any_record else None,
        versions=any_record.versions if any_record else None,
    )


def _inert(text: str) -> str:
    """JSON that cannot end the script element that holds it."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; bundling them takes a second, so that it is kept."""

    def write(into: Path) -> None:
        bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        (into / "bundle.js").write_text(bundle.replace("</script", "<\\/script"), encoding="utf-8")

    return (cached(f"vega-{version('vl-convert-python')}", write) / "bundle.js").read_text(encoding="utf-8")


def markdown(comparison: Comparison, made: Mapping[str, Any], has_curves: bool) -> str:
    """The report for a code host: verdict, tables and the two main figures."""
    text = formats.markdown_text
    parts = [f"# {text(comparison.name)}"]
    if comparison.verdict:
        parts += [f"**{text(comparison.verdict.text)}**", formats.markdown(made["leaderboard"])]
        parts += ["![scores with intervals](figures/scores.svg) ![score against cost](figures/cost.svg)"]
    else:
        parts += ["No run succeeded."]
    if comparison.failures:
        lines = [
            f"- {text(f.label)}, seed {f.seed}: {f.status} – {text((f.error or '').strip().splitlines()[-1])}"
            for f in comparison.failures
        ]
        parts += ["## Runs that did not finish", "\n".join(lines)]
    notes = [*comparison.data["notes"], *comparison.data["findings"]]
    parts += ["## Data", formats.markdown(made["data"]), "\n".join(f"- {text(note)}" for note in notes)]
    if comparison.rows:
        parts += ["## Every metric", formats.markdown(made["metrics"])]
        parts += ["## Parameters", formats.markdown(made["parameters"]), "## Costs", formats.markdown(made["costs"])]
        if has_curves:
            parts += ["## Training", "![validation](figures/validation.svg) ![loss](figures/loss.svg)"]
    return "\n\n".join(part for part in parts if part) + "\n"
