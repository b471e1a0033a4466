"""What a user may write, and the one line for what they may not."""

import pytest

from tuneoff.errors import ConfigError
from tuneoff.spec import RunSpec, StudySpec, packaged_studies, parse_strategy, read_study, study_from, write_study
from tuneoff.strategies import Full, LoRA


def run_spec(**changes):
    given = {
        "strategy": "lora",
        "model": "m",
        "model_fingerprint": "f",
        "data_fingerprint": "d",
        "recipe": {},
        "metric": "accuracy",
        "seed": 0,
    }
    return RunSpec.model_validate({**given, **changes})


@pytest.mark.parametrize(
    "given",
    [
        "lora:rank=16:targets=query+key",
        {"lora": {"rank": 16, "targets": ["query", "key"]}},
        LoRA(rank=16, targets=("query", "key")),
    ],
)
def test_a_strategy_can_be_written_three_ways(given):
    assert parse_strategy(given) == LoRA(rank=16, targets=("query", "key"))
    assert parse_strategy(given).label == "lora rank=16 targets=query+key"


@pytest.mark.parametrize(
    ("given", "message"),
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
        ({"data": {"source": "x"}, "metric": "f1"}, "metric 'f1' is unknown; .*macro_f1"),
        ({"data": {"source": "x"}, "seeds": 0}, "seeds: .*at least 1"),
        ({"data": {"source": "x"}, "name": "../up"}, "name: .*pattern"),
        ({"data": {"source": "x"}, "name": ".."}, "name: .*pattern"),
        (
            {"data": {"source": "x"}, "strategies": ["lora:targets=[query"]},
            r"cannot be read; several values are written a\+b",
        ),
        ({}, "data: Field required"),
    ],
)
def test_mistakes_are_one_line_with_the_nearest_name(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        study_from(given)
    assert "\n" not in str(caught.value)


def test_one_value_stands_for_a_list_of_one():
    assert parse_strategy("lora:targets=query:layers=1") == LoRA(targets=("query",), layers=(1,))
    assert parse_strategy({"probe": {"C": 0.1}}).C == (0.1,)


def test_a_written_study_reads_back_the_same(tmp_path):
    spec = study_from(
        {"data": {"source": "x.csv"}, "strategies": ["lora:rank=4", "full", "probe"], "seeds": [1, 42], "name": "mine"}
    )
    write_study(spec, tmp_path / "study.yaml")
    text = (tmp_path / "study.yaml").read_text()
    assert "weight_decay: 0.01" in text  # defaults are written out
    assert read_study(str(tmp_path / "study.yaml")) == spec


def test_seeds_may_be_a_count():
    assert study_from({"data": {"source": "x"}, "seeds": 2}).seeds == (0, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [", "is not YAML"), ("- a\n- b", "holds list, not keys"), ("", "holds NoneType")],
)
def test_files_that_are_no_study_say_so(content, message, tmp_path):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_study(str(tmp_path / "bad.yaml"))


def test_a_study_that_does_not_exist_says_so():
    with pytest.raises(ConfigError, match=r"does not exist; did you mean studies:quickstart\?"):
        read_study("quickstart")
    with pytest.raises(ConfigError, match=r"study 'quikstart' is unknown; did you mean 'quickstart'"):
        read_study("studies:quikstart")
    assert isinstance(read_study("studies:quickstart"), StudySpec)


def test_the_fingerprint_follows_what_matters_alone():
    base = run_spec()
    assert base.run_id.startswith("lora-")
    assert base.run_id.endswith("-s0")
    assert run_spec(seed=1).group == base.group
    assert run_spec(save_model=False).run_id == base.run_id
    assert run_spec(recipe={"epochs": 5}).group != base.group
    assert run_spec(strategy="lora:rank=4").group != base.group
    assert run_spec(data_fingerprint="e").group != base.group
    # what reads texts alone depends on no recipe
    assert run_spec(strategy="tfidf", recipe={"epochs": 5}).group == run_spec(strategy="tfidf").group
    assert run_spec(strategy="probe", recipe={"epochs": 5}).group == run_spec(strategy="probe").group
    assert run_spec(strategy="probe", recipe={"max_length": 5}).group != run_spec(strategy="probe").group


def test_configs_are_python_too():
    given = {"data": {"source": "x"}, "strategies": (Full(layer_decay=0.9),)}
    assert study_from({**given, "baselines": False}).strategies == (Full(layer_decay=0.9),)


def test_baselines_stand_beside_whatever_is_compared():
    def names(*strategies):
        return [s.name for s in study_from({"data": {"source": "x"}, "strategies": strategies}).strategies]

    assert names("full") == ["majority", "tfidf", "full"]
    assert names("full", "tfidf:C=2.0") == ["majority", "full", "tfidf"]


def test_published_numbers_are_shares():
    reported = {"strategy": "full", "score": 86.1, "source": "somebody"}
    with pytest.raises(ConfigError, match=r"reported accuracy 86.1 is not from 0 to 1; write 0.93 for 93 %"):
        study_from({"data": {"source": "x"}, "reported": [reported]})


def test_a_published_number_is_of_a_strategy_of_the_study():
    given = {"data": {"source": "x"}, "strategies": ["full", "lora:rank=16"]}

    def reported(strategy):
        return study_from({**given, "reported": [{"strategy": strategy, "score": 0.8, "source": "s"}]}).reported[0]

    assert [reported(name).strategy for name in ("full", "lora", "lora rank=16")] == ["full", "lora", "lora rank=16"]
    with pytest.raises(ConfigError, match="reported strategy 'lora rank=8' is unknown; did you mean 'lora rank=16'"):
        reported("lora rank=8")


@pytest.mark.parametrize("name", packaged_studies())
def test_every_packaged_study_reads(name):
    study = read_study(f"studies:{name}")
    assert study.name == name
    assert study_from(study.model_dump(mode="json")) == study
