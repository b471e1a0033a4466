"""How large the page of a stored study is, and how long it takes to build, to open and to answer, beside the targets.

`python benchmarks/report.py results/STUDY`; needs Chromium (Debian: apt install chromium). The targets are of eight
strategies with three seeds on 10,000 test examples. Building is a process of its own, imports included.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    given = parser.parse_args()
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tuneoff", "report", given.study], check=True, stdout=subprocess.DEVNULL)
    found = [("report built, seconds", time.perf_counter() - started, 30)]
    page = given.study / "report" / "index.html"
    found.append(("page, MB", page.stat().st_size / 1e6, 8))
    found += [(f"{name}, seconds", seconds, target) for name, seconds, target in in_browser(page)]
    for name, value, target in found:
        print(f"{name:<40}{value:>8.2f}{'' if target is None else f'   target {target}'}")


def in_browser(page: Path) -> list[tuple[str, float, float | None]]:
    """Seconds until the first chart stands, of a filter over all examples, and of drawing every chart."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 900})
        started = time.perf_counter()
        opened.goto(page.resolve().as_uri())
        opened.locator("figure[data-chart=scores] svg").wait_for()
        opened.locator("#browser .example").first.wait_for()
        ready = time.perf_counter() - started
        took = """async (what) => {
            const started = performance.now();
            await what();
            await new Promise((done) => requestAnimationFrame(done));
            return (performance.now() - started) / 1000;
        }"""
        filtering = """() => {
            const words = document.querySelector("#browser [name=words]");
            words.value = "the";
            words.dispatchEvent(new Event("input", { bubbles: true }));
        }"""
        filtered = opened.evaluate(f"({took})({filtering})")
        drawn = opened.evaluate(f"({took})(drawAll)")
        browser.close()
    return [
        ("interactive", ready, 2),
        ("a filter over all examples", filtered, None),
        ("every chart drawn", drawn, None),
    ]


if __name__ == "__main__":
    main()
