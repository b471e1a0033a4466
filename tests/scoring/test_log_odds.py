"""Log-odds ratios: those of the words of errors, and symmetric between two groups of equal size."""

import numpy as np
import pytest

from tests.tiny import toy_texts
from tuneoff.comparison.errors import over_represented_words
from tuneoff.scoring.log_odds import log_odds_ratios


def test_they_are_those_of_the_words_of_errors():
    texts, labels = toy_texts(200, np.random.default_rng(0))
    table = over_represented_words(texts, labels.astype(float)).set_index("word")
    inside, everywhere = table["in_errors"].to_numpy(), table["texts"].to_numpy()
    gap, deviation = log_odds_ratios(inside, everywhere, 100, 200)
    assert gap == pytest.approx(table["log_odds"].to_numpy())
    assert 1.959964 * deviation == pytest.approx((table["high"] - table["low"]).to_numpy() / 2)


def test_two_halves_mirror_each_other():
    inside, everywhere = np.array([30, 2, 9]), np.array([40, 9, 18])
    gap, deviation = log_odds_ratios(inside, everywhere, 50, 100)
    mirrored, same = log_odds_ratios(everywhere - inside, everywhere, 50, 100)
    assert mirrored == pytest.approx(-gap)
    assert same == pytest.approx(deviation)
