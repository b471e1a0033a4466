"""The gate: what passes, what fails, what is undecided; which test examples are the same; the rate of false passes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.stored import stored_study
from tests.studies import toy_spec
from tests.tiny import toy_texts
from tuneoff.comparison.gate import NOT_WORSE, UNDECIDED, WORSE, check, decide
from tuneoff.errors import ConfigError, DataError, StoreError
from tuneoff.files import read_arrow, write_json, write_table
from tuneoff.scoring import stats
from tuneoff.study import Study

NAMES = ("bad", "fine", "<b>|good")


def study(folder, accuracy, strategy="full", num_test=2000, before=(), **changes):
    """A stored study of one strategy, three classes and distinct texts. before: rows that draw random numbers first."""
    texts = [f"text {i}" for i in range(num_test)]
    rows = [("majority", "majority", 0.34), *before, (strategy, strategy, accuracy)]
    return stored_study(folder, rows, NAMES, num_test=num_test, texts=texts, **{"seeds": 3, **changes}).folder


def rewrite(folder, order, names):
    """Store a study as if its test examples came in another order, and its labels too."""
    ids = np.array([names.index(name) for name in NAMES])  # old id -> new id
    columns = [f"p{NAMES.index(name)}" for name in names]
    test = read_arrow(folder / "test.parquet").take(pa.array(order))
    test = test.set_column(test.column_names.index("label"), "label", pa.array(ids[test["label"].to_numpy()]))
    write_table(test, folder / "test.parquet")
    for path in (folder / "runs").glob("*/predictions.parquet"):
        frame = pd.read_parquet(path)
        frame[["label", "predicted"]] = ids[frame[["label", "predicted"]].to_numpy()]
        frame[["p0", "p1", "p2"]] = frame[columns].to_numpy()
        on_test = frame[frame.split == "test"].set_index("example").loc[order].reset_index()
        on_test["example"] = np.arange(len(order))
        pd.concat([frame[frame.split != "test"], on_test]).to_parquet(path)
    data = json.loads((folder / "data.json").read_text())
    write_json(folder / "data.json", {**data, "label_names": list(names)})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Studies whose only learner has a known accuracy."""
    place = tmp_path_factory.mktemp("gate")
    return {
        "old": study(place / "old", 0.80),
        "better": study(place / "better", 0.90, "lora"),
        "worse": study(place / "worse", 0.70, "lora"),
        "thin": study(place / "thin", 0.79, "lora", num_test=150, before=[("untrained", "untrained", 0.5)]),
        "thin old": study(place / "thin old", 0.80, num_test=150),
    }


def test_a_better_model_passes(folders):
    gate = check(folders["better"], folders["old"], margin=0.01)
    assert gate.passes
    assert gate.decision.loss_limits[1] < 0.01
    assert gate.decision.difference == pytest.approx(gate.new_score - gate.old_score)
    assert gate.lines[0].startswith("Not worse: lora of ")


def test_a_model_passes_against_itself_whatever_the_margin(folders):
    gate = check(folders["old"], folders["old"], margin=0.0)
    assert gate.passes
    assert gate.decision.difference == 0
    assert gate.classes == ()


def test_a_much_worse_model_fails(folders):
    gate = check(folders["worse"], folders["old"], margin=0.01)
    assert gate.decision.standing == WORSE
    assert not gate.passes
    assert gate.decision.loss_limits[0] > 0.01
    assert gate.decision.required_examples is None
    assert all(change.new < change.old for change in gate.classes)


def test_few_examples_are_undecided_and_the_gate_says_how_many_decide(folders):
    gate = check(folders["thin"], folders["thin old"], margin=0.01)
    assert gate.decision.standing == UNDECIDED
    assert not gate.passes
    assert (gate.decision.required_examples or 0) > 150
    assert "the evidence is too thin. About" in gate.lines[0]
    assert "more test examples" in gate.lines[0]


def test_the_difference_is_that_of_the_comparison(tmp_path):
    folder = study(tmp_path / "one", 0.8)
    both = stored_study(tmp_path / "both", [("majority", "majority", 0.34), ("full", "full", 0.8), ("lora", "lora", 0.75)], NAMES, seeds=3, num_test=500)  # fmt: skip
    pair = next(p for p in both.comparison().pairs if {p.better[:4], p.worse[:4]} == {"full", "lora"})
    gate = check(both.folder, both.folder, strategy="lora", old_strategy="full")
    assert -gate.decision.difference == pytest.approx(pair.difference, abs=1e-6)
    assert folder.is_dir()


def test_examples_and_labels_are_matched_by_content(folders, tmp_path):
    shutil.copytree(folders["old"], tmp_path / "shuffled")
    order = np.random.default_rng(1).permutation(2000)
    rewrite(tmp_path / "shuffled", order, ("fine", "<b>|good", "bad"))
    gate = check(tmp_path / "shuffled", folders["old"], margin=0.0)
    assert gate.decision.difference == 0
    assert gate.passes  # run by run the probabilities are equal, so it is the same model
    plain, shuffled = (check(folders["better"], folder) for folder in (folders["old"], tmp_path / "shuffled"))
    assert plain.decision == shuffled.decision
    assert plain.classes == shuffled.classes


def test_a_metric_of_one_class_names_it(folders):
    gate = check(folders["better"], folders["old"], margin=0.01, metric="f1", positive="fine")
    assert (gate.decision.standing, gate.positive) == (NOT_WORSE, "fine")
    assert gate.lines[1].startswith("F1 of fine 0.")
    worse = check(folders["worse"], folders["old"], margin=0.01, metric="mae", ordered=True)
    assert worse.decision.standing == WORSE
    assert worse.new_score > worse.old_score
    with pytest.raises(ConfigError, match="metric f1 is of one positive class, and the data has 3 labels"):
        check(folders["better"], folders["old"], metric="f1")


def test_a_function_is_imported_only_if_it_is_named(folders, tmp_path):
    place = tmp_path / "theirs"
    shutil.copytree(folders["old"], place)
    spec = (place / "study.yaml").read_text()
    (place / "study.yaml").write_text(spec.replace("metric: null", "metric: nosuchmodule:score"))
    with pytest.raises(ConfigError, match="is ranked by nosuchmodule:score, a Python function, which is not imported"):
        check(place, folders["old"])
    assert check(place, folders["old"], metric="accuracy").passes


def test_log_loss_is_lower_for_a_better_model(folders):
    gate = check(folders["better"], folders["old"], margin=0.01, metric="log_loss")
    assert gate.new_score < gate.old_score
    assert gate.decision.difference > 0
    assert gate.passes
    assert check(folders["worse"], folders["old"], margin=0.01, metric="log_loss").decision.standing == WORSE


@pytest.mark.parametrize("metric", ["macro_f1", "mcc", "weighted_recall"])
def test_any_stored_metric_decides(folders, metric):
    assert check(folders["better"], folders["old"], 0.01, metric).metric == metric
    assert check(folders["better"], folders["old"], 0.01, metric).passes


def test_a_subset_of_the_test_examples_is_refused(folders):
    with pytest.raises(DataError, match=r"150 examples and .* on 2,000, of which 1,850 are in one only, such as 'text"):
        check(folders["thin"], folders["old"])


def test_other_labels_are_refused(folders, tmp_path):
    other = stored_study(tmp_path / "other", [("full", "full", 0.9)], num_test=2000, texts=[f"text {i}" for i in range(2000)])  # fmt: skip
    with pytest.raises(DataError, match=r"has the labels negative, positive, and .*compare studies of the same labels"):
        check(other.folder, folders["old"])


def test_another_strategy_is_chosen_by_its_label(folders):
    gate = check(folders["old"], folders["old"], strategy="majority")
    assert gate.new.startswith("majority of ")
    assert gate.decision.standing == WORSE
    with pytest.raises(ConfigError, match=r"did you mean 'full'"):
        check(folders["old"], folders["old"], strategy="ful")


def test_a_folder_of_runs_is_a_side(folders, tmp_path):
    runs = folders["better"] / "runs"
    gate = check(runs, folders["old"], 0.01, strategy="lora")
    assert gate.decision == check(folders["better"], folders["old"], 0.01).decision
    one = next(runs.glob("lora-*-s0"))
    assert check(one, folders["old"], 0.01).new_repeats == "one run"
    with pytest.raises(ConfigError, match=r"holds runs of lora and majority; choose"):
        check(runs, folders["old"])
    shutil.copytree(one, tmp_path / "alone" / "deep" / one.name)
    with pytest.raises(StoreError, match=r"no test.parquet and data.json in or above"):
        check(tmp_path / "alone" / "deep" / one.name, folders["old"])
    with pytest.raises(StoreError, match=r"holds neither a study nor runs"):
        check(tmp_path / "alone", folders["old"])


def test_seeds_of_a_grid_are_counted_by_source(tmp_path):
    seeds = {"seeds": {"head": [0, 1], "order": [0, 1]}}
    new, old = (study(tmp_path / name, score, num_test=150, **seeds) for name, score in (("new", 0.79), ("old", 0.80)))
    gate = check(new, old, 0.01)
    assert gate.decision.standing == UNDECIDED
    assert gate.new_repeats == "4 runs (2 head x 2 order seeds)"
    wide = replace(gate, decision=replace(gate.decision, required_seeds=5))
    assert "5 seeds of each source instead of 4 runs (2 head x 2 order seeds)" in wide.lines[0]


def test_a_comment_escapes_names_from_the_data(folders):
    text = check(folders["worse"], folders["old"]).markdown
    assert "&lt;b&gt;\\|good" in text
    assert "<b>" not in text
    assert text.startswith("❌ **Worse: ")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {3, 6}


def test_a_result_is_plain_data(folders):
    plain = json.loads(json.dumps(check(folders["worse"], folders["old"]).to_json()))
    assert plain["decision"]["standing"] == WORSE
    assert plain["passes"] is False


@pytest.mark.slow
def test_studies_with_folds_are_compared_on_every_labelled_example(encoder, tmp_path):
    texts, labels = toy_texts(60, np.random.default_rng(0))
    pd.DataFrame({"text": texts, "label": np.where(labels == 1, "positive", "negative")}).to_csv(
        tmp_path / "toy.csv", index=False
    )
    folds = {"evaluate": {"folds": 3}, "seeds": None}
    spec = toy_spec(encoder, tmp_path / "toy.csv", strategies=["majority", "tfidf"], **folds)
    folder = Study(spec, tmp_path / "folds").folder
    Study(spec, folder).run()
    gate = check(folder, folder, margin=0.01)
    assert (gate.examples, gate.noun, gate.new_repeats) == (60, "labelled examples", "3 folds")
    assert gate.passes
    assert check(folder, folder, margin=0.01, strategy="majority").decision.standing == WORSE
    seeds = toy_spec(encoder, tmp_path / "toy.csv", strategies=["majority", "tfidf"], seeds=[0])
    Study(seeds, tmp_path / "split").run()
    with pytest.raises(DataError, match=r"is evaluated on folds and .* on a test split"):
        check(folder, tmp_path / "split")


def simulated(losses, num_examples, num_seeds, seed_sd, rng):
    """Masks of correct predictions of two models with these true accuracies below 0.8: (2, S, N).

    Each example has a difficulty, which the models share in part; each seed shifts the accuracy of its run.
    """
    shared, own = rng.random(num_examples), rng.random((2, 1, num_examples))
    difficulty = np.where(rng.random((2, 1, num_examples)) < 0.6, shared, own)  # uniform, whatever the mixture
    accuracy = 0.8 - np.array(losses)[:, None, None] + rng.normal(0, seed_sd, (2, num_seeds, 1))
    return difficulty < accuracy


def scored(is_right, weights):
    resampled = is_right.astype(np.float32) @ weights.T / is_right.shape[-1]
    seeds = tuple(range(is_right.shape[1]))
    return [stats.RunScores(runs.mean(1), scores, seeds) for runs, scores in zip(is_right, resampled, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(("num_examples", "num_seeds", "seed_sd"), [(300, 2, 0.0), (300, 3, 0.006), (1000, 2, 0.01), (1000, 5, 0.006)])  # fmt: skip
def test_a_loss_as_large_as_the_margin_passes_in_at_most_five_percent(num_examples, num_seeds, seed_sd):
    rng, margin, repetitions = np.random.default_rng(0), 0.02, 1000
    weights = stats.example_weights(num_examples, 500, rng)
    standings = []
    for _ in range(repetitions):
        old, new = scored(simulated((0.0, margin), num_examples, num_seeds, seed_sd, rng), weights)
        standings.append(decide(new, old, "accuracy", margin, num_examples).standing)
    tolerance = 2 * np.sqrt(0.05 * 0.95 / repetitions)  # of the simulation
    assert standings.count(NOT_WORSE) / repetitions <= 0.05 + tolerance
    assert standings.count(WORSE) / repetitions <= 0.05 + tolerance


@pytest.mark.slow
def test_the_stated_number_of_examples_decides_in_most_repetitions():
    rng, margin = np.random.default_rng(0), 0.02

    def decision(num_examples):
        weights = stats.example_weights(num_examples, 300, rng)
        old, new = scored(simulated((0.0, 0.0), num_examples, 3, 0.0, rng), weights)
        return decide(new, old, "accuracy", margin, num_examples)

    undecided = [d for _ in range(40) if (d := decision(1000)).standing == UNDECIDED and abs(d.difference) < 0.003]
    required = int(np.median([d.required_examples for d in undecided]))
    decided = [decision(required).standing == NOT_WORSE for _ in range(60)]
    assert np.mean(decided) > 0.65  # 80 % power, with 60 repetitions and a measured difference that is not the true one
