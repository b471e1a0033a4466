"""Trackers of a study: how they are written, in YAML and on the command line, and what is refused."""

import pytest

from tuneoff.errors import ConfigError, LibraryError
from tuneoff.spec.file import read_study, study_from, write_study
from tuneoff.study import Study
from tuneoff.track import check_installed, dump_track, parse_track


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {}),
        ("mlflow", {"mlflow": {}}),
        (["tensorboard", "wandb"], {"tensorboard": {}, "wandb": {}}),
        ({"mlflow": {"uri": "sqlite:///a.db"}, "wandb": None}, {"mlflow": {"uri": "sqlite:///a.db"}, "wandb": {}}),
        ([{"wandb": {"mode": "online"}}, "trackio"], {"wandb": {"mode": "online"}, "trackio": {}}),
        (
            "mlflow:uri=http://127.0.0.1:5000:experiment=texts",
            {"mlflow": {"uri": "http://127.0.0.1:5000", "experiment": "texts"}},
        ),
    ],
)
def test_trackers_are_names_or_mappings(given, expected):
    assert dump_track(parse_track(given)) == expected
    assert dump_track(parse_track(dump_track(parse_track(given)))) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mlfow", "did you mean 'mlflow'"),
        ([3], "is neither a name nor"),
        ("wandb:mode=on", "should be 'offline' or 'online'"),
        ({"mlflow": {"url": "x"}}, "did you mean 'uri'"),
        ("mlflow:uri=postgresql://me:secret@db/x", "holds a password"),
    ],
)
def test_a_mistake_is_one_line(given, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_track(given)
    assert "secret" not in str(error.value)


def test_a_study_keeps_its_trackers(tmp_path):
    spec = study_from({"data": {"source": "a.csv"}, "track": ["tensorboard", {"mlflow": {"experiment": "x"}}]})
    write_study(spec, tmp_path / "study.yaml")
    assert read_study(str(tmp_path / "study.yaml")) == spec.model_copy(update={"name": "study"})
    assert study_from({"data": {"source": "a.csv"}}).track == {}


def test_a_missing_library_is_named_with_its_command_before_anything_is_trained(monkeypatch, tmp_path):
    monkeypatch.setattr("tuneoff.track.find_spec", lambda name: None)
    with pytest.raises(LibraryError, match=r"pip install 'tuneoff\[wandb\]'"):
        check_installed(parse_track("wandb"))
    study = Study(study_from({"data": {"source": "nowhere.csv"}, "track": "wandb"}), tmp_path / "new")
    with pytest.raises(LibraryError):
        study.run()
    assert not (tmp_path / "new").exists()
