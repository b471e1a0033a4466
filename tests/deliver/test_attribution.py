"""Attributions of words: complete, in the place of the words, and those of the model that predicts."""

import numpy as np
import pandas as pd
import pytest

from tests.deliver.test_restored import saved_model
from tests.strategies.rows import STRATEGY_NAMES
from tests.tiny import BAD, GOOD, toy_texts
from tuneoff import TextClassifier
from tuneoff.deliver.attribution import load_attribution
from tuneoff.deliver.classifier import as_texts, load_classifier
from tuneoff.deliver.saved import SavedModel
from tuneoff.errors import ConfigError

pytest.importorskip("captum")
TEXT = "the film was good and great"


def assert_complete(attribution, tolerance=0.01):
    total = sum(word.score for word in attribution.words)
    difference = attribution.score - attribution.baseline
    assert abs(total - difference) <= tolerance * max(1.0, abs(difference))


def trained(strategy, encoder, folder, texts, labels, **options):
    """A model that is trained on texts and stored in a folder."""
    options = {"epochs": 3, "batch_size": 4, "max_length": 16, "recipe": {"precision": "fp32"}, **options}
    TextClassifier(strategy, encoder, **options).fit(texts, labels).save(folder)
    return folder, SavedModel.read(folder)


@pytest.mark.parametrize(
    "strategy",
    ["tfidf", "probe", "probe:classifier=svm:pooling=cls", "lora:learning_rate=0.05", "full:learning_rate=0.01"],
)
def test_attributions_sum_to_the_difference_of_the_score_and_the_baselines(strategy, encoder, tmp_path):
    texts, labels = toy_texts(60, np.random.default_rng(0))
    folder, saved = trained(strategy, encoder, tmp_path / "model", texts, labels)
    explain, table = load_attribution(folder, saved), as_texts([TEXT], False)
    probabilities = load_classifier([folder]).predict_proba(table)[0]
    first, second = explain(table, 0), explain(table, 1)
    for attribution in (first, second):
        assert_complete(attribution)
        assert [TEXT[word.start : word.end] for word in attribution.words] == TEXT.split()
        assert {word.part for word in attribution.words} == {0}
    # scores are those of the model that predicts: their order, and for a softmax of two logits their difference
    assert (second.score > first.score) == (probabilities[1] > probabilities[0])
    if strategy.startswith(("lora", "full")):
        log_odds = np.log(probabilities[1] / probabilities[0])
        assert second.score - first.score == pytest.approx(log_odds, abs=1e-4)


def test_the_words_that_tell_the_label_decide(encoder, tmp_path):
    texts, labels = toy_texts(100, np.random.default_rng(0))
    for strategy in ("tfidf", "full:learning_rate=0.01"):
        folder, saved = trained(strategy, encoder, tmp_path / strategy.partition(":")[0], texts, labels)
        explain = load_attribution(folder, saved)
        for words, label in ((GOOD, 1), (BAD, 0)):
            text = f"the {words[0]} film was {words[1]}"
            scores = {text[w.start : w.end]: w.score for w in explain(as_texts([text], False), label).words}
            assert min(scores[words[0]], scores[words[1]]) > max(scores["the"], scores["was"], scores["film"])


def test_pairs_and_multi_label_data_have_attributions(encoder, tmp_path):
    texts, labels = toy_texts(60, np.random.default_rng(0))
    pairs = list(zip(texts, texts[::-1], strict=True))
    several = np.stack([labels, 1 - labels, np.arange(60) % 3 == 0], axis=1).astype(int)
    for strategy in ("tfidf", "probe", "head"):
        folder, saved = trained(strategy, encoder, tmp_path / strategy, pairs, several, max_length=32)
        attribution = load_attribution(folder, saved)(as_texts([("good film", "bad story")], True), 2)
        assert_complete(attribution)
        parts = [
            (word.part, ("good film", "bad story")[word.part][word.start : word.end]) for word in attribution.words
        ]
        assert parts == [(0, "good"), (0, "film"), (1, "bad"), (1, "story")]


@pytest.mark.parametrize(
    "model_type",
    ["bert", "distilbert", "roberta", "albert", "electra", "modernbert", "nomic_bert", "mpnet", "deberta-v2"],
)
def test_every_architecture_has_complete_attributions(model_type, tmp_path):
    _, saved = saved_model("full", model_type, tmp_path)
    table = as_texts([TEXT], False)
    attributions = [load_attribution(tmp_path / "model", saved)(table, label) for label in range(3)]
    for attribution in attributions:
        assert_complete(attribution, 0.05)
    scores = np.array([attribution.score for attribution in attributions])
    probabilities = load_classifier([tmp_path / "model"]).predict_proba(table)[0]
    np.testing.assert_allclose(np.exp(scores) / np.exp(scores).sum(), probabilities, atol=1e-4)


@pytest.mark.parametrize("strategy", [name for name in STRATEGY_NAMES if name != "untrained"])
def test_every_strategy_that_trains_a_model_has_attributions(strategy, tmp_path):
    _, saved = saved_model(strategy, "bert", tmp_path)
    assert_complete(load_attribution(tmp_path / "model", saved)(as_texts([TEXT], False), 0), 0.05)


def test_models_and_texts_without_attributions_are_one_line(encoder, tmp_path):
    texts, labels = toy_texts(60, np.random.default_rng(0))
    folder, saved = trained("majority", encoder, tmp_path / "majority", texts, labels)
    with pytest.raises(ConfigError, match="majority does not use the words of a text"):
        load_attribution(folder, saved)
    recipe = {"long_texts": "windows", "precision": "fp32"}
    folder, saved = trained("head", encoder, tmp_path / "head", texts, labels, recipe=recipe, max_length=8)
    explain = load_attribution(folder, saved)
    assert_complete(explain(as_texts(["good film"], False), 0))
    with pytest.raises(ConfigError, match="words are not shown for a text above 8 tokens that is read in parts"):
        explain(as_texts([" ".join(["good"] * 20)], False), 0)


def test_repeated_words_share_the_attribution_of_their_n_grams(encoder, tmp_path):
    texts, labels = toy_texts(60, np.random.default_rng(0))
    folder, saved = trained("tfidf", encoder, tmp_path / "model", texts, labels)
    text = "Good GOOD good, bad!"
    attribution = load_attribution(folder, saved)(as_texts(pd.Series([text]), False), 1)
    assert_complete(attribution, 1e-6)
    assert [text[word.start : word.end] for word in attribution.words] == ["Good", "GOOD", "good", ",", "bad", "!"]
