"""Ids, groups and titles of runs and searches."""

import re

import pytest

from tuneoff.data.spec import Fold
from tuneoff.search.space import SearchSpec
from tuneoff.spec.run import Job, RunSpec


def run_spec(**changes):
    fields = {
        "strategy": "lora",
        "model": "m",
        "model_fingerprint": "f",
        "data_fingerprint": "d",
        "recipe": {},
        "metric": "accuracy",
        "seed": 0,
    }
    return RunSpec.model_validate({**fields, **changes})


def test_ids_of_runs_without_folds_are_those_of_earlier_versions():
    assert run_spec().run_id == "lora-5f9f7055-s0"
    fold = Fold(index=2, of=5, validation_fraction=0.1, split_seed=0)
    on_fold = run_spec(fold=fold, seed=2)
    assert on_fold.group == run_spec(fold=fold.model_copy(update={"index": 0}), seed=0).group != run_spec().group
    assert on_fold.run_id == f"{on_fold.group}-s2"
    assert Job(run=on_fold).title == "lora fold 2"


@pytest.mark.parametrize(
    ("changes", "has_same_group"),
    [
        ({"seed": 1}, True),
        ({"save_model": False}, True),
        ({"recipe": {"epochs": 5}}, False),
        ({"strategy": "lora:rank=4"}, False),
        ({"data_fingerprint": "e"}, False),
        ({"model_fingerprint": "g"}, False),
        ({"metric": "macro_f1"}, False),
        ({"subset": {"fraction": 0.5, "per_class": None}}, False),
        ({"searched_options": {"learning_rate": 1e-3}}, False),
        ({"fold": {"index": 0, "of": 5, "validation_fraction": 0.1, "split_seed": 0}}, False),
        ({"final": {"epochs": 2}}, False),
        ({"threshold": "validation"}, False),
        ({"positive": "yes"}, True),  # accuracy selects
        ({"ordered": True}, True),
    ],
)
def test_runs_that_differ_only_in_seed_or_storage_share_a_group(changes, has_same_group):
    assert (run_spec(**changes).group == run_spec().group) == has_same_group


def test_the_positive_class_counts_for_a_run_that_is_selected_by_its_score():
    groups = [run_spec(metric="f1", positive=name).group for name in ("yes", "no")]
    assert groups[0] != groups[1]


@pytest.mark.parametrize(
    ("strategy", "recipe", "has_same_group"),
    [
        ("tfidf", {"epochs": 5}, True),  # it reads texts only
        ("probe", {"epochs": 5}, True),
        ("probe", {"max_length": 5}, False),
    ],
)
def test_the_recipe_counts_for_a_strategy_only_where_it_is_used(strategy, recipe, has_same_group):
    assert (run_spec(strategy=strategy, recipe=recipe).group == run_spec(strategy=strategy).group) == has_same_group


# ids in stored studies (commit 7cb8e77); another id would make every stored run train again
@pytest.mark.parametrize(
    ("changes", "run_id"),
    [
        ({}, "lora-5f9f7055-s0"),
        ({"strategy": "lora:rank=16:targets=query+key"}, "lora-82d1d13b-s0"),
        ({"strategy": "tfidf", "model": None, "model_fingerprint": None}, "tfidf-9eb3438e-s0"),
        ({"strategy": "probe"}, "probe-428be3c5-s0"),
        ({"strategy": {"peft": {"type": "dora"}}}, "peft-d8632004-s0"),
        ({"recipe": {"epochs": 5, "class_weights": "balanced"}}, "lora-37c5679b-s0"),
        ({"subset": {"fraction": None, "per_class": 8}}, "lora-8b0201e6-s0"),
        ({"searched_options": {"learning_rate": 1e-3}}, "lora-61eb2307-s0"),
    ],
)
def test_run_ids_of_stored_runs_stay_valid(changes, run_id):
    assert run_spec(**changes).run_id == run_id


def test_ids_of_stored_searches_stay_valid():
    search = SearchSpec(trials=3, spaces={"lora": {"rank": [4, 8]}})
    assert Job(run=run_spec(), search=search).job_id == "search-lora-6d08d530"


def test_searched_options_give_another_group_than_the_same_options_set_by_the_user():
    searched = run_spec(searched_options={"learning_rate": 1e-3})
    by_user = run_spec(strategy="lora:learning_rate=0.001")
    assert searched.config == by_user.config
    assert searched.group != by_user.group


def test_a_job_of_a_run_has_the_id_and_the_title_of_the_run():
    job = Job(run=run_spec(seed=3))
    assert job.job_id == job.run.run_id
    assert re.fullmatch("lora-[0-9a-f]{8}-s3", job.job_id)
    assert job.title == "lora seed 3"
    assert job.space == {}


def test_the_id_of_a_search_depends_on_its_space_and_not_on_its_budget():
    def search_id(**search):
        return Job(run=run_spec(), search=SearchSpec(**search)).job_id

    assert re.fullmatch("search-lora-[0-9a-f]{8}", search_id(trials=2))
    assert search_id(trials=2) == search_id(trials=8) == search_id(budget=60)
    assert search_id(trials=2) != search_id(trials=2, halving=False)
    assert search_id(trials=2) != search_id(trials=2, spaces={"lora": {"rank": [4, 8]}})
    assert Job(run=run_spec(), search=SearchSpec(trials=2)).title == "lora search"
