"""How much of the data a race takes: as much as its time allows, the same when it goes on, and said wherever it ends."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.studies import changed, toy_spec
from tests.tiny import toy_texts
from tuneoff import race_size
from tuneoff.comparison.notes import unfinished_note
from tuneoff.errors import StoreError
from tuneoff.execute.executor import Slots
from tuneoff.execute.local import LocalExecutor
from tuneoff.grid import prepare
from tuneoff.race_size import within_time
from tuneoff.race_time import Clock
from tuneoff.runs import StudyStore
from tuneoff.search.race_record import REPEAT, SEARCH, RaceRecord
from tuneoff.spec.stated import PredictionsSpec
from tuneoff.study import Study

SIZES = {"train": 3000, "validation": 900, "test": 1200}


@pytest.fixture
def folder(tmp_path):
    """Data with official splits."""
    (tmp_path / "data").mkdir()
    for seed, (split, size) in enumerate(SIZES.items()):
        texts, labels = toy_texts(size, np.random.default_rng(seed))
        frame = pd.DataFrame({"text": texts, "label": np.where(labels == 1, "positive", "negative")})
        frame.to_csv(tmp_path / "data" / f"{split}.csv", index=False)
    return tmp_path / "data"


def spec_of(encoder, folder, **changes):
    strategies = ["tfidf", "lora:learning_rate=0.05", "full:learning_rate=0.01"]
    return toy_spec(encoder, folder, **{"data": {"source": str(folder)}, "strategies": strategies, **changes})


def size_within(spec, speed, monkeypatch, stored=None):
    monkeypatch.setattr(race_size, "stored_speed", lambda *_: speed)
    return within_time(spec, stored, Clock(spec.time), lambda jobs, largest: Slots(2, 1))[:2]


def test_all_of_the_data_is_taken_where_it_fits(encoder, folder, monkeypatch):
    spec = spec_of(encoder, folder, time="10m")
    assert size_within(spec, 1e12, monkeypatch) == (spec, None)
    without = spec_of(encoder, folder)
    assert size_within(without, 1.0, monkeypatch) == (without, None)


def test_the_speed_is_known_where_all_of_the_data_fits_and_no_study_has_run(encoder, folder, monkeypatch):
    # of jobs without epochs alone a race would expect hours for a trial, and leave the trials out
    spec = spec_of(encoder, folder, time="1h")
    monkeypatch.setattr(race_size, "stored_speed", lambda *_: None)
    taken, share, speed = within_time(spec, None, Clock(spec.time), lambda jobs, largest: Slots(2, 1))
    assert (taken, share) == (spec, None)
    assert speed
    assert speed > 1e6


def test_more_time_takes_more_data_and_the_share_is_one_for_all_splits(encoder, folder, monkeypatch):
    taken = [
        size_within(spec_of(encoder, folder, time=time), 1e8, monkeypatch)[0].data.limits.get("train", SIZES["train"])
        for time in ("1m", "2m", "4m", "1h")
    ]
    assert taken == sorted(set(taken))
    assert taken[3] == SIZES["train"]
    limited, share = size_within(spec_of(encoder, folder, time="4m"), 1e8, monkeypatch)
    assert share.whole_sizes == {split: SIZES[split] for split in limited.data.limits}
    ratios = [limited.data.limits[split] / SIZES[split] for split in ("train", "validation")]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.1)
    # with the time that is named, all of it fits; it is computed from the seconds until now, which a clock measures
    enough = spec_of(encoder, folder, time=f"{share.seconds_for_whole + 20:.0f}s")
    assert size_within(enough, 1e8, monkeypatch)[1] is None


def test_a_time_that_is_too_short_leaves_enough_to_decide(encoder, folder, monkeypatch):
    limited, _ = size_within(spec_of(encoder, folder, time="40s"), 1e7, monkeypatch)
    assert limited.data.limits == {"train": 500, "validation": 200, "test": 500}


def test_limits_of_the_user_stay(encoder, folder, monkeypatch):
    spec = spec_of(encoder, folder, time="1m", data={"source": str(folder), "limits": {"test": 100}})
    assert size_within(spec, 1e3, monkeypatch) == (spec, None)


def test_large_data_without_splits_stays_without_folds(encoder, folder, tmp_path, monkeypatch):
    joined = pd.concat([pd.read_csv(folder / f"{split}.csv") for split in SIZES] * 2)
    joined.to_csv(tmp_path / "all.csv", index=False)
    spec = spec_of(encoder, tmp_path / "all.csv", time="1m", data={"source": str(tmp_path / "all.csv")}, seeds=None)
    limited, _ = size_within(spec, 1e7, monkeypatch)
    assert set(limited.data.limits) == {"train", "validation", "test"}
    assert prepare(limited).dataset.folds is None
    small = spec.model_copy(update={"data": spec.data.model_copy(update={"source": str(folder / "train.csv")})})
    assert size_within(small, 1e7, monkeypatch) == (small, None)  # scored on folds


def test_every_class_stays_and_predictions_by_row_keep_their_test_split(encoder, folder, tmp_path, monkeypatch):
    train = pd.read_csv(folder / "train.csv")
    train.loc[train.index[:3], "label"] = "rare"
    train.to_csv(folder / "train.csv", index=False)
    spec = spec_of(encoder, folder, time="1m")
    limited, share = size_within(spec, 1e7, monkeypatch)
    assert share
    assert prepare(limited).dataset.label_names == ("negative", "positive", "rare")
    given = spec.model_copy(update={"predictions": (PredictionsSpec(name="llm", file="llm.csv"),)})
    assert "test" not in size_within(given, 1e7, monkeypatch)[0].data.limits


def test_what_no_sample_makes_shorter_takes_no_sample(encoder, folder, monkeypatch):
    spec = spec_of(encoder, folder, time="1m", search={"budget": 60})
    assert size_within(spec, 1e12, monkeypatch) == (spec, None)


@pytest.mark.slow
def test_a_study_on_a_sample_says_so_and_goes_on_with_it(encoder, folder, tmp_path, monkeypatch, capsys):
    speeds = [1e8]
    monkeypatch.setattr(race_size, "stored_speed", lambda *_: speeds[0])
    study = Study(spec_of(encoder, folder, time="1m", seeds=[0]), tmp_path / "study")
    plans: list[Any] = []
    with LocalExecutor() as executor:
        comparison = study.run(on_plan=plans.append, executor=executor)
        taken = comparison.study.data.limits
        assert taken["train"] < SIZES["train"]
        assert comparison.num_examples == taken.get("test", SIZES["test"])
        assert re.search(r"a sample is taken, [\d,]+ of 3,000 train", plans[0].race)
        assert re.search(r"a sample is taken, [\d,]+ of 3,000 train", changed(study, name="new").plan().race)
        note = unfinished_note(comparison)
        assert re.search(r"takes a sample, [\d,]+ of 3,000 train.* the order may change\. .* needs --time \d+\w", note)
        assert "of 3,000 train" in (study.folder / "report.md").read_text()
        again = changed(Study(spec_of(encoder, folder, seeds=[0]), study.folder), time="1h")
        ran: set[str] = set()
        second = again.run(on_event=lambda event: ran.add(event.job.job_id), executor=executor)
    assert second.study.data.limits == taken
    stored = {record.run_id for record in comparison.records}
    assert stored <= {record.run_id for record in second.records}
    assert not stored & ran
    # all of the data, without a race: not comparable with what is stored
    whole = changed(Study(spec_of(encoder, folder, seeds=[0]), study.folder), strategies=["tfidf"])
    with pytest.raises(StoreError, match=r"of a sample, [\d,]+ of 3,000 train.* go on with it by --time"):
        whole.run()
    # replaced by such a study
    replaced = whole.run(replace=True)
    assert replaced.num_examples == SIZES["test"]
    assert "sample" not in unfinished_note(replaced)
    assert "goes on with" in capsys.readouterr().err


def test_a_study_without_runs_and_a_replaced_one_take_what_fits_now(encoder, folder, tmp_path, monkeypatch):
    store = StudyStore(tmp_path)
    (tmp_path / "study.yaml").write_text("damaged")
    spec = spec_of(encoder, folder, time="1m")
    assert size_within(spec, 1e7, monkeypatch, stored=store)[1] is not None  # it was stopped before its first run
    (tmp_path / "data.json").write_text("{}")
    assert size_within(spec, 1e7, monkeypatch, stored=store) == (spec, None)  # what is damaged is named later
    assert size_within(spec, 1e7, monkeypatch)[1] is not None


def test_a_search_that_was_shortened_and_then_left_out_is_named_once():
    record = RaceRecord("k", 3).with_left_out("full", "m", SEARCH, "trials", 60.0)
    record = record.with_left_out("full", "m", SEARCH, "trials", 20.0).with_left_out("full", "m", REPEAT, "seed 1", 5.0)
    assert [(entry.names, entry.seconds) for entry in record.left_out] == [(("trials",), 60.0), (("seed 1",), 5.0)]
    record = record.with_left_out("full", "m", REPEAT, "seed 2", 5.0)
    assert record.left_out[-1].names == ("seed 1", "seed 2")
    assert record.left_out[-1].seconds == 10.0
