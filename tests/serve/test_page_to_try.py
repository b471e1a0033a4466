"""The page in a real browser: a text is typed, labels and words are read, and a text never becomes markup."""

import os
import shutil
import threading
import time

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("captum")
pytest.importorskip("uvicorn")
pytest.importorskip("playwright.sync_api")

import uvicorn
from playwright import sync_api

from tests.tiny import toy_texts
from tuneoff import TextClassifier
from tuneoff.serve.app import create_app, listen
from tuneoff.serve.models import served_models

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)"),
]
SCRIPT = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"


@pytest.fixture(scope="module")
def chromium():
    # the sandbox of a browser needs what containers do not give to root
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if is_root else [])
        yield browser
        browser.close()


def serving(models):
    """The address of a server of some models, which runs until its test ends."""
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(models, SCRIPT), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture(scope="module")
def address(encoder, tmp_path_factory):
    """Two models, of which a script is the name of a class."""
    folder = tmp_path_factory.mktemp("page-to-try")
    texts, labels = toy_texts(100, np.random.default_rng(0))
    names, models = np.where(labels == 1, "positive", SCRIPT), []
    for strategy in ("tfidf", "full:learning_rate=0.01"):
        name = strategy.partition(":")[0]
        TextClassifier(strategy, encoder, max_length=16, batch_size=4).fit(texts, names).save(folder / name)
        models += served_models(folder / name)
    yield from serving(models)


@pytest.fixture
def page(chromium, address):
    """The open page. A console message, and a request to anything but the server, is an error."""
    opened = chromium.new_page(viewport={"width": 1000, "height": 900})
    messages, requests = [], []
    opened.on("console", lambda message: messages.append(message.text))
    opened.on("pageerror", lambda error: messages.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(address)
    opened.locator("#about", has_text="2 models").wait_for()
    yield opened
    # Chromium logs every refusal
    assert [message for message in messages if "status of 422" not in message] == []
    assert {url for url in requests if not url.startswith(address)} == set()
    assert opened.evaluate("window.hit") is None
    opened.close()


def classify(page, text):
    page.locator("[name=first]").fill(text)
    page.get_by_role("button", name="Classify").click()
    page.locator("#results[data-done]").wait_for()


def test_a_text_is_typed_and_labels_and_words_are_read(page):
    classify(page, "the film was good and great")
    assert page.locator(".model h2").all_inner_texts()[0].startswith("tfidf · recommended")
    assert page.locator(".answer strong").all_inner_texts() == ["positive", "positive"]
    assert page.locator(".words-of").all_inner_texts() == ["the film was good and great"] * 2
    sides = page.locator(".words-of").first.locator(".word")
    by_word = dict(
        zip(sides.all_inner_texts(), sides.evaluate_all("all => all.map((w) => w.dataset.side)"), strict=True)
    )
    assert (by_word["good"], by_word["great"]) == ("for", "for")
    shown = page.evaluate("getComputedStyle(document.querySelector('.word[data-side=for]')).backgroundColor")
    assert shown != "rgba(0, 0, 0, 0)"


def test_neither_texts_nor_labels_become_markup(page):
    classify(page, SCRIPT + " bad awful 😀 poor")
    assert SCRIPT in page.locator(".answer").first.inner_text()
    assert page.locator(".words-of").first.inner_text() == SCRIPT + " bad awful 😀 poor"
    marked = page.locator(".words-of").first.locator(".word").all_inner_texts()
    assert "awful" in marked  # its place counts the emoji before it as one character
    assert page.locator("#results script, #results img").count() == 0
    assert page.locator("h1").inner_text() == SCRIPT


def test_ctrl_enter_classifies_and_errors_are_shown(page):
    page.locator("[name=first]").fill("good")
    page.locator("[name=first]").press("Control+Enter")
    page.locator("#results[data-done]").wait_for()
    page.locator("[name=first]").fill("good " * 5000)
    page.route("**/predict", lambda route: route.fulfill(status=422, json={"error": "too long"}))
    page.get_by_role("button", name="Classify").click()
    page.locator("#message", has_text="too long").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(chromium, address, scheme, tmp_path):
    phone = chromium.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    phone.goto(address)
    classify(phone, "good " * 40 + "x" * 300)
    phone.locator("details summary").click()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.close()


def test_pairs_have_two_fields(chromium, tmp_path):
    texts, labels = toy_texts(60, np.random.default_rng(0))
    TextClassifier("tfidf").fit(list(zip(texts, texts, strict=True)), labels).save(tmp_path / "model")
    for address in serving(served_models(tmp_path / "model")):
        opened = chromium.new_page()
        opened.goto(address)
        opened.locator("[name=second]").fill("good great")
        classify(opened, "bad film")
        assert opened.locator(".words-of").all_inner_texts() == ["bad film", "good great"]
        opened.close()
