"""A tiny study from end to end, in worker processes as for a user: run, resume, extend, fail, compare."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import tuneoff
from tests.studies import changed, toy_spec
from tuneoff.errors import ConfigError, StoreError
from tuneoff.execute.executor import Event
from tuneoff.orphans import stored_study
from tuneoff.plan import Plan
from tuneoff.runs import OK
from tuneoff.spec.file import default_name
from tuneoff.study import Study

pytestmark = pytest.mark.slow


def test_every_run_succeeds_and_unseeded_ones_run_once(finished):
    _, comparison, events = finished
    assert comparison.failures == ()
    assert len(comparison.records) == 3 + 5 * 2
    assert {row.label.split()[0]: len(row.seeds) for row in comparison.rows}["tfidf"] == 1
    assert sum(event.kind == "done" for event in events) == 13


def test_scores_are_where_they_belong(finished):
    _, comparison, _ = finished
    score = {row.strategy: row.score for row in comparison.rows}
    assert score["majority"] == 0.5
    assert score["tfidf"] == 1.0
    assert score["full"] >= 0.85
    assert abs(score["untrained"] - 0.5) <= 0.25
    assert comparison.rows[0].difference == 0
    assert all(row.difference <= 0 for row in comparison.rows)
    assert comparison.leaderboard["accuracy"].is_monotonic_decreasing


def test_the_verdict_picks_a_strategy_and_names_its_model(finished):
    _, comparison, _ = finished
    verdict, rows = comparison.verdict, {row.group: row for row in comparison.rows}
    picked = rows[verdict.recommended]
    assert verdict.best == comparison.rows[0].group
    assert picked.learns
    assert -picked.difference <= verdict.margin
    assert verdict.summary[0].startswith("Only ")  # 20 test examples
    assert f"Pick {picked.label}: accuracy" in verdict.text
    assert 0 <= verdict.expected_loss <= verdict.loss_bound
    folder = Path(comparison.model_folder)
    assert folder.parent.name.startswith(picked.group)
    assert (folder / "README.md").is_file()
    assert [row.standing for row in comparison.rows].count("best") == 1


def test_a_study_leaves_what_the_docs_say(finished):
    study, comparison, _ = finished
    for name in (
        "study.yaml",
        "data.json",
        "comparison.json",
        "report.md",
        "report/index.html",
        "tables/leaderboard.csv",
        "tables/leaderboard.tex",
        "figures/scores.svg",
        "figures/scores.png",
    ):
        assert (study.folder / name).stat().st_size > 0, name
    lora = next(record for record in comparison.records if record.strategy == "lora")
    folder = study.store.runs.path(lora.run_id)
    files = {"run.json", "history.parquet", "predictions.parquet", "checksums.json", "model"}
    assert {path.name for path in folder.iterdir()} == files
    assert (folder / "model" / "adapter_model.safetensors").is_file()
    card = (folder / "model" / "README.md").read_text()
    for part in (
        lora.run_id,
        "negative, positive",
        "PeftModel.from_pretrained",
        f"| accuracy | {lora.metrics['validation']['accuracy']:.3f} | {lora.metrics['test']['accuracy']:.3f} |",
    ):
        assert part in card
    stored = json.loads((folder / "run.json").read_text())
    for cost in (
        "tokenize_seconds",
        "train_seconds",
        "evaluate_seconds",
        "peak_bytes",
        "model_bytes",
        "examples_per_second",
        "tokens_per_second",
    ):
        assert stored["costs"][cost] >= 0, cost
    assert stored["costs"]["peak_bytes"] > 1e8
    assert stored["parameters"]["trainable"] == stored["parameters"]["added"] + stored["parameters"]["head"]
    assert set(stored["metrics"]) == {"validation", "test"}
    assert not list(study.folder.rglob("*.bin"))
    assert not list(study.folder.rglob("*.pkl"))


def test_stored_scores_follow_from_stored_predictions(finished):
    study, comparison, _ = finished
    for record in comparison.records:
        for split in ("validation", "test"):
            rows = study.store.runs.predictions(record.run_id, split)
            assert (rows["label"] == rows["predicted"]).mean() == pytest.approx(record.metrics[split]["accuracy"])
            np.testing.assert_allclose(rows[["p0", "p1"]].sum(axis=1), 1, atol=1e-5)


def test_running_again_runs_nothing(finished):
    study, comparison, _ = finished
    events: list[Event] = []
    again = study.run(events.append)
    assert events == []
    assert again.to_json() == comparison.to_json()


def test_the_report_can_be_rebuilt_alone(finished):
    study, _, _ = finished
    (study.folder / "report" / "index.html").unlink()
    Study.open(study.folder).report()
    assert (study.folder / "report" / "index.html").is_file()


def test_a_seed_or_strategy_more_runs_only_that(small):
    small.run()
    made = []
    wider = changed(small, seeds=[0, 1], strategies=["tfidf", "head", "majority"])
    comparison = wider.run(
        lambda event: (
            made.append((event.job.run.strategy.name, event.job.run.seed)) if event.kind == "started" else None
        )
    )
    assert sorted(made) == [("head", 1), ("majority", 0)]
    assert len(comparison.records) == 4


def test_a_study_that_names_fewer_strategies_keeps_the_stored_ones(small):
    small.run()
    plans: list[Plan] = []
    extended = changed(small, strategies=["full"])
    assert extended.plan().extension == f"extends {small.folder}: tfidf and head are stored, full is new"
    comparison = extended.run(on_plan=plans.append)
    assert [e.job.run.strategy.name for e in plans[0].estimates] == ["full"]
    assert plans[0].extension == f"extends {small.folder}: tfidf and head are stored, full is new"
    assert {row.strategy for row in comparison.rows} == {"tfidf", "head", "full"}
    assert [strategy.name for strategy in Study.open(small.folder).spec.strategies] == ["tfidf", "head", "full"]
    assert Study.open(small.folder).report().leaderboard.equals(comparison.leaderboard)
    assert stored_study(small.folder).orphans == ()


def test_other_settings_are_refused_or_replace_the_stored_ones(small):
    stored = small.run()
    before = {path: path.read_bytes() for path in small.folder.glob("*.*") if path.is_file()}
    other = changed(small, recipe={"epochs": 2, "max_length": 16})
    with pytest.raises(StoreError, match=r"holds runs with other settings: epochs 1, now 2\. .*--replace"):
        other.run()
    assert {path: path.read_bytes() for path in small.folder.glob("*.*") if path.is_file()} == before
    replaced = other.run(replace=True)
    assert Study.open(small.folder).spec == other.spec
    old_head = next(record.run_id for record in stored.records if record.strategy == "head")
    assert [(o.kind, o.path.name) for o in stored_study(small.folder).orphans] == [("run", old_head)]
    # the stored run of TF-IDF depends on no epochs and is shown again
    assert {record.run_id for record in replaced.records} & {record.run_id for record in stored.records}
    again = small.run(replace=True)
    assert {record.run_id for record in again.records} == {record.run_id for record in stored.records}


def test_more_seeds_use_the_options_that_the_first_seed_searched(small):
    changed(small, search=2, strategies=["head"]).run()
    comparison = changed(small, search=2, strategies=["head"], seeds=[4]).run()
    assert [(row.label, row.seeds) for row in comparison.rows] == [("head", (0, 4))]
    assert len(comparison.searches) == 1


def test_the_same_study_gives_the_same_bits(small, tmp_path):
    one = small.run()
    two = Study(small.spec, tmp_path / "again").run()
    assert [row.scores for row in one.rows] == [row.scores for row in two.rows]
    head = next(record.run_id for record in one.records if record.strategy == "head")
    left, right = (
        RunFolder / "runs" / head / "model" / "model.safetensors" for RunFolder in (small.folder, tmp_path / "again")
    )
    assert left.read_bytes() == right.read_bytes()


def test_a_diverged_run_is_named_and_left_out(small):
    wild = changed(
        small,
        strategies=["tfidf", "full:learning_rate=1.0"],
        recipe={"epochs": 3, "max_length": 16, "clip": 1e30, "warmup": 0, "weight_decay": 1e30},
    )
    comparison = wild.run()
    assert [record.status for record in comparison.failures] == ["diverged"]
    assert "lower the learning rate" in comparison.failures[0].error
    assert [row.strategy for row in comparison.rows] == ["tfidf"]
    assert "lower the learning rate" in (small.folder / "report.md").read_text()
    events: list[Event] = []
    wild.run(events.append)
    assert events == []


def test_a_study_is_run_by_one_process_at_a_time(small):
    import filelock

    small.folder.mkdir()
    with filelock.FileLock(small.folder / ".lock"), pytest.raises(StoreError, match="another process is running"):
        small.run()


def test_a_rejected_study_leaves_the_stored_one_as_it_was(small, toy, tmp_path):
    small.run()
    before = {path: path.read_bytes() for path in small.folder.glob("*.*") if path.is_file()}
    with pytest.raises(ConfigError, match="2 blocks"):
        changed(small, strategies=["partial:layers=9"]).run()
    toy[:50].to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(StoreError, match=r"source .*toy.csv, now .*other.csv.* another name"):
        changed(small, data={"source": str(tmp_path / "other.csv")}).run()
    assert {path: path.read_bytes() for path in small.folder.glob("*.*") if path.is_file()} == before


def test_python_compares_a_dataframe(toy, encoder, tmp_path):
    comparison = tuneoff.compare(
        toy,
        model=encoder,
        strategies=["majority", tuneoff.Head(learning_rate=0.05)],
        seeds=1,
        folder=tmp_path / "frame",
        recipe={"epochs": 1, "max_length": 16},
    )
    assert {record.status for record in comparison.records} == {OK}
    assert sorted(comparison.leaderboard["strategy"]) == ["head learning_rate=0.05", "majority", "tfidf"]
    assert comparison.verdict is not None
    assert comparison.verdict.text


def test_pairs_and_three_classes(encoder, tmp_path):
    rng = np.random.default_rng(0)
    from tests.tiny import toy_texts

    first, labels = toy_texts(90, rng)
    second, others = toy_texts(90, rng)
    frame = pd.DataFrame({"premise": first, "hypothesis": second, "label": labels + rng.permutation(others)})
    comparison = tuneoff.compare(
        frame,
        model=encoder,
        strategies=["tfidf", "full"],
        seeds=1,
        folder=tmp_path / "pairs",
        recipe={"epochs": 1, "max_length": 32},
    )
    assert comparison.failures == ()
    assert comparison.data.is_pair
    assert comparison.confusion[comparison.rows[0].group].shape == (3, 3)


def test_two_encoders_share_what_needs_none(encoder, toy_csv, tmp_path):
    study = Study(
        toy_spec(encoder, toy_csv, strategies=["tfidf", "probe"], model=[encoder, "packaged:minilm"], seeds=[0]),
        tmp_path / "two",
    )
    comparison = study.run()
    assert sorted(record.strategy for record in comparison.records) == ["probe", "probe", "tfidf"]


def test_a_length_beyond_the_encoder_is_an_error(small):
    with pytest.raises(ConfigError, match=r"max_length 65 is above the limit of .*; use at most 64"):
        changed(small, recipe={"max_length": 65}).run()


def test_names_come_from_sources():
    assert default_name("a/reviews.csv") == "reviews"
    assert default_name("hf:stanfordnlp/imdb") == "stanfordnlp-imdb"
    assert default_name("packaged:rotten-tomatoes") == "rotten-tomatoes"


def test_a_written_study_opens_from_its_folder(small):
    small.run()
    assert Study.open(small.folder).spec == small.spec
    assert yaml.safe_load((small.folder / "study.yaml").read_text())["recipe"]["clip"] == 1.0


def test_the_result_is_known_before_the_report_is_written(small):
    seen = []

    def note(comparison):
        computed = set(vars(comparison)) & {"errors", "mistakes", "phenomena", "label_noise", "slices", "estimates"}
        seen.append((comparison.verdict.summary, computed, (small.folder / "report").exists()))

    comparison = small.run(on_comparison=note)
    assert seen == [(comparison.verdict.summary, set(), False)]
    assert comparison.mistakes is comparison.mistakes  # computed once
    assert (small.folder / "report" / "index.html").is_file()
