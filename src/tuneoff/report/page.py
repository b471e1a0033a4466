"""The page: sections -> one HTML file that holds everything and makes no request."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import jinja2
import vl_convert

from tuneoff.cache import cached_folder
from tuneoff.formats import show_control_characters
from tuneoff.report.section import Examples, Section

# SHA-256 of the script of the charts, by version of vl-convert-python: 1.9.0 and 1.9.0.post1
_BUNDLES = {"373b1f84072b31010f15ceb787be6b415c53936411aae267c8c2b2b6ccde46e7"}


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
    """Return Vega, Vega-Lite and Vega-Embed as one script; bundling takes a second, so that it is cached.

    A script from the cache must have a known SHA-256: others may write there, and the page runs it. Without one (a
    version of vl-convert that was not tested) it is bundled each time.
    """

    def write(into: Path) -> None:
        (into / "bundle.js").write_bytes(_bundle())

    try:
        script = (cached_folder(f"vega-{version('vl-convert-python')}", write) / "bundle.js").read_bytes()
    except OSError:  # a cache that cannot be written
        script = b""
    return (script if hashlib.sha256(script).hexdigest() in _BUNDLES else _bundle()).decode()


def _bundle() -> bytes:
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script").encode()
