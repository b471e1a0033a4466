"""Models that a study keeps: all, those of the picked strategy and small ones, or none."""

import shutil

import pytest
import yaml

from tests.stored import stored_study
from tests.studies import changed, toy_spec
from tuneoff import study as study_module
from tuneoff.extension import _joined
from tuneoff.spec.file import read_study, study_from
from tuneoff.study import Study

DATA = {"data": {"source": "a.csv"}}


@pytest.fixture
def two(encoder, toy_csv, tmp_path, monkeypatch):
    """A quick study of TF-IDF, which wins, and a head, whose tiny model counts as large."""
    monkeypatch.setattr(study_module, "SMALL_MODEL_BYTES", 1000)
    options = {"strategies": ["tfidf", "head"], "seeds": [0, 1], "recipe": {"epochs": 1, "max_length": 16}}
    return Study(toy_spec(encoder, toy_csv, **options), tmp_path / "two")


def models(study):
    return sorted(path.parent.name.split("-")[0] for path in study.folder.glob("runs/*/model"))


def started(study):
    jobs = []
    comparison = study.run(lambda event: jobs.append(event.job.title) if event.kind == "started" else None)
    return sorted(jobs), comparison


@pytest.mark.parametrize(
    ("given", "keep"),
    [({}, "recommended"), ({"save_models": True}, "all"), ({"save_models": False}, "none"), ({"keep": "all"}, "all")],
)
def test_studies_of_earlier_versions_name_save_models(given, keep, tmp_path):
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({**DATA, **given}))
    spec = read_study(str(tmp_path / "old.yaml"))
    assert spec.keep == keep
    assert "save_models" not in spec.model_dump()


def test_a_study_that_keeps_all_models_keeps_them_when_it_is_extended():
    stored, new = study_from({**DATA, "keep": "all"}), study_from(DATA)
    assert _joined(stored, new).keep == "all"
    assert _joined(stored, study_from({**DATA, "keep": "recommended"})).keep == "recommended"
    assert _joined(study_from({**DATA, "keep": "none"}), new).keep == "recommended"


@pytest.mark.slow
def test_only_the_picks_models_stay_and_nothing_is_trained_again(two):
    comparison = two.run()
    assert models(two) == ["tfidf"]
    assert "tfidf" in comparison.model_folder
    sizes = [record.costs["model_bytes"] for record in comparison.records]
    assert min(sizes) > 1000
    assert comparison.models_note.startswith("Models of other strategies were not kept (")
    assert {path.name for path in two.folder.glob("runs/head-*/*")} == {
        "run.json",
        "checksums.json",
        "history.parquet",
        "predictions.parquet",
    }
    jobs, again = started(two)
    assert jobs == []
    assert again.to_json() == comparison.to_json()
    assert not list(two.folder.glob("runs/.unfinished-*"))


@pytest.mark.slow
def test_models_that_are_missing_are_trained_again_where_all_are_kept(two):
    before = two.run()
    jobs, comparison = started(changed(two, keep="all"))
    assert jobs == ["head seed 0", "head seed 1"]
    assert models(two) == ["head", "head", "tfidf"]
    assert [row.scores for row in comparison.rows] == [row.scores for row in before.rows]
    assert comparison.models_note == ""
    assert started(changed(two, keep="all"))[0] == []
    shutil.rmtree(next(two.folder.glob("runs/head-*-s1")) / "model")
    assert started(two)[0] == ["head seed 1"]  # which does not name what to keep again


@pytest.mark.slow
def test_a_pick_whose_model_was_not_kept_is_named_with_what_to_do(two):
    comparison = changed(two, keep="none").run()
    assert models(two) == []
    assert comparison.model_folder is None
    assert comparison.models_note == (
        f"The model of the picked strategy was not kept; tuneoff run {two.folder} --keep all trains it again."
    )


def test_models_are_removed_only_from_runs_of_the_study(tmp_path):
    study = stored_study(tmp_path / "made", [("lora", "lora", 0.9)])
    outside = tmp_path / "outside" / "model"
    outside.mkdir(parents=True)
    study.store.runs.remove_model("../../outside")
    run = next((study.folder / "runs").iterdir())
    (run / "model").symlink_to(outside)
    study.store.runs.remove_model(run.name)
    assert outside.is_dir()
