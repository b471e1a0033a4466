"""Settings of a study, and their error messages of one line."""

import pytest

from tuneoff.errors import ConfigError
from tuneoff.scoring.metrics import metric_options
from tuneoff.spec.file import read_study, study_from, write_study
from tuneoff.spec.strategy import parse_strategy
from tuneoff.strategies import LoRA, Probe


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
        ({"data": {"source": "x"}, "time": "soon"}, "time 'soon' is not a time; write 10m, 90s or 1h"),
        ({"data": {"source": "x"}, "time": 0}, "time 0 is not from 1 second to 30 days"),
        ({"data": {"source": "x"}, "time": True}, "time True is not a time"),
        ({"data": {"source": "x"}, "time": "1m", "fractions": [0.1]}, "time does not go with a learning curve"),
        ({"data": {"source": "x"}, "race": True, "seeds": {"head": 2}}, "race does not go with seeds by source"),
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


def test_a_number_of_seeds_is_parsed_as_the_first_seeds():
    assert study_from({"data": {"source": "x"}, "seeds": 2}).seeds == (0, 1)


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


def test_a_single_fraction_is_a_learning_curve_of_one_point():
    spec = study_from({"data": {"source": "a.csv"}, "fractions": 0.5})
    assert spec.fractions == (0.5,)
    with pytest.raises(ConfigError, match=r"write 0\.05 for 5 %"):
        study_from({"data": {"source": "a.csv"}, "fractions": "5 %"})
