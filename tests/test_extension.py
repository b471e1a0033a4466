"""A stored study that runs again with another spec: what is kept, what is new, and which settings must agree."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.stored import stored_dataset, stored_study
from tuneoff.data.dataset import SLICE
from tuneoff.data.spec import DataSpec
from tuneoff.errors import StoreError
from tuneoff.extension import extend, with_stored_slices
from tuneoff.spec.file import study_from, write_study
from tuneoff.spec.run import RunSpec

STORED = [("majority", "majority", 0.5), ("tfidf", "tfidf", 0.7), ("probe", "probe", 0.7), ("lora", "lora", 0.8)]


@pytest.fixture
def stored(tmp_path):
    """A stored study of a probe and LoRA with two seeds."""
    return stored_study(tmp_path / "made", STORED, model=["m"], search=4)


def asked(stored, dataset=None, **changes):
    """Extend a stored study by the same one with changes."""
    new = study_from({**stored.spec.model_dump(mode="json"), "baselines": True, **changes})
    runs = [
        RunSpec(strategy=strategy, model="m" if strategy.name not in ("majority", "tfidf") else None,
            model_fingerprint=None, data_fingerprint="f" * 16, recipe=new.recipe, metric="accuracy", seed=seed)
        for strategy in new.strategies for seed in (new.seeds or () if strategy.name == "lora" else (0,))
    ]  # fmt: skip
    return extend(new, runs, dataset or stored_dataset(), stored.store, replace=False)


def test_strategies_of_the_stored_study_come_first_and_their_runs_are_kept(stored):
    extension = asked(stored, strategies=["head"])
    assert [strategy.name for strategy in extension.spec.strategies] == ["majority", "tfidf", "probe", "lora", "head"]
    assert [run_id.partition("-")[0] for run_id in extension.kept_runs] == ["probe", "lora", "lora"]
    assert extension.text == f"extends {stored.folder}: probe and lora are stored, head is new"


def test_seeds_encoders_and_subsets_are_joined_too(stored):
    extension = asked(stored, seeds=[1, 5], fractions=[0.5], model=["m", "n"])
    assert (extension.spec.seeds, extension.spec.fractions) == ((0, 1, 5), (0.5,))
    assert extension.text.endswith("seed 0 is stored, encoder n is new, seed 5 is new, subset 50 % is new")
    assert [run_id[-2:] for run_id in extension.kept_runs] == ["s0"]  # of lora; seed 1 is asked for again


def test_the_same_study_again_has_nothing_to_say(stored):
    extension = asked(stored)
    assert (extension.text, extension.kept_runs) == ("", ())
    assert extension.spec == stored.spec.model_copy(update={"baselines": True})


def test_a_stored_strategy_without_runs_stays_in_the_spec_and_is_named(stored):
    listed = json.loads((stored.folder / "data.json").read_text())
    listed["runs"] = [run_id for run_id in listed["runs"] if not run_id.startswith("lora")]
    (stored.folder / "data.json").write_text(json.dumps(listed))
    extension = asked(stored, strategies=["head"])
    assert "lora" in [strategy.name for strategy in extension.spec.strategies]
    assert extension.text.endswith(f"lora of the stored study has no runs (tuneoff run {stored.folder} trains it)")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": {"epochs": 5}}, "epochs 3, now 5. "),
        ({"metric": "macro_f1"}, "metric accuracy, now macro_f1. "),
        ({"search": None}, "search 4 trials, now none. "),
        ({"search": 2}, "search 4 trials, now 2 trials. "),
        ({"search": 8, "strategies": ["head"]}, "search 4 trials, now 8 trials. "),
        ({"search": {"trials": 4, "spaces": {"lora": {"rank": [2, 4]}}}}, "search space of lora. "),
        ({"dataset": stored_dataset("0" * 16)}, "the content of made.csv has changed. "),
        ({"dataset": stored_dataset("0" * 16), "data": {"source": "made.csv", "limits": {"train": 400}}}, "limits none, now train=400. "),
        ({"dataset": stored_dataset("0" * 16), "data": {"source": "b.csv", "text": "body"}}, "source made.csv, now b.csv. "),
    ],
)  # fmt: skip
def test_settings_on_which_stored_runs_depend_may_not_differ(stored, changes, message):
    with pytest.raises(StoreError) as raised:
        asked(stored, **changes)
    assert f"{stored.folder} holds runs with other settings: {message}" in str(raised.value)
    assert "(--name), or replace the stored settings with --replace" in str(raised.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"search": 8},  # continues the searches of all strategies
        {"cost": "peak_bytes", "workers": 1, "keep": "none"},
        {"data": {"source": "./made.csv", "text": "text"}},  # the same examples, named otherwise
        {"metric": "accuracy"},  # the default, named
    ],
)
def test_settings_on_which_no_run_depends_may_differ(stored, changes):
    assert asked(stored, **changes).text == ""


def test_a_setting_that_no_stored_run_uses_may_differ(tmp_path):
    stored = stored_study(tmp_path / "made", STORED[:3], model=["m"])
    assert asked(stored, recipe={"epochs": 5}).text == ""


def test_failed_runs_alone_do_not_hold_settings(tmp_path):
    stored = stored_study(tmp_path / "made", [("lora", "lora", None)], model=["m"], baselines=False)
    assert asked(stored, recipe={"batch_size": 4}).spec.recipe.batch_size == 4


def test_replacing_keeps_nothing(stored):
    new = stored.spec.model_copy(update={"seeds": (7,)})
    extension = extend(new, [], stored_dataset("0" * 16), stored.store, replace=True)
    assert (extension.spec, extension.kept_runs) == (new, ())
    assert extension.text == f"replaces the settings of {stored.folder}"


def test_tags_are_joined_and_the_new_one_of_a_name_counts(stored):
    stored = stored.changed(tags={"a": "x", "b": "y"})
    write_study(stored.spec, stored.folder / "study.yaml")
    assert asked(stored, tags={"b": "z", "c": "w"}).spec.tags == {"a": "x", "b": "z", "c": "w"}


def test_slices_of_the_stored_study_are_kept(stored):
    assert asked(stored, data={"source": "made.csv", "slices": ["b"]}).spec.data.slices == ("b",)
    test = stored_dataset().splits["test"]
    column = pa.array(["x"] * test.num_rows)
    pq.write_table(test.append_column(SLICE + "a", column), stored.folder / "test.parquet")
    joined = stored.spec.model_copy(update={"data": DataSpec(source="made.csv", slices=("a",))})
    assert with_stored_slices(test, joined, stored.store)[SLICE + "a"].to_pylist() == ["x"] * test.num_rows
    assert with_stored_slices(test, stored.spec, stored.store) is test


def test_tokens_of_examples_outlive_a_part_without_an_encoder(stored):
    listed = json.loads((stored.folder / "data.json").read_text())
    shown = {
        "encoder": "m",
        "truncation": "",
        "first_token": "[CLS]",
        "first_id": 2,
        "first_share": 1.0,
        "examples": [],
    }
    (stored.folder / "data.json").write_text(json.dumps({**listed, "token_examples": shown}))
    extension = asked(stored, strategies=["tfidf"])
    assert extension.token_examples is not None
    assert extension.token_examples.first_token == "[CLS]"
