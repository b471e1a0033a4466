"""The page's server: every model's labels, limits, refusals in one shape, and nothing for other sites."""

import json
import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("captum")
pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.hostile.profiles import quick
from tests.tiny import toy_texts
from tuneoff import TextClassifier
from tuneoff.deliver.find import load
from tuneoff.errors import ConfigError, StoreError
from tuneoff.serve.app import Limits, create_app, is_allowed_host, listen
from tuneoff.serve.models import served_models


def client_of(models, **limits):
    return TestClient(create_app(models, "toy", limits=Limits(**limits)), base_url="http://127.0.0.1")


def saved(strategy, folder, pairs=False, multilabel=False, **options):
    texts, labels = toy_texts(60, np.random.default_rng(0))
    X = list(zip(texts, texts[::-1], strict=True)) if pairs else texts
    y = np.stack([labels, 1 - labels], axis=1) if multilabel else np.where(labels == 1, "good", "bad")
    TextClassifier(strategy, **options).fit(X, y).save(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One quick model."""
    return served_models(saved("tfidf", tmp_path_factory.mktemp("served") / "model"))


@pytest.fixture
def client(models):
    return client_of(models)


@pytest.mark.slow
def test_a_study_serves_every_stored_model_the_recommended_one_first(finished):
    study, comparison, _ = finished
    models = served_models(study.folder)
    assert [model.is_recommended for model in models] == [True] + [False] * (len(models) - 1)
    assert {model.label for model in models} == {row.label for row in comparison.rows}
    client, texts = client_of(models), ["good fine great film", "a bad one"]
    answer = client.post("/predict", json={"texts": texts}).json()
    for result in answer["results"]:
        expected = load(study.folder, strategy=result["strategy"])
        np.testing.assert_allclose(result["probabilities"], expected.predict_proba(texts))
        assert result["labels"] == expected.predict(texts).tolist()
    explained = client.post("/predict", json={"texts": texts[:1], "explain": True}).json()["results"]
    for result in explained:
        if result["strategy"] in ("majority", "untrained"):
            assert "does not use the words" in result["words_reason"]
        else:
            assert [word["text"] for word in result["words"]] == texts[0].split()


def test_the_models_and_the_limits_are_listed(client):
    about = client.get("/models").json()
    assert about["classes"] == ["bad", "good"]
    assert about["limits"] == {"body_bytes": 1_000_000, "texts": 64, "characters": 20_000, "requests_per_minute": 240}
    assert [model["strategy"] for model in about["models"]] == ["tfidf"]


def test_labels_probabilities_and_words_are_given(client):
    answer = client.post("/predict", json={"texts": ["a good film"], "explain": True}).json()
    (result,) = answer["results"]
    assert (answer["classes"], result["labels"], result["recommended"]) == (["bad", "good"], ["good"], True)
    assert sum(result["probabilities"][0]) == pytest.approx(1)
    assert [word["text"] for word in result["words"]] == ["a", "good", "film"]
    total = sum(word["score"] for word in result["words"])
    assert total == pytest.approx(result["score"] - result["baseline"])


def test_pairs_and_multi_label_data_are_classified(tmp_path):
    client = client_of(served_models(saved("tfidf", tmp_path / "model", pairs=True, multilabel=True)))
    assert client.get("/models").json()["is_pair"]
    (result,) = client.post("/predict", json={"texts": [["good film", "bad"]], "explain": True}).json()["results"]
    assert isinstance(result["labels"][0], list)
    assert {word["part"] for word in result["words"]} == {0, 1}
    assert client.post("/predict", json={"texts": ["one text"]}).status_code == 422


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "the body is not JSON"),
        (b"\xff", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "the body is not JSON"),
        (b"[]", 422, "body: Input should be"),
        (b"{}", 422, "texts: Field required"),
        (b'{"texts": []}', 422, "texts: List should have at least 1 item"),
        (b'{"texts": "one"}', 422, "texts: Input should be a valid list"),
        (b'{"texts": [1]}', 422, "Input should be a valid"),
        (b'{"texts": [["a", "b"]]}', 422, r"texts\[0\] is not a text"),
        (b'{"texts": ["a"], "stratgy": "x"}', 422, "stratgy: Extra inputs are not permitted"),
        (b'{"texts": ["a"], "strategy": "x"}', 422, "strategy 'x' is unknown; choose from tfidf"),
        (b'{"texts": ["\\ud800"]}', 422, "half of a surrogate pair"),
        (b'{"texts": ["a", "b"], "explain": true}', 422, "explain is for one text, and there are 2"),
        (b'{"texts": [' + b",".join([b'"a"'] * 65) + b"]}", 422, "65 texts; send at most 64 at a time"),
        (b'{"texts": ["' + b"a" * 20_001 + b'"]}', 422, "a text has 20,001 characters; send at most 20,000"),
        (b" " * 1_000_001, 413, "the body is too large; send at most 1,000,000 bytes"),
    ],
    ids=range(16),
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_a_reason(client, body, status, reason):
    response = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    assert re.search(reason, response.json()["error"])


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_BODIES = st.binary(max_size=40) | st.one_of(
    _ANY,
    st.fixed_dictionaries(
        {"texts": st.lists(st.text(max_size=30) | _ANY, max_size=4)},
        optional={"strategy": st.just("tfidf") | _ANY, "explain": st.booleans() | _ANY, "other": _ANY},
    ),
).map(lambda value: json.dumps(value).encode())  # fmt: skip


def test_any_body_is_answered_in_one_shape(models):
    client, statuses = client_of(models, requests_per_minute=10**9), set()

    @quick
    @given(_BODIES)
    def check(body):
        response = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
        statuses.add(response.status_code)
        if response.status_code == 200:
            assert response.json()["results"]
        else:
            assert response.status_code in (400, 422)
            assert "\n" not in response.json()["error"]

    check()
    assert {200, 400, 422} <= statuses


def test_a_large_body_without_a_length_is_refused(client):
    chunks = (b"a" * 100_000 for _ in range(20))
    response = client.post("/predict", content=chunks, headers={"Content-Type": "application/json"})
    assert response.status_code == 413


def test_too_many_requests_in_a_minute_are_refused(models):
    client = client_of(models, requests_per_minute=3)
    statuses = [client.post("/predict", json={"texts": ["a"]}).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert 0 < int(client.post("/predict", json={"texts": ["a"]}).headers["Retry-After"]) <= 61
    assert client.get("/").status_code == 200


def test_a_slow_computation_is_given_up(models):
    class Slow:
        saved = models[0].classifier.saved

        def predict_proba(self, texts):
            time.sleep(1)
            return models[0].classifier.predict_proba(texts)

    slow = replace(models[0], classifier=Slow())
    response = client_of([slow], seconds=0.2).post("/predict", json={"texts": ["a"]})
    assert (response.status_code, "no result within 0.2 s" in response.json()["error"]) == (503, True)


def test_other_sites_reach_nothing(client):
    for headers in (
        {"Host": "evil.example"},
        {"Host": "evil.example:8000"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
    ):
        for method, path in (("GET", "/"), ("GET", "/models"), ("POST", "/predict")):
            response = client.request(method, path, headers=headers)
            assert (response.status_code, "names another machine" in response.json()["error"]) == (400, True)
    # what a form or a simple request of another site can send
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", ""):
        response = client.post("/predict", content=b'{"texts": ["a"]}', headers={"Content-Type": kind})
        assert response.status_code == 415
    response = client.post("/predict", json={"texts": ["a"]}, headers={"Origin": "http://evil.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]
    assert client.options("/predict", headers={"Origin": "http://evil.example"}).status_code == 405


def test_the_page_allows_its_own_script_alone(client, models):
    response = client.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert not [word for word in ("http://", "https://", "//cdn") if word in response.text]
    named = TestClient(create_app(models, "<script>x</script>"), base_url="http://127.0.0.1")
    assert "<script>x" not in named.get("/").text


@pytest.mark.parametrize(
    ("header", "is_allowed"),
    [
        ("localhost", True), ("LOCALHOST:80", True), ("127.0.0.1:8000", True), ("[::1]:8000", True), ("192.168.1.5", True),
        ("box.local", True), ("evil.example", False), ("localhost.evil.example", False), ("", False), ("a:b", False), ("[::1", False),
    ],
)  # fmt: skip
def test_hosts(header, is_allowed):
    assert is_allowed_host(header, "box.local") == is_allowed


def test_a_port_in_use_is_one_line():
    with (
        listen("127.0.0.1", 0) as first,
        pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1 port .*choose another --port"),
    ):
        listen("127.0.0.1", first.getsockname()[1])
    with pytest.raises(ConfigError, match=r"cannot listen on nowhere\.invalid port 0"):
        listen("nowhere.invalid", 0)


def test_a_folder_without_models_is_one_line(tmp_path):
    with pytest.raises(StoreError, match=r"holds no tuneoff\.json"):
        served_models(tmp_path)


def test_requests_at_once_are_answered_one_after_the_other(models):
    client, statuses = client_of(models), []

    def ask():
        statuses.append(client.post("/predict", json={"texts": ["good"]}).status_code)

    with client:  # one event loop for all of them
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [200] * 8
