"""Study files, and their error messages of one line."""

import pytest

from tuneoff.errors import ConfigError
from tuneoff.spec.file import read_study, study_from, write_study
from tuneoff.spec.study import StudySpec
from tuneoff.studies import packaged_studies


def test_a_written_study_reads_back_the_same(tmp_path):
    spec = study_from(
        {"data": {"source": "x.csv"}, "strategies": ["lora:rank=4", "full", "probe"], "seeds": [1, 42], "name": "mine"}
    )
    write_study(spec, tmp_path / "study.yaml")
    assert "weight_decay: 0.01" in (tmp_path / "study.yaml").read_text()  # defaults are written too
    assert read_study(str(tmp_path / "study.yaml")) == spec


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


@pytest.mark.parametrize("name", packaged_studies())
def test_every_packaged_study_reads(name):
    study = read_study(f"studies:{name}")
    assert study.name == name
    assert study_from(study.model_dump(mode="json")) == study
