"""Recipes and encoders of single strategies: labels, ids, tokens, and what a report says of them."""

from typing import Any

import pytest

from tests.studies import toy_spec
from tuneoff.cli.options import with_spaces, without_encoders
from tuneoff.errors import ConfigError
from tuneoff.grid import estimates, prepare
from tuneoff.spec.file import study_from
from tuneoff.spec.run import Job
from tuneoff.spec.strategy import parse_strategy
from tuneoff.study import Study

OWN = "lora:rank=4:recipe.batch_size=8:recipe.epochs=2"


def by_label(prepared):
    return {run.strategy.label: run for run in prepared.runs}


def test_a_strategy_with_a_recipe_shows_it_and_runs_with_it(encoder, toy_csv):
    runs = by_label(prepare(toy_spec(encoder, toy_csv, strategies=["lora:rank=4", OWN, "full"])))
    own = runs["lora rank=4 recipe.batch_size=8 recipe.epochs=2"]
    assert (own.recipe.batch_size, own.recipe.epochs, own.recipe.max_length) == (8, 2, 16)
    assert (runs["full"].recipe.batch_size, runs["full"].recipe.epochs) == (4, 4)
    assert own.run_id != runs["lora rank=4"].run_id


def test_a_recipe_is_written_in_three_ways():
    same = [OWN, {"lora": {"rank": 4, "recipe": {"batch_size": 8, "epochs": 2}}}, {"lora": {"rank": 4, "recipe.batch_size": 8, "recipe.epochs": 2}}]  # fmt: skip
    assert len({parse_strategy(given) for given in same}) == 1
    spec = study_from({"data": {"source": "x"}, "strategies": [OWN]})
    assert study_from(spec.model_dump(mode="json")) == spec
    assert "recipe" not in parse_strategy("lora").to_json()


def test_a_strategy_may_run_on_some_encoders_only_and_keeps_its_run_ids(encoder, toy_csv):
    everywhere = prepare(toy_spec(encoder, toy_csv, strategies=["head"]))
    chosen = prepare(toy_spec(encoder, toy_csv, strategies=[{"head": {"encoders": [str(encoder)]}}, "head"]))
    assert [run.run_id for run in chosen.runs] == [run.run_id for run in everywhere.runs]


def test_a_strategy_may_truncate_by_its_own_recipe(encoder, toy_csv):
    prepared = prepare(toy_spec(encoder, toy_csv, strategies=["head", "head:recipe.max_length=5"]))
    short, whole = by_label(prepared)["head recipe.max_length=5"], by_label(prepared)["head"]
    tables = [prepared.tokens_of(run) or {} for run in (short, whole)]
    tokens = [int(table["train"].lengths.max()) for table in tables]
    assert tokens[0] == 5 < tokens[1]
    planned = estimates(prepared, [Job(run=short), Job(run=whole)])
    assert planned[0].operations < planned[1].operations


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("lora:recipe.epoch=2", "recipe of strategy lora: key 'epoch' is unknown; did you mean 'epochs'"),
        ("lora:epochs=2", "strategy lora: epochs is an option of the recipe; write recipe.epochs"),
        ("lora:recipe.epochs=0", "recipe of strategy lora: epochs: .*not 0"),
        ("tfidf:recipe.epochs=2", "strategy tfidf does not depend on epochs of the recipe; it uses class_weights"),
        ("lora:recipe.learning_rate=1e-4", "strategy lora: learning_rate is its own option; leave out 'recipe.'"),
        ({"lora": {"recipe": 4}}, "recipe 4 is not option: value; write recipe: {batch_size: 18}"),
        ("lora:encoders=brt", "strategy lora: encoder 'brt' is unknown"),
        ("tfidf:encoders=bert", "strategy tfidf uses no encoder; leave out encoders"),
    ],
)
def test_an_invalid_recipe_or_encoder_is_one_line(strategy, message):
    with pytest.raises(ConfigError, match=message) as caught:
        study_from({"data": {"source": "x"}, "model": "my/bert", "strategies": [strategy]})
    assert "\n" not in str(caught.value)


def test_runs_use_the_recipe_that_a_search_found_and_the_report_says_so(encoder, toy_csv, tmp_path):
    spec = toy_spec(
        encoder, toy_csv, strategies=["head", OWN], seeds=[0],
        search={"trials": 2, "spaces": {"head": {"learning_rate": [0.05], "recipe.epochs": [2, 3]}, "lora": {"learning_rate": [0.05]}}},
    )  # fmt: skip
    comparison = Study(spec, tmp_path / "s").run()
    record = next(r for r in comparison.records if r.strategy == "head")
    best = next(s for s in comparison.searches if s.strategy == "head").best
    assert best
    assert record.spec["searched_options"] == best.options
    assert record.spec["recipe"]["epochs"] == best.options["recipe.epochs"] in (2, 3)
    assert len(comparison.histories[record.run_id].query("kind == 'epoch'")) == best.options["recipe.epochs"]
    note = comparison.recipe_note
    assert "Recipes differ, so that strategies are not compared under equal conditions" in note
    assert "lora rank=4 recipe.batch_size=8 recipe.epochs=2 (epochs 2, batch_size 8)" in note
    assert "Recipes differ, so that strategies are not compared" in (tmp_path / "s" / "report.md").read_text()


def test_search_spaces_of_the_command_line_need_a_search():
    assert with_spaces("4", None) == "4"
    assert with_spaces("10m", ["lora.rank=4,8"]) == {"budget": "10m", "spaces": {"lora": {"rank": [4, 8]}}}
    with pytest.raises(ConfigError, match="--search-space needs a search"):
        with_spaces("none", ["lora.rank=4,8"])


def test_strategies_for_encoders_that_are_replaced_run_on_the_new_ones():
    given: list[dict[str, Any]] = [
        {"lora": {"rank": 4, "encoders": ["my/bert"]}},
        {"full": {"encoders": ["minilm"]}},
        {"head": {}},
    ]
    assert without_encoders(given, ["packaged:minilm"]) == [{"lora": {"rank": 4}}, given[1], given[2]]
