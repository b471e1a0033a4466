"""Drift between splits: planted drift of texts and labels is found, splits of one source have none."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tests.data.frames import load
from tuneoff.data.doctor.drift import area_under_curve, drift

WORDS = [
    "the",
    "film",
    "was",
    "plot",
    "actor",
    "good",
    "bad",
    "long",
    "short",
    "dull",
    "fine",
    "slow",
    "music",
    "story",
]


def texts(count, seed, extra=()):
    rng = np.random.default_rng(seed)
    words = [*WORDS, *list(extra) * 4]
    return [" ".join(rng.choice(words, 8)) for _ in range(count)]


def frame(count, seed, extra=(), share=0.5):
    labels = np.where(np.random.default_rng(seed).random(count) < share, "pos", "neg")
    return pd.DataFrame({"text": texts(count, seed, extra), "label": labels})


def splits(test, **options):
    return load({"train": frame(600, 0), "validation": frame(200, 1), "test": test}, **options)


def test_splits_of_one_source_have_no_finding():
    assert drift(splits(frame(300, 2))) == []


def test_other_texts_in_test_are_found_with_the_words_that_tell():
    (finding,) = drift(splits(frame(300, 2, extra=["@user"])))
    assert finding.kind == "drift from train to test"
    assert "“@”" in finding.text
    assert finding.details["auc_low"] > 0.8
    assert 0.6 < finding.harm <= 1


def test_other_label_shares_in_test_are_found_with_the_shares():
    (finding,) = drift(splits(frame(300, 2, share=0.2)))
    assert finding.kind == "label shares of test"
    assert "“neg” 54 % and 78 %, “pos” 46 % and 22 %; chi-square test, p below 0.001" in finding.text
    assert finding.harm == pytest.approx(0.24, abs=0.01)


def test_a_visible_but_chance_difference_of_few_examples_is_no_finding():
    assert drift(splits(frame(20, 2, share=0.4))) == []


def test_an_invisible_difference_of_many_examples_is_no_finding():
    # 50 % against 48.5 % is significant with a hundred thousand examples, and changes no score
    many = [pd.DataFrame({"text": ["a b"] * 100_000, "label": [0, 1] * 50_000}) for _ in range(3)]
    many[2].loc[:2999:2, "label"] = 1
    assert drift(load(dict(zip(("train", "validation", "test"), many, strict=True)))) == []


def test_splits_that_are_cut_from_sorted_rows_are_named():
    whole = frame(1000, 0).sort_values("label")
    data = {"train": whole[:700], "validation": whole[100:800], "test": whole[600:]}
    lines = [finding.line for finding in drift(load(data))]
    assert any("sorted by label; shuffle all rows before they are divided" in line for line in lines)


def test_splits_that_were_held_out_are_not_checked():
    dataset = load(frame(600, 0))
    assert dataset.held_out == ("validation", "test")
    assert drift(dataset) == []


def test_multilabel_shares_are_compared_label_by_label():
    rng = np.random.default_rng(0)

    def multilabel(count, seed, share):
        has = rng.random((count, 2)) < [0.5, share]
        return pd.DataFrame(
            {"text": texts(count, seed), "labels": [[n for n, h in zip("xy", row, strict=True) if h] for row in has]}
        )

    data = {"train": multilabel(600, 0, 0.3), "validation": multilabel(300, 1, 0.3), "test": multilabel(300, 2, 0.7)}
    findings = drift(load(data))
    assert [finding.kind for finding in findings] == ["label shares of test"]
    assert "macro_f1 as well as micro_f1" in findings[0].advice  # multi-label data has no metric called accuracy


def test_the_area_under_the_curve_agrees_with_scikit_learn_and_its_variance_with_repetitions():
    rng = np.random.default_rng(0)
    areas, variances = [], []
    for _ in range(300):
        is_second = np.repeat([0, 1], [40, 60])
        scores = rng.normal(size=100) + 0.7 * is_second
        area, variance = area_under_curve(is_second, scores)
        assert area == pytest.approx(roc_auc_score(is_second, scores))
        areas.append(area)
        variances.append(variance)
    assert np.mean(variances) == pytest.approx(np.var(areas), rel=0.2)
