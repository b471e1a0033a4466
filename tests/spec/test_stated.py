"""Published scores and predictions that a study states."""

import pytest

from tuneoff.errors import ConfigError
from tuneoff.spec.file import read_study, study_from
from tuneoff.spec.stated import merged_predictions
from tuneoff.studies import packaged_studies


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
def test_published_scores_name_one_strategy_each_on_any_encoder(name):
    study = read_study(f"studies:{name}")
    labels = [strategy.label for strategy in study.strategies]
    names = [strategy.name for strategy in study.strategies]
    for entry in study.reported:
        assert (labels.count(entry.strategy) or names.count(entry.strategy)) == 1, entry
