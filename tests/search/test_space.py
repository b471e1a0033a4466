"""Search budgets and search spaces as a study writes them."""

import pytest

from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.search.space import Range, SearchSpec, parse_spaces, recipe_values
from tuneoff.spec.file import study_from
from tuneoff.spec.strategy import parse_strategy


def test_the_space_of_a_strategy_is_its_learning_rate_within_two_factors():
    rates = SearchSpec(trials=4).space_of(parse_strategy("lora"))["learning_rate"]
    assert isinstance(rates, Range)
    assert (rates.low, rates.high) == pytest.approx((5e-4 / 9, 5e-4 * 9))


def test_a_learning_rate_that_the_study_sets_is_searched_only_if_a_space_names_it():
    strategy = parse_strategy("lora:learning_rate=0.001")
    assert SearchSpec(trials=4).space_of(strategy) == {}
    search = SearchSpec(trials=4, spaces={"lora": {"learning_rate": {"low": 1e-4, "high": 1e-2}}})
    assert list(search.space_of(strategy)) == ["learning_rate"]


@pytest.mark.parametrize("short", [4, "4", {"trials": 4}])
def test_a_number_of_trials_has_short_forms(short):
    assert study_from({"data": {"source": "x"}, "search": short}).search == SearchSpec(trials=4)


@pytest.mark.parametrize(("short", "seconds"), [("10m", 600), ("90s", 90), ("1.5h", 5400)])
def test_a_time_budget_has_short_forms(short, seconds):
    assert study_from({"data": {"source": "x"}, "search": short}).search == SearchSpec(budget=seconds)


def test_none_turns_the_search_off():
    assert study_from({"data": {"source": "x"}, "search": "none"}).search is None


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"trials": 0}, "search.trials: .*greater than or equal to 1"),
        ({}, "search needs either trials or a budget"),
        ({"trials": 4, "budget": "10m"}, "search needs either trials or a budget"),
        ("often", "search 'often' is neither trials nor a time; write 4, 10m or none"),
        ({"budget": "soon"}, "search.budget: .*not 'soon'"),
        ("1.2.3s", "search '1.2.3s' is neither trials nor a time"),
        (2.5, "search 2.5 is neither trials nor a time"),
        (True, "search True is neither trials nor a time"),
        ({"budgt": "10m"}, "key of search 'budgt' is unknown; did you mean 'budget'"),
        ({"trials": 4, "spaces": {"lora": {"rank": []}}}, r"search space \[\] has no values; write a list"),
        ({"trials": 4, "spaces": {"lora": {"rank": 4}}}, "search space 4 has no values"),
        ({"trials": 4, "spaces": {"lora": {"learning_rate": {"low": 1e-2, "high": 1e-4}}}}, "from low 0.01 to high 0.0001 is empty; swap or widen it"),
        ({"trials": 4, "spaces": {"lora": {"dropout": {"low": 0, "high": 0.3}}}}, "sampled on a log scale; start above 0"),
        ({"trials": 4, "spaces": {"lroa": {"rank": [4]}}}, "search space for strategy 'lroa' is unknown; did you mean 'lora'"),
        ({"trials": 4, "spaces": {"lora": {"rnk": [4]}}}, "key 'rnk' is unknown; did you mean 'rank'"),
        ({"trials": 4, "spaces": {"lora": {"rank": [4, 0]}}}, "search space of lora: rank: .*not 0"),
        ({"trials": 4, "spaces": {"lora": {"epochs": [2, 0]}}}, "search space of the recipe: epochs: .*not 0"),
        ({"trials": 4, "spaces": {"recipe": {"epoch": [2]}}}, "search space of the recipe: key 'epoch' is unknown; did you mean 'epochs'"),
        ({"trials": 4, "spaces": {"recipe": {"max_length": [64]}}}, "max_length changes the texts' tokens"),
        ({"trials": 4, "spaces": {"tfidf": {"recipe.epochs": [2]}}}, "search space of tfidf: it does not depend on recipe.epochs"),
    ],
)  # fmt: skip
def test_an_invalid_search_raises_one_line(search, message):
    with pytest.raises(ConfigError, match=message) as caught:
        study_from({"data": {"source": "x"}, "strategies": ["lora"], "search": search})
    assert "\n" not in str(caught.value)


def test_options_of_the_recipe_are_searched_with_those_of_a_strategy():
    search = SearchSpec(
        trials=4, spaces={"recipe": {"batch_size": [8, 16]}, "lora": {"epochs": [2, 3], "dropout": [0.1]}}
    )
    space = search.space_of(parse_strategy("lora"))
    assert list(space) == ["learning_rate", "recipe.batch_size", "recipe.epochs", "dropout"]  # dropout is LoRA's own
    assert "recipe.batch_size" not in search.space_of(parse_strategy("tfidf"))
    assert recipe_values(Recipe(epochs=5), space) == {"recipe.batch_size": 16, "recipe.epochs": 5}


def test_spaces_are_read_from_the_command_line():
    spaces = parse_spaces(
        ["lora.rank=4,8,lora.learning_rate=1e-5..1e-3", "recipe.dropout=0..0.3", "full.recipe.epochs=2"]
    )
    assert spaces == {
        "lora": {"rank": [4, 8], "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
        "recipe": {"dropout": {"low": 0, "high": 0.3, "log": False}},
        "full": {"recipe.epochs": [2]},
    }
    assert parse_spaces(["lora:rank=4.targets=query,query+value"]) == {
        "lora rank=4": {"targets": ["query", ["query", "value"]]}
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank=4", "'rank=4' is not strategy.option=values; write lora.rank=4,8,16"),
        ("lora.rank", "is not strategy.option=values"),
        ("lora.rank=", "is not strategy.option=values"),
        ("lora.rank=a..8", "'a..8' is not two numbers"),
        ("lora.rank=4,lora.rank=8", "names lora.rank twice"),
    ],
)
def test_a_space_that_cannot_be_read_is_one_line(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_spaces([text])
