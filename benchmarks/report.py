"""Size of a stored study's report page, and the time to build, open and filter it, with the targets.

Usage: python benchmarks/report.py results/STUDY. Needs Chromium (Debian: apt install chromium). The targets are for
eight strategies with three seeds on 10,000 test examples. The report is built in a new process, imports included.
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
    study = parser.parse_args().study
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tuneoff", "report", study, "--quiet"], check=True)
    figures: list[tuple[str, float, float | None]] = [("report built, seconds", time.perf_counter() - started, 30)]
    page = study / "report" / "index.html"
    figures.append(("page, MB", page.stat().st_size / 1e6, 8))
    figures += [(f"{name}, seconds", seconds, target) for name, seconds, target in page_times(page)]
    for name, value, target in figures:
        print(f"{name:<40}{value:>8.2f}{'' if target is None else f'   target {target}'}")


def page_times(page: Path) -> list[tuple[str, float, float | None]]:
    """Measure, in seconds, the time to the first chart, of a filter over all examples, and to draw every chart."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        started = time.perf_counter()
        tab.goto(page.resolve().as_uri())
        tab.locator("figure[data-chart=scores] svg").wait_for()
        tab.locator("#browser .example").first.wait_for()
        ready_seconds = time.perf_counter() - started
        measure = """async (action) => {
            const started = performance.now();
            await action();
            await new Promise((done) => requestAnimationFrame(done));
            return (performance.now() - started) / 1000;
        }"""
        filter_examples = """() => {
            const words = document.querySelector("#browser [name=words]");
            words.value = "the";
            words.dispatchEvent(new Event("input", { bubbles: true }));
        }"""
        filter_seconds = tab.evaluate(f"({measure})({filter_examples})")
        draw_seconds = tab.evaluate(f"({measure})(drawAll)")
        browser.close()
    return [
        ("interactive", ready_seconds, 2),
        ("a filter over all examples", filter_seconds, None),
        ("every chart drawn", draw_seconds, None),
    ]


if __name__ == "__main__":
    main()
