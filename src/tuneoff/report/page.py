"""A Comparison, its tables and charts -> the one page that holds everything: no request leaves it."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
import yaml

from tuneoff.cache import cached
from tuneoff.comparison.result import Comparison
from tuneoff.engine.recipe import Recipe
from tuneoff.formats import Table, legible
from tuneoff.report.browser import browser
from tuneoff.report.charts import MOST_LABELS, MOST_STRATEGIES, shown
from tuneoff.report.error_charts import LEAST_SURE, MOST_CLASSES
from tuneoff.report.searches import said
from tuneoff.report.slices import weakest
from tuneoff.report.tables import whole_study
from tuneoff.runs import COSTS
from tuneoff.strategies import STRATEGIES

# columns that hold words, and those that hold whole texts
_WORDS = (
    "strategy",
    "better",
    "worse",
    "encoder",
    "label",
    "likely",
    "split",
    "word",
    "metric",
    "source",
    "note",
    "searched",
    "chosen",
    "options",
    "by epoch",
    "went",
)
_TEXTS = ("text", "source", "note")


def page(comparison: Comparison, tables: Mapping[str, Table], specs: Mapping[str, Any]) -> str:
    """The page's HTML. specs: charts as Vega-Lite, by name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["legible"] = legible
    records = comparison.records
    costs = [name for name in COSTS if f"cost-{name}" in specs]
    cost = comparison.verdict.cost if comparison.verdict else ""
    examples = browser(comparison)
    return environment.get_template("page.html.j2").render(
        comparison=comparison,
        rows=comparison.rows,
        data=comparison.data,
        models=", ".join(dict.fromkeys(comparison.study["model"])),
        tables=tables,
        reading=Recipe.model_validate(comparison.study.get("recipe", {})).reading.spoken(),
        weakest=weakest(comparison),
        searched=said(comparison),
        one_seed=any(len(row.seeds) == 1 and STRATEGIES[row.strategy].is_seeded for row in comparison.rows),
        best_only=_best_only(comparison),
        most_classes=MOST_CLASSES,
        most_labels=MOST_LABELS,
        words=_WORDS,
        texts=_TEXTS,
        costs=costs,
        cost=cost if cost in costs else next(iter(costs), ""),
        cost_names=COSTS,
        whole_study=whole_study(comparison),
        sure_words=_sure_words(comparison),
        specs=specs,
        specs_json=_inert(specs),
        examples=examples,
        examples_json=_inert(examples),
        vega=_vega(),
        study=yaml.safe_dump(comparison.study, sort_keys=False, allow_unicode=True),
        machines=list({json.dumps(record.machine): record.machine for record in records}.values()),
        versions=records[0].versions if records else {},
        fingerprints={
            r.model: r.spec["model_fingerprint"] for r in records if r.model and "model_fingerprint" in r.spec
        },
    )


def _best_only(comparison: Comparison) -> str:
    """What charts with something for each strategy leave out, as a sentence after others."""
    left = len(comparison.rows) - len(shown(comparison))
    if comparison.errors is None or left == 0:
        return ""
    if len(comparison.errors.joint) > MOST_STRATEGIES:
        return f" Shown are the best {MOST_STRATEGIES} strategies; the tables hold all."
    return " Strategies that say nothing of a text are left out."


def _sure_words(comparison: Comparison) -> str:
    if comparison.errors is None or not len(comparison.errors.words):
        return ""
    count = int((comparison.errors.words["q"] < LEAST_SURE).sum())
    share = f"{100 * LEAST_SURE:.0f} % false findings"
    if count == 0:
        return f"None is sure: the most striking of many words are expected to look like this by chance ({share})."
    return f"{count:,} {'is' if count == 1 else 'are'} sure, in colour: at most {share} among them."


def _inert(data: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # a lone half of a character cannot be written
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; bundling them takes a second, so that it is kept."""

    def write(into: Path) -> None:
        bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        (into / "bundle.js").write_text(bundle.replace("</script", "<\\/script"), encoding="utf-8")

    return (cached(f"vega-{version('vl-convert-python')}", write) / "bundle.js").read_text(encoding="utf-8")
