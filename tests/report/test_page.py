"""The page of a real study in a real browser: it draws, sorts and filters, makes no request, and runs no script of the data."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.stored import stored_study
from tests.tiny import toy_texts
from tuneoff.spec.file import study_from
from tuneoff.study import Study

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)"),
]

SCRIPT = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"


@pytest.fixture(scope="module")
def path(encoder, tmp_path_factory):
    """The page of a study of the toy texts, some of them scripts and control characters."""
    folder = tmp_path_factory.mktemp("page")
    texts, labels = toy_texts(120, np.random.default_rng(0))
    nasty = [
        SCRIPT,
        "\"quoted\" 'text' </script>",
        "\u202eright to left مرحبا",
        "😀 emoji",
        "bell\x07 escape\x1b[31m",
        "good " * 4000,
    ]
    texts = [f"{nasty[i // 3 % 6]} {text}" if i % 3 == 0 else text for i, text in enumerate(texts)]
    names = np.where(labels == 1, SCRIPT, "negative")
    source = np.where(np.arange(120) % 4 == 0, SCRIPT, "web")
    pd.DataFrame({"text": texts, "label": names, "source": source}).to_csv(folder / "toy.csv", index=False)
    given = {
        "name": "toy",
        "data": {"source": str(folder / "toy.csv"), "validation_fraction": 0.2, "test_fraction": 0.4, "slices": ["source"]},
        "model": encoder,
        "strategies": ["probe", "head:learning_rate=0.05", "full:learning_rate=0.01"],
        "recipe": {"epochs": 2, "batch_size": 4, "max_length": 16, "precision": "fp32"},
        "seeds": 2,
        "search": {"trials": 3, "spaces": {"head": {"learning_rate": {"low": 0.01, "high": 0.1}}}},
        "fractions": [0.5],
        "reported": [{"strategy": "full:learning_rate=0.01", "score": 0.9, "source": SCRIPT}],
    }  # fmt: skip
    Study(study_from(given), folder / "results").run()
    return folder / "results" / "report" / "index.html"


@pytest.fixture(scope="module")
def chromium():
    # the sandbox of a browser needs what containers do not give to root
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if is_root else [])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, path):
    """The open page. A console message, and a request for anything but the page, is an error."""
    opened = chromium.new_page(viewport={"width": 1200, "height": 900})
    messages, requests = [], []
    opened.on("console", lambda message: messages.append(message.text))
    opened.on("pageerror", lambda error: messages.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(path.as_uri())
    yield opened
    assert messages == []
    assert requests == [path.as_uri()]
    assert opened.evaluate("window.hit") is None
    opened.close()


def test_every_chart_has_marks(page):
    names = page.evaluate("drawAll().then(() => Object.keys(specs))")
    assert {"scores", "cost-fit_seconds", "lengths", "loss", "f1", "errors-length", "reliability", "overlap"} <= set(
        names
    )
    marks = page.evaluate(
        """[...document.querySelectorAll("figure[data-chart]")].map((figure) => [figure.dataset.chart,
        figure.querySelectorAll(".mark-rect path, .mark-symbol path, .mark-line path, .mark-rule line").length])"""
    )
    assert sorted(name for name, _ in marks) == sorted(names)
    assert [name for name, count in marks if count == 0] == []


def test_charts_are_drawn_when_they_come_into_view(page):
    far = page.locator("figure[data-chart=compute]")
    assert far.locator("svg").count() == 0
    far.scroll_into_view_if_needed()
    far.locator("svg").wait_for()


def test_the_cost_axis_can_be_chosen(page):
    def visible():
        return page.evaluate(
            """[...document.querySelectorAll("figure[data-chart^='cost-']")].filter((f) => !f.hidden).map((f) => f.dataset.chart)"""
        )

    assert visible() == ["cost-fit_seconds"]
    page.select_option(".menu select", label="inference latency")
    assert visible() == ["cost-latency_seconds"]
    page.locator("figure[data-chart=cost-latency_seconds]").scroll_into_view_if_needed()  # drawn near the viewport
    page.locator("figure[data-chart=cost-latency_seconds] svg").wait_for()


def test_a_click_sorts_a_table_by_value(page):
    def trainable():
        return [
            int(text.replace(",", ""))
            for text in page.locator("#table-leaderboard tbody td:last-child").all_inner_texts()
            if text != "–"
        ]

    before = trainable()
    page.click("#table-leaderboard th:has-text('trainable')")
    assert trainable() == sorted(before, reverse=True)
    page.click("#table-leaderboard th:has-text('trainable')")
    assert trainable() == sorted(before)
    page.click("#table-leaderboard th:has-text('latency')")
    assert page.locator("#table-leaderboard tbody td:nth-child(1)").all_inner_texts()[-1] == "majority"


@pytest.mark.parametrize(("heading", "position", "best"), [("difference to best", 4, 0.0)])
def test_the_best_strategy_sorts_by_its_missing_difference(page, heading, position, best):
    def values():
        cells = page.locator(f"#table-leaderboard tbody td:nth-child({position})").all_inner_texts()
        assert cells.count("–") == 1
        return [best if text == "–" else 0.0 if text.startswith("<") else float(text.split()[0]) for text in cells]

    head = page.locator("#table-leaderboard th").get_by_text(heading, exact=True)
    head.click()
    assert values() == sorted(values(), reverse=True)
    head.click()
    assert values() == sorted(values())


def test_intervals_sort_by_where_they_start(page):
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.click("#table-pairs th:has-text('95 % interval')")
    starts = [float(text.split()[0]) for text in page.locator("#table-pairs tbody td:nth-child(4)").all_inner_texts()]
    assert starts == sorted(starts, reverse=True)


def test_filters_find_the_examples_that_they_name(page):
    browser = page.locator("#browser")

    def count():
        return int(browser.locator(".count").inner_text().split(" of ")[0])

    everything = count()
    browser.locator("[name=outcome]").select_option("wrong")
    wrong = count()
    browser.locator("[name=outcome]").select_option("right")
    assert (0 < wrong < everything, wrong + count()) == (True, everything)
    browser.locator("[name=outcome]").select_option("")
    browser.locator("[name=words]").fill("emoji 😀")
    assert 0 < count() < everything
    assert all("😀" in text for text in browser.locator(".example p").all_inner_texts())
    browser.locator("[name=words]").fill("")
    browser.locator("[name=shortest]").fill("1000")
    longest = browser.locator(".example p").all_inner_texts()
    assert longest
    assert all(text.endswith("…") for text in longest)
    browser.locator("[name=shortest]").fill("")
    browser.locator("[name=label]").select_option(index=1)
    assert count() == everything / 2


def test_pages_of_examples_turn(page):
    browser = page.locator("#browser")
    first = browser.locator(".example p").first.inner_text()
    browser.locator("[name=next]").click()
    assert browser.locator(".example p").first.inner_text() != first
    browser.locator("[name=back]").click()
    assert browser.locator(".example p").first.inner_text() == first


def test_nasty_texts_are_shown_as_they_are(page):
    for text in (SCRIPT, "bell␇ escape␛[31m", "⟨U+202E⟩right to left مرحبا"):
        page.locator("#browser [name=words]").fill(text)
        assert text in page.locator("#browser .example p").first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(chromium, path, scheme):
    phone = chromium.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    phone.goto(path.as_uri())
    phone.evaluate("drawAll().then(() => 1)")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.close()


def test_the_leaderboard_of_two_encoders_fits_in_a_window(chromium, tmp_path):
    labels = ["lora rank=16 alpha=32", "head", "full", "probe", "partial"]
    study = stored_study(tmp_path / "two", [(s.split()[0], s, 0.9 - 0.1 * i) for i, s in enumerate(labels)])
    for index, path in enumerate(sorted(study.folder.glob("runs/*/run.json"))):
        model = f"an-organisation/encoder-with-a-long-name-{index // 2 % 2}"
        path.write_text(json.dumps({**json.loads(path.read_text()), "model": model}))
    study.report()
    window = chromium.new_page(viewport={"width": 1280, "height": 900})
    window.goto((study.folder / "report" / "index.html").as_uri())
    widths = window.evaluate(
        """(() => { const part = document.querySelector("#table-leaderboard").parentElement;
        return [part.scrollWidth, part.clientWidth]; })()"""
    )
    assert window.locator("#table-leaderboard th", has_text="encoder").count() == 1
    assert widths[0] <= widths[1]
    window.close()


def test_drawing_a_chart_moves_nothing(chromium, path):
    for width, tolerance in ((1280, 0), (390, 40)):  # a phone scales charts down, and the size that is reserved
        window = chromium.new_page(viewport={"width": width, "height": 900})
        window.goto(path.as_uri())
        before = window.evaluate("document.body.scrollHeight")
        window.evaluate("drawAll().then(() => 1)")
        assert abs(window.evaluate("document.body.scrollHeight") - before) <= tolerance
        window.close()
