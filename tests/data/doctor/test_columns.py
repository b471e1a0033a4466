"""Columns that tell the label without the text: planted ids, dates and authors are found, chance columns are not."""

import numpy as np
import pandas as pd
import pytest

from tests.data.frames import load

RNG = np.random.default_rng(0)
COUNT = 400
LABELS = RNG.integers(2, size=COUNT)
LEAKING = {
    "id": np.where(LABELS, 5000, 0) + RNG.permutation(COUNT),
    "id_as_text": [f"{5000 * label + number}" for label, number in zip(LABELS, RNG.permutation(COUNT), strict=True)],
    "date": [f"2020-{1 + 6 * label + RNG.integers(6):02d}-01" for label in LABELS],
    "time": pd.to_datetime("2020-01-01") + pd.to_timedelta(LABELS * 90 + RNG.random(COUNT) * 80, unit="D"),
    "author": [f"u{2 * RNG.integers(20) + label}" for label in LABELS],
}
HARMLESS = {
    "name of the label": np.where(LABELS, "positive", "negative"),
    "id": RNG.permutation(COUNT),
    "hash": [f"{RNG.integers(2**40):x}" for _ in range(COUNT)],
    "country": RNG.choice(["de", "fr"], COUNT),
    "number": RNG.normal(size=COUNT),
    "missing": [None] * COUNT,
    "list": [[1, 2]] * COUNT,
}


def findings(**columns):
    texts = [f"text {number}" for number in range(COUNT)]
    return load(pd.DataFrame({"text": texts, "label": LABELS, **columns})).findings


@pytest.mark.parametrize("name", LEAKING)
def test_a_column_that_tells_the_label_is_found(name):
    (finding,) = findings(**{name: LEAKING[name]})
    assert finding.kind == "column that tells the label"
    assert f"“{name}”" in finding.text
    assert finding.details["accuracy"] > 0.9


def test_columns_without_the_label_are_no_findings():
    assert findings(**HARMLESS) == ()


def test_the_advice_for_a_column_of_sources_is_to_group_by_it():
    (finding,) = findings(author=LEAKING["author"])
    assert "--group author" in finding.advice


def test_a_rare_class_is_not_told_by_the_most_frequent_label():
    labels = (RNG.random(COUNT) < 0.05).astype(int)
    data = pd.DataFrame({"text": [f"t {n}" for n in range(COUNT)], "label": labels, "c": RNG.choice(list("ab"), COUNT)})
    assert load(data).findings == ()
