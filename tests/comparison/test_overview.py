"""Overview of several datasets: mean ranks, what is common, what the sentences say, and what cannot be joined."""

from dataclasses import replace

import numpy as np
import pytest

from tests.stored import stored_study
from tuneoff.comparison.overview import overview_of
from tuneoff.errors import ConfigError

# tfidf is clearly better than probe, and both than lora
CLEAR = [("majority", "majority", 0.5), ("lora", "lora", 0.6), ("probe", "probe", 0.75), ("tfidf", "tfidf", 0.95)]


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory):
    """Three comparisons of the same strategies on other data."""
    folder, made = tmp_path_factory.mktemp("overview"), {}
    for number, name in enumerate(("tweets", "reviews", "news")):
        comparison = stored_study(folder / name, CLEAR, num_test=400).comparison()
        data = replace(comparison.data, fingerprint=f"{number}" * 16)  # made of other texts, as it were
        made[name] = replace(comparison, data=data)
    return made


def test_strategies_are_ranked_over_the_datasets(comparisons):
    overview = overview_of("all", comparisons)
    assert [row.name for row in overview.ranked] == ["tfidf", "probe", "lora"]
    assert [row.mean_rank for row in overview.ranked] == [1, 2, 3]
    first, second = overview.ranked[:2]
    assert first.mean_difference is not None
    assert first.mean_difference[0] == 0
    assert first.num_best == 3
    assert first.share_best > 0.99
    assert second.rank_interval[0] <= 2 <= second.rank_interval[1]
    scores = [comparison["tfidf"].score - comparison["probe"].score for comparison in comparisons.values()]
    assert second.mean_difference is not None
    assert second.mean_difference[0] == pytest.approx(-np.mean(scores))


def test_strategies_that_do_not_use_the_text_have_scores_and_no_rank(comparisons):
    (row,) = [row for row in overview_of("all", comparisons).rows if row.mean_rank is None]
    assert row.name == "majority"
    assert list(row.scores) == ["tweets", "reviews", "news"]


def test_the_sentences_tell_these_datasets_from_others(comparisons):
    text = " ".join(overview_of("all", comparisons).summary)
    assert "Over 3 datasets tfidf ranks best of 3 strategies: mean rank 1.00" in text
    assert "Friedman's test: p = 0.0" in text
    assert "3 datasets are few" in text
    two = {name: comparisons[name] for name in ("tweets", "reviews")}
    assert "nothing can be shown" in " ".join(overview_of("all", two).summary)


def test_the_table_has_a_row_for_each_strategy(comparisons):
    table = overview_of("all", comparisons).table
    assert list(table["strategy"]) == ["tfidf", "probe", "lora", "majority"]
    assert table["tweets"].notna().all()


def test_a_strategy_that_a_dataset_lacks_is_not_ranked(comparisons, tmp_path):
    fewer = stored_study(tmp_path / "few", [*CLEAR[2:], ("full", "full", 0.8)], num_test=300).comparison()
    fewer = replace(fewer, data=replace(fewer.data, fingerprint="9" * 16))
    overview = overview_of("all", {"tweets": comparisons["tweets"], "few": fewer})
    assert [row.name for row in overview.ranked] == ["tfidf", "probe"]
    assert {row.name for row in overview.rows} == {"tfidf", "probe", "lora", "majority", "full"}


def test_what_cannot_be_joined_is_one_line(comparisons, tmp_path):
    tweets, reviews = comparisons["tweets"], comparisons["reviews"]
    other = stored_study(tmp_path / "other", [("full", "full", 0.8)]).comparison()
    other = replace(other, data=replace(other.data, fingerprint="8" * 16))
    cases = [
        ({"tweets": tweets}, "two datasets or more"),
        ({"tweets": tweets, "reviews": replace(reviews, metric="macro_f1")}, "different metrics .*--metric"),
        ({"tweets": tweets, "again": tweets}, "same data"),
        ({"tweets": tweets, "other": other}, "no strategy in common"),
    ]
    for given, message in cases:
        with pytest.raises(ConfigError, match=message) as error:
            overview_of("all", given)
        assert "\n" not in str(error.value)
