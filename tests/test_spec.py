"""Parsing of studies, strategies and runs, and their error messages of one line."""

import re

import pytest

from tuneoff.data.spec import Fold
from tuneoff.errors import ConfigError
from tuneoff.scoring.metrics import metric_options
from tuneoff.search.space import SearchSpec
from tuneoff.spec import (
    Job,
    RunSpec,
    StudySpec,
    merged_predictions,
    parse_strategy,
    read_study,
    study_from,
    write_study,
)
from tuneoff.strategies import Full, LoRA, Probe
from tuneoff.studies import packaged_studies


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


@pytest.mark.parametrize(
    "notation",
    [
        "lora:rank=16:targets=query+key",
        {"lora": {"rank": 16, "targets": ["query", "key"]}},
        LoRA(rank=16, targets=("query", "key")),
    ],
)
def test_a_strategy_can_be_written_three_ways(notation):
    assert parse_strategy(notation) == LoRA(rank=16, targets=("query", "key"))
    assert parse_strategy(notation).label == "lora rank=16 targets=query+key"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": {"source": "x"}, "strategies": ["lroa"]}, r"strategy 'lroa' is unknown; did you mean 'lora'\?"),
        ({"data": {"source": "x"}, "strategies": ["lora:rnk=4"]}, r"key 'rnk' is unknown; did you mean 'rank'\?"),
        ({"data": {"source": "x"}, "strategies": ["lora:rank"]}, "'rank' is not option=value"),
        ({"data": {"source": "x"}, "strategies": ["lora:rank=0"]}, "strategy lora: rank: .* not 0"),
        ({"data": {"source": "x"}, "strategies": ["lora:targets=keys"]}, "strategy lora: targets.*not 'keys'"),
        ({"data": {"source": "x"}, "strategies": [7]}, "neither a name nor"),
        ({"data": {"source": "x"}, "strategies": []}, "strategies: .*at least 1"),
        ({"data": {"source": "x"}, "stratgies": []}, r"key 'stratgies' is unknown; did you mean 'strategies'\?"),
        ({"data": {"sorce": "x"}}, r"key 'sorce' is unknown; did you mean 'source'\?"),
        ({"data": {"source": "x"}, "recipe": {"epoch": 1}}, r"key 'epoch' is unknown; did you mean 'epochs'\?"),
        ({"data": {"source": "x"}, "metric": "f3"}, "metric 'f3' is unknown; .*macro_f1"),
        ({"data": {"source": "x"}, "predictions": ["gpt.csv"]}, "'gpt.csv' are not name=file; write e.g. gpt=gpt.csv"),
        ({"data": {"source": "x"}, "predictions": ["a/b=x.csv"]}, "name: 'a/b' does not fit the pattern"),
        ({"data": {"source": "x"}, "predictions": ["gpt="]}, "predictions.0.file: .*at least 1 character"),
        ({"data": {"source": "x"}, "predictions": ["LoRA=x.csv"]}, "'LoRA' have the name of a strategy"),
        ({"data": {"source": "x"}, "predictions": ["a=x.csv", "A=y.csv"]}, "'a' are given twice"),
        ({"data": {"source": "x"}, "predictions": ["a=x.csv:usd=much"]}, "cost.usd: .*number, not 'much'"),
        ({"data": {"source": "x"}, "predictions": ["a=x.csv:usd=-1"]}, "cost.usd: .*equal to 0, not '-1'"),
        (
            {"data": {"source": "x"}, "predictions": [{"name": "a", "file": "x", "cost": {"usd": None}}]},
            "cost.usd: .*number, not None",
        ),
        (
            {"data": {"source": "x"}, "predictions": ["a=x.csv:price=1"]},
            "cost: key 'price' should be 'seconds', 'usd', ",
        ),
        (
            {"data": {"source": "x"}, "predictions": [{"name": "a", "fle": "x"}]},
            "predictions.0.*file|key 'predictions.0.fle' is unknown",
        ),
        ({"data": {"source": "x"}, "rates": {"usd_per_hour": -1}}, "rates.usd_per_hour: .*equal to 0, not -1"),
        ({"data": {"source": "x"}, "rates": {"usd_per_hour": "much"}}, "rates.usd_per_hour: .*number, not 'much'"),
        (
            {"data": {"source": "x"}, "rates": {"usd_per_our": 1}},
            r"key 'usd_per_our' is unknown; did you mean 'usd_per_hour'\?",
        ),
        ({"data": {"source": "x"}, "cost": "co2_grams"}, "cost co2_grams needs rates.grams_per_kwh; .*--grams-per-kwh"),
        ({"data": {"source": "x"}, "seeds": 0}, "seeds: .*at least 1"),
        ({"data": {"source": "x"}, "name": "../up"}, "name: .*pattern"),
        ({"data": {"source": "x"}, "name": ".."}, "name: .*pattern"),
        (
            {"data": {"source": "x"}, "strategies": ["lora:targets=[query"]},
            r"cannot be read; several values are written a\+b",
        ),
        ({"data": {"source": "x"}, "evaluate": {"folds": 1}}, "evaluate.folds: .*greater than or equal to 2, not 1"),
        (
            {"data": {"source": "x"}, "evaluate": 5},
            r"evaluate 5 is neither folds nor a split; write evaluate: {folds: 5}",
        ),
        ({"data": {"source": "x"}, "evaluate": {"fold": 5}}, "evaluate {'fold': 5} is neither folds nor a split"),
        (
            {"data": {"source": "x"}, "evaluate": {"folds": 5}, "seeds": 3},
            "seeds do not go with 5 folds, which take their place; leave out seeds, or evaluate on one split",
        ),
        ({}, "data: Field required"),
    ],
)
def test_invalid_keys_and_values_raise_one_line_that_names_the_nearest_valid_one(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        study_from(fields)
    assert "\n" not in str(caught.value)


def test_a_single_value_is_parsed_as_a_list_of_one():
    assert parse_strategy("lora:targets=query:layers=1") == LoRA(targets=("query",), layers=(1,))
    assert parse_strategy({"probe": {"C": 0.1}}) == Probe(C=(0.1,))


def test_a_written_study_reads_back_the_same(tmp_path):
    spec = study_from(
        {"data": {"source": "x.csv"}, "strategies": ["lora:rank=4", "full", "probe"], "seeds": [1, 42], "name": "mine"}
    )
    write_study(spec, tmp_path / "study.yaml")
    assert "weight_decay: 0.01" in (tmp_path / "study.yaml").read_text()  # defaults are written too
    assert read_study(str(tmp_path / "study.yaml")) == spec


@pytest.mark.parametrize(
    ("fields", "folds", "seeds"),
    [
        ({}, 5, None),
        ({"evaluate": None, "seeds": None}, 5, None),
        ({"seeds": 2}, None, (0, 1)),
        ({"seeds": [0, 1, 2]}, None, (0, 1, 2)),  # as earlier versions stored it
        ({"evaluate": "split"}, None, (0, 1, 2)),
        ({"evaluate": {"folds": 3}}, 3, None),
    ],
)
def test_seeds_mean_one_split_and_a_resolved_study_stays_as_it_is(fields, folds, seeds, tmp_path):
    spec = study_from({"data": {"source": "x"}, **fields})
    num_folds = spec.num_folds if spec.evaluate else 5  # as the data of a small study decide
    resolved = spec.resolved(num_folds)
    assert (resolved.num_folds, resolved.seeds) == (folds, seeds)
    write_study(resolved, tmp_path / "study.yaml")
    assert ("folds: 5" if folds == 5 else "folds: 3" if folds else "evaluate: split") in (
        tmp_path / "study.yaml"
    ).read_text()
    again = read_study(str(tmp_path / "study.yaml"))
    assert again.model_copy(update={"name": "study"}) == resolved
    assert again.resolved(again.num_folds) == again


def test_ids_of_runs_without_folds_are_those_of_earlier_versions():
    assert run_spec().run_id == "lora-5f9f7055-s0"
    fold = Fold(index=2, of=5, validation_fraction=0.1, split_seed=0)
    on_fold = run_spec(fold=fold, seed=2)
    assert on_fold.group == run_spec(fold=fold.model_copy(update={"index": 0}), seed=0).group != run_spec().group
    assert on_fold.run_id == f"{on_fold.group}-s2"
    assert Job(run=on_fold).title == "lora fold 2"


def test_a_number_of_seeds_is_parsed_as_the_first_seeds():
    assert study_from({"data": {"source": "x"}, "seeds": 2}).seeds == (0, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [", "is not YAML"), ("- a\n- b", "holds list, not keys"), ("", "holds NoneType")],
)
def test_a_file_that_holds_no_study_raises(content, message, tmp_path):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_study(str(tmp_path / "bad.yaml"))


def test_a_missing_study_raises_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"does not exist; did you mean studies:quickstart\?"):
        read_study("quickstart")
    with pytest.raises(ConfigError, match=r"study 'quikstart' is unknown; did you mean 'quickstart'"):
        read_study("studies:quikstart")
    assert isinstance(read_study("studies:quickstart"), StudySpec)


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
    ("fields", "label_names", "message"),
    [
        ({"positive": "maybe"}, "no yes", "positive class 'maybe' is none of the labels; choose from no, yes"),
        ({"threshold": "validation"}, "a b c", "threshold: validation is for two classes, and the data has 3; leave it out"),
        ({"threshold": "validation", "select_by": "roc_auc"}, "no yes", "threshold: validation is chosen by the metric that selects, and roc_auc does not depend on it"),
    ],
)  # fmt: skip
def test_roles_that_the_labels_do_not_have_are_one_line(fields, label_names, message):
    spec = study_from({"data": {"source": "x"}, **fields})
    with pytest.raises(ConfigError, match=message):
        spec.selection_metric(spec.metric_options(label_names.split(), False))


def test_a_threshold_of_one_half_is_the_default():
    assert study_from({"data": {"source": "x"}, "threshold": 0.5}).threshold is None
    assert study_from({"data": {"source": "x"}, "threshold": "validation"}).threshold == "validation"
    with pytest.raises(ConfigError, match=r"threshold 0.3 is neither validation nor 0.5"):
        study_from({"data": {"source": "x"}, "threshold": 0.3})


def test_epochs_are_selected_by_the_ranking_metric_unless_another_is_named():
    options = metric_options(["no", "yes"], False)
    spec = study_from({"data": {"source": "x"}, "metric": "f1"})
    assert (spec.ranking_metric(options), spec.selection_metric(options)) == ("f1", "f1")
    spec = study_from({"data": {"source": "x"}, "metric": "f1", "select_by": "log_loss"})
    assert (spec.ranking_metric(options), spec.selection_metric(options)) == ("f1", "log_loss")


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


def test_a_strategy_may_be_a_config_object():
    fields = {"data": {"source": "x"}, "strategies": (Full(layer_decay=0.9),), "baselines": False}
    assert study_from(fields).strategies == (Full(layer_decay=0.9),)


@pytest.mark.parametrize(
    ("strategies", "names"),
    [(["full"], ["majority", "tfidf", "full"]), (["full", "tfidf:C=2.0"], ["majority", "full", "tfidf"])],
)
def test_missing_baselines_are_added(strategies, names):
    assert [s.name for s in study_from({"data": {"source": "x"}, "strategies": strategies}).strategies] == names


def test_the_cost_of_an_earlier_version_is_read_under_its_new_name(tmp_path):
    # train_seconds was training and the frozen blocks' one pass, which is fit_seconds now
    (tmp_path / "study.yaml").write_text("data: {source: x.csv}\ncost: train_seconds\n")
    assert read_study(str(tmp_path / "study.yaml")).cost == "fit_seconds"
    with pytest.raises(ConfigError, match=r"cost 'tokenize_seconds' is unknown; .*fit_seconds"):
        study_from({"data": {"source": "x"}, "cost": "tokenize_seconds"})


def test_predictions_are_written_in_short_or_in_full():
    short = study_from({"data": {"source": "x"}, "predictions": ["gpt=a:b.csv:seconds=0.8:usd=0.002"]})
    full = {"name": "gpt", "file": "a:b.csv", "cost": {"seconds": 0.8, "usd": 0.002}}
    assert short == study_from({"data": {"source": "x"}, "predictions": [full]})


def test_predictions_given_again_keep_their_costs_unless_stated():
    stored = study_from({"data": {"source": "x"}, "predictions": ["gpt=a.csv:usd=1", "bert=b.csv"]}).predictions
    merged = merged_predictions(stored, ["gpt=c.csv", "bert=b.csv:seconds=2", "new=n.csv"])
    assert [(entry["name"], entry["file"], entry["cost"]) for entry in merged] == [
        ("gpt", "c.csv", {"usd": 1.0}),
        ("bert", "b.csv", {"seconds": 2.0}),
        ("new", "n.csv", {}),
    ]


def test_a_published_score_in_percent_raises():
    reported = {"strategy": "full", "score": 86.1, "source": "a paper"}
    with pytest.raises(ConfigError, match=r"reported accuracy 86.1 is not from 0 to 1; write 0.93 for 93 %"):
        study_from({"data": {"source": "x"}, "reported": [reported]})


def test_a_published_score_names_a_strategy_of_the_study():
    fields = {"data": {"source": "x"}, "strategies": ["full", "lora:rank=16"]}

    def reported(strategy):
        return study_from({**fields, "reported": [{"strategy": strategy, "score": 0.8, "source": "s"}]}).reported[0]

    assert [reported(name).strategy for name in ("full", "lora", "lora rank=16")] == ["full", "lora", "lora rank=16"]
    with pytest.raises(ConfigError, match="reported strategy 'lora rank=8' is unknown; did you mean 'lora rank=16'"):
        reported("lora rank=8")


@pytest.mark.parametrize("name", packaged_studies())
def test_every_packaged_study_reads(name):
    study = read_study(f"studies:{name}")
    assert study.name == name
    assert study_from(study.model_dump(mode="json")) == study


@pytest.mark.parametrize("name", packaged_studies())
def test_published_scores_name_one_strategy_each_on_any_encoder(name):
    study = read_study(f"studies:{name}")
    labels = [strategy.label for strategy in study.strategies]
    names = [strategy.name for strategy in study.strategies]
    for entry in study.reported:
        assert (labels.count(entry.strategy) or names.count(entry.strategy)) == 1, entry


def test_a_single_fraction_is_a_learning_curve_of_one_point():
    spec = study_from({"data": {"source": "a.csv"}, "fractions": 0.5})
    assert spec.fractions == (0.5,)
    with pytest.raises(ConfigError, match=r"write 0\.05 for 5 %"):
        study_from({"data": {"source": "a.csv"}, "fractions": "5 %"})
