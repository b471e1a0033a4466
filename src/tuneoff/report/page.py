"""The page: sections -> one HTML file that holds everything and makes no request."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import jinja2
import vl_convert

from tuneoff.cache import cached_folder
from tuneoff.formats import show_control_characters
from tuneoff.report.section import Examples, Section


def page(
    name: str,
    summary: str,
    sections: Sequence[Section],
    specs: Mapping[str, object],
    sizes: Mapping[str, tuple[int, int]],
) -> str:
    """Return the page's HTML. summary: a line under its title; specs: Vega-Lite specifications of the charts.

    sizes: width and height of the charts, which are reserved before they are drawn, so that nothing moves.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["visible"] = show_control_characters
    examples = [block.data for section in sections for block in section.every_block() if isinstance(block, Examples)]
    return environment.get_template("page.html.j2").render(
        name=name,
        summary=summary,
        sections=sections,
        sizes=sizes,
        specs_json=_inert_json(specs),
        examples_json=_inert_json(examples[0].to_json()) if examples else None,
        vega=_vega_bundle(),
    )


def _inert_json(data: object) -> str:
    """Return JSON that cannot end the script element that holds it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # lone surrogates cannot be encoded
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script; bundling takes a second, so that it is cached."""

    def write(into: Path) -> None:
        bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        (into / "bundle.js").write_text(bundle.replace("</script", "<\\/script"), encoding="utf-8")

    return (cached_folder(f"vega-{version('vl-convert-python')}", write) / "bundle.js").read_text(encoding="utf-8")
