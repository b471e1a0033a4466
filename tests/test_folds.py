"""Studies with folds, from end to end: runs, resuming, the comparison, the model on all labelled examples; no leakage."""

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tuneoff
from tests.data.frames import multilabel_frame
from tests.studies import changed, toy_spec
from tests.tiny import toy_texts
from tuneoff.data.dataset import FOLD, labels_of
from tuneoff.data.splits import parts_of
from tuneoff.errors import ConfigError, DataError, StoreError
from tuneoff.execute.fit import fit
from tuneoff.execute.inputs import CachedInputs
from tuneoff.grid import final_run, prepare, search_jobs
from tuneoff.plan import Plan
from tuneoff.runs import RunRecord
from tuneoff.scoring.metrics import evaluate
from tuneoff.spec.run import Job
from tuneoff.study import Study

pytestmark = pytest.mark.slow
STRATEGIES = ["majority", "tfidf", "probe", "head:learning_rate=0.05", "lora:learning_rate=0.05"]
FOLDS = {"evaluate": {"folds": 3}, "seeds": None}


@pytest.fixture(scope="module")
def folded(encoder, tmp_path_factory):
    """A finished study with three folds, and its comparison; tests read it and do not change it."""
    folder = tmp_path_factory.mktemp("folds")
    texts, labels = toy_texts(60, np.random.default_rng(0))
    frame = pd.DataFrame({"text": texts, "label": np.where(labels == 1, "positive", "negative")})
    frame["half"] = np.where(np.arange(60) < 30, "first", "second")
    frame.to_csv(folder / "toy.csv", index=False)
    data = {"source": str(folder / "toy.csv"), "validation_fraction": 0.2, "slices": ["half"]}
    study = Study(toy_spec(encoder, "", data=data, strategies=STRATEGIES, fractions=[0.5], **FOLDS), folder / "results")
    return study, study.run()


def run(study):
    """The comparison of a study, without a type: which of its parts are None depends on the study."""
    return study.run()


def started(study):
    """The titles of the jobs that a study runs, and its comparison."""
    titles: list[str] = []
    comparison = study.run(lambda event: titles.append(event.job.title) if event.kind == "started" else None)
    return titles, comparison


def test_every_strategy_is_scored_on_every_example(folded):
    study, comparison = folded
    assert comparison.failures == ()
    labels = labels_of_pool(study)
    for row in comparison.rows:
        runs = comparison.predictions[row.group]
        assert runs.predicted.shape == (1, 60)
        assert row.score == pytest.approx(evaluate(labels, runs.predicted[0], runs.probabilities[0])["accuracy"])
        assert len(row.fold_scores) == len(row.seeds) == 3
        assert comparison.confusion[row.group].sum() == 60
        assert row.scores["accuracy"] == row.score
        assert row.costs["model_bytes"] > 0
    score = {row.strategy: row.score for row in comparison.rows}
    assert score["tfidf"] > 0.9
    assert score["majority"] == 0.5


def labels_of_pool(study):
    return study.store.test_examples()["label"].to_numpy()


def test_predictions_are_stored_by_their_row_of_all_examples(folded):
    study, comparison = folded
    folds = study.store.test_examples()[FOLD].to_numpy()
    labels = labels_of_pool(study)
    for record in comparison.records:
        test = study.store.runs.predictions(record.run_id, "test")
        assert test["example"].tolist() == np.flatnonzero(folds == record.seed).tolist()
        assert test["label"].tolist() == labels[test["example"]].tolist()
        assert record.run_id == f"{record.group}-s{record.seed}"
        assert not (study.store.runs.path(record.run_id) / "model").exists()


def test_the_report_names_folds(folded):
    study, comparison = folded
    text = (study.folder / "report.md").read_text()
    assert "Scores over 3 folds, best first" in text
    assert "seeds" not in text
    assert "One line per fold" in text
    assert f"run {comparison.final.run_id}" in text
    assert list(comparison.leaderboard["folds"]) == [3] * len(comparison.rows)
    assert {point.size for point in comparison.curve} == {"50 %", "all"}
    assert comparison.slices["examples"].unique().tolist() == [30]


def test_the_pick_is_trained_on_all_labelled_examples_and_predicts(folded):
    study, comparison = folded
    final = comparison.final
    assert final.train_examples == 60
    assert final.metrics == {}
    picked = next(row for row in comparison.rows if row.group == comparison.verdict.recommended)
    assert (final.label, final.model) == (picked.label, picked.model)
    assert json.loads((study.folder / "data.json").read_text())["final"] == [final.run_id]
    assert final.run_id not in {record.run_id for record in comparison.records}
    folder = study.store.runs.path(final.run_id) / "model"
    assert "on all labelled examples" in (folder / "README.md").read_text()
    assert final.strategy == "tfidf"
    classifier = skops.io.load(
        folder / "classifier.skops", trusted=skops.io.get_untrusted_types(file=folder / "classifier.skops")
    )
    assert classifier.predict(["good great fine", "bad awful poor"]).tolist() == [1, 0]


def test_running_again_runs_nothing_and_a_removed_run_alone_is_repeated(folded, tmp_path):
    study, comparison = folded
    shutil.copytree(study.folder, tmp_path / "copy")
    copy = Study.open(tmp_path / "copy")
    assert copy.spec.num_folds == 3
    titles, again = started(copy)
    assert titles == []
    assert {**again.to_json(), "name": ""} == {**comparison.to_json(), "name": ""}
    head = next(record for record in comparison.records if record.strategy == "head" and record.seed == 1)
    shutil.rmtree(copy.store.runs.path(head.run_id))
    left_out = copy.comparison()
    assert head.group not in {row.group for row in left_out.rows}
    titles, again = started(copy)
    assert titles == ["head learning_rate=0.05 fold 1"]
    assert [row.scores for row in again.rows] == [row.scores for row in comparison.rows]


@pytest.mark.parametrize(
    "strategy", ["head:learning_rate=0.05", "lora:learning_rate=0.05", "probe", "probe:classifier=svm"]
)
def test_a_model_of_all_labelled_examples_stops_after_the_epochs_and_uses_the_options_of_the_folds(
    strategy, encoder, toy_csv, tmp_path
):
    study = Study(toy_spec(encoder, toy_csv, strategies=[strategy], **FOLDS), tmp_path / "one")
    comparison = run(study)
    records, final = comparison.records, comparison.final
    if strategy.startswith("probe"):
        chosen = [record.selected_options["C"] for record in records]
        assert chosen.count(final.spec["final"]["options"]["C"]) == max(map(chosen.count, chosen))
        assert (study.store.runs.path(final.run_id) / "model" / "classifier.skops").is_file()
        return
    epochs = sorted(record.best_epoch for record in records)[1]
    history = study.store.runs.history(final.run_id)
    assert final.best_epoch == epochs == history["epoch"].max()
    assert (history["kind"] == "epoch").sum() == epochs
    rates = study.store.runs.history(final.run_id)["learning_rate"].dropna()
    assert len(rates) == 15 * epochs
    assert rates.iloc[-1] > 0  # the schedule is that of all four epochs


def test_the_model_on_all_labelled_examples_is_trained_again_only_if_the_pick_changes(encoder, toy_csv, tmp_path):
    study = Study(toy_spec(encoder, toy_csv, strategies=["majority", "tfidf"], **FOLDS), tmp_path / "pick")
    first = run(study)
    assert first.final.strategy == "tfidf"
    titles, _ = started(changed(study, strategies=["majority", "tfidf", "probe"], cost="trainable_parameters"))
    assert sum(title.endswith("on all labelled examples") for title in titles) <= 1
    alone = changed(study, strategies=["majority"])
    assert alone.run(replace=True).final is None  # nothing is picked
    assert json.loads((study.folder / "data.json").read_text())["final"] == []


@pytest.mark.parametrize("strategy", ["tfidf", "probe", "head:learning_rate=0.05"])
def test_labels_of_a_fold_change_none_of_its_predictions(strategy, encoder, toy_csv):
    prepared = prepare(toy_spec(encoder, toy_csv, strategies=[strategy], **FOLDS))
    spec, dataset = prepared.runs[1], prepared.dataset
    assert spec.fold is not None
    table = dataset.splits["train"]
    labels = np.where(table[FOLD].to_numpy() == spec.fold.index, 1 - labels_of(table), labels_of(table))
    column = table.column_names.index("label")
    wrong = replace(dataset, splits={"train": table.set_column(column, "label", pa.array(labels))})
    one, two = (fit(spec, data, CachedInputs()) for data in (dataset, wrong))
    for split in ("validation", "test"):
        np.testing.assert_array_equal(one.probabilities[split], two.probabilities[split])
    parts = parts_of(dataset, spec.fold)
    assert not np.array_equal(parts["test"].labels(dataset), parts["test"].labels(wrong))


def test_a_search_reads_no_test_example_of_its_fold(encoder, toy_csv, tmp_path):
    spec = toy_spec(encoder, toy_csv, strategies=["head"], search=2, recipe={"epochs": 1, "max_length": 16}, **FOLDS)
    prepared = prepare(spec)
    (job,) = search_jobs(prepared.spec, prepared)
    assert job.run.fold == prepared.runs[0].fold
    assert job.run.seed == 0
    read = []

    class Inputs(CachedInputs):
        def tokens(self, run, dataset, splits):
            tables = super().tokens(run, dataset, splits)
            read.append(set(splits))
            return tables

    fitted = fit(job.run, prepared.dataset, Inputs(), ("validation",))
    assert set(fitted.probabilities) == {"validation"}
    comparison = run(Study(spec, tmp_path / "searched"))
    (search,) = comparison.searches
    assert {json.dumps(record.spec["searched_options"]) for record in comparison.records} == {
        json.dumps(search.best.options)
    }
    assert comparison.final.spec["searched_options"] == search.best.options
    assert "of fold 0" in (tmp_path / "searched" / "report.md").read_text()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_test_split_that_is_given_is_read_by_the_last_run_alone(encoder, toy_csv, tmp_path):
    texts, labels = toy_texts(20, np.random.default_rng(5))
    frame = pd.DataFrame({"text": texts, "label": np.where(labels == 1, "positive", "negative")})
    frame.to_csv(tmp_path / "test.csv", index=False)
    data = {"source": str(toy_csv), "splits": {"test": str(tmp_path / "test.csv")}}
    spec = toy_spec(encoder, toy_csv, data=data, strategies=["lora:learning_rate=0.05"], **FOLDS)
    study = Study(spec, tmp_path / "given")
    comparison = run(study)
    runs, final = study.store.runs, comparison.final
    assert [len(runs.predictions(record.run_id, "test")) for record in comparison.records] == [20, 20, 20]
    assert max(runs.predictions(record.run_id, "test")["example"].max() for record in comparison.records) == 59
    stored = runs.predictions(final.run_id, "test")
    assert final.metrics["test"]["accuracy"] == (stored["label"] == stored["predicted"]).mean()
    assert "On the test split of 20 examples, which no other run reads" in (study.folder / "report.md").read_text()
    assert "| metric | test |" in (runs.path(final.run_id) / "model" / "README.md").read_text()
    folder = runs.path(final.run_id) / "model"
    base = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = PeftModel.from_pretrained(base, folder).eval()(**batch).logits
    np.testing.assert_allclose(logits.softmax(-1).numpy(), stored[["p0", "p1"]].to_numpy(), atol=1e-5)


def test_multilabel_data(encoder, tmp_path):
    frame = multilabel_frame(90)
    comparison: Any = tuneoff.compare(
        frame,
        model=encoder,
        strategies=["tfidf", "head:learning_rate=0.05"],
        evaluate={"folds": 3},
        search=None,
        folder=tmp_path / "multi",
        recipe={"epochs": 2, "max_length": 16},
    )
    assert comparison.failures == ()
    final = comparison.final
    of_folds = [r.thresholds for r in comparison.records if r.label == final.label]
    np.testing.assert_allclose(final.thresholds, np.median(of_folds, axis=0))


def test_a_failed_fold_leaves_its_strategy_out(encoder, toy_csv, tmp_path):
    wild = {"epochs": 1, "max_length": 16, "clip": 1e30, "warmup": 0, "weight_decay": 1e30}
    spec = toy_spec(encoder, toy_csv, strategies=["tfidf", "full:learning_rate=1.0"], recipe=wild, **FOLDS)
    comparison = Study(spec, tmp_path / "wild").run()
    assert [row.strategy for row in comparison.rows] == ["tfidf"]
    assert {failure.repeat for failure in comparison.failures} <= {"fold 0", "fold 1", "fold 2"}
    assert "fold 0: diverged" in (tmp_path / "wild" / "report.md").read_text()


def test_automatic_folds_are_written_down(encoder, toy_csv, tmp_path):
    data = {"source": str(toy_csv)}
    study = Study(toy_spec(encoder, toy_csv, data=data, strategies=["tfidf"], seeds=None), tmp_path / "auto")
    comparison = study.run()
    assert comparison.rows[0].repeats == "5 folds"
    stored = Study.open(study.folder).spec
    assert (stored.num_folds, stored.seeds) == (5, None)
    one_split = changed(study, evaluate="split", seeds=1)
    for refused in (one_split.plan, one_split.run):
        with pytest.raises(StoreError, match=r"other settings: evaluation 5 folds, now one split\. Give"):
            refused()
    split = one_split.run(replace=True)
    assert split.final is None
    assert split.rows[0].repeats == "one run"


def test_a_plan_includes_the_run_on_all_labelled_examples(encoder, toy_csv, tmp_path):
    study = Study(toy_spec(encoder, toy_csv, strategies=["tfidf", "full"], **FOLDS), tmp_path / "results")
    plan = study.plan()
    assert plan.final is not None
    assert (plan.final.job.run.fold, plan.final.job.run.final is None) == (None, False)
    without = replace(plan, final=None)
    assert plan.speed
    assert without.seconds
    assert plan.seconds == pytest.approx(without.seconds + plan.final.seconds(plan.speed))
    plans: list[Plan] = []
    study.run(on_plan=plans.append)
    assert [(one.final is None, [e.job.run.final is None for e in one.estimates]) for one in plans[-1:]] == [
        (True, [False])
    ]


def test_settings_of_the_last_run_are_medians_and_the_most_frequent_option(encoder, toy_csv):
    first = prepare(toy_spec(encoder, toy_csv, strategies=["probe"], **FOLDS)).runs[0]

    def record(fold, **fields):
        return RunRecord(first.run_id, first.group, "probe", "probe", None, fold, "ok", **fields)

    spec = toy_spec(encoder, toy_csv)
    folds = [
        record(fold, best_epoch=epoch, thresholds=[threshold], selected_options={"C": C})
        for fold, (epoch, threshold, C) in enumerate([(1, 0.2, 0.1), (3, 0.9, 1.0), (3, 0.4, 1.0), (4, 0.5, 0.1)])
    ]
    last: Any = final_run(first, folds, spec)
    assert (last.final.epochs, last.final.thresholds, last.final.options) == (3, (0.45,), {"C": 0.1})
    assert last.config.C == (0.1,)
    assert last.run_id != first.run_id
    assert Job(run=last).title == "probe on all labelled examples"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"evaluate": {"folds": 40}},
            DataError,
            "class 'negative' has 30 examples, fewer than 40 folds; use fewer folds",
        ),
        ({"evaluate": {"folds": 3}, "per_class": [28]}, ConfigError, "per_class 28: train has only .. examples"),
    ],
)
def test_folds_that_the_data_do_not_allow_are_refused_before_anything_is_written(
    changes, error, message, encoder, toy_csv, tmp_path
):
    study = Study(
        toy_spec(encoder, toy_csv, data={"source": str(toy_csv)}, strategies=["tfidf"], seeds=None, **changes),
        tmp_path / "x",
    )
    with pytest.raises(error, match=message):
        study.run()
    assert not (tmp_path / "x").exists()
