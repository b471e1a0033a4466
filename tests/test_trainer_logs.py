"""Logs of HF Trainer: those of a real training are read as they are, and one line says what is wrong with others."""

import json
import shutil

import pytest

from tests.trainer import run_trainer
from tuneoff.errors import DataError
from tuneoff.trainer_logs import read_trainer_log


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The output folder of a real training of three epochs of five steps, which keeps the best epoch."""
    return run_trainer(tmp_path_factory.mktemp("trainer") / "out")


@pytest.fixture
def state(trained):
    return json.loads((trained / "trainer_state.json").read_text())


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_curves_and_scores_are_those_of_the_training(trained, state):
    log = read_trainer_log("theirs", str(trained / "trainer_state.json"))
    logged = [entry for entry in state["log_history"] if "loss" in entry]
    assert [step["loss"] for step in log.steps] == [entry["loss"] for entry in logged]
    assert [step["learning_rate"] for step in log.steps] == [entry["learning_rate"] for entry in logged]
    assert [evaluation["epoch"] for evaluation in log.evaluations] == [1, 2, 3]
    assert set(log.evaluations[0]) == {"step", "epoch", "loss", "accuracy", "f1"}
    # the evaluation after the end is of the kept weights: no point of a curve, but the score
    final = state["log_history"][-1]
    assert log.scores == {"evaluation": {name: final[f"eval_{name}"] for name in ("accuracy", "f1", "loss")}}
    assert log.scored_at == "the kept weights"
    assert (log.facts["epochs"], log.facts["steps"], log.facts["batch_size"]) == (3, 15, 8)
    assert log.facts["train_seconds"] > 0


def test_a_folder_has_the_results_too(trained):
    log = read_trainer_log("theirs", str(trained))
    results = json.loads((trained / "all_results.json").read_text())
    assert log.scores["test"] == {name: results[f"test_{name}"] for name in ("accuracy", "f1", "loss")}
    assert len(log.steps) == 7


def test_a_checkpoint_is_a_log(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "out", ignore=shutil.ignore_patterns("*.json", "*.pt", "*.safetensors"))
    for number in (5, 10):
        folder = f"checkpoint-{number}"
        shutil.copy(trained / folder / "trainer_state.json", tmp_path / "out" / folder)
    log = read_trainer_log("theirs", str(tmp_path / "out"))
    assert [evaluation["step"] for evaluation in log.evaluations] == [5, 10]
    assert log.scored_at.startswith("the best checkpoint, step ")


@pytest.mark.parametrize("name", ["all_results.json", "eval_results.json", "test_results.json"])
def test_results_are_scores_without_curves(trained, name):
    log = read_trainer_log("theirs", str(trained / name))
    assert (log.steps, log.evaluations) == ([], [])
    split = "test" if name.startswith("test") else "evaluation"
    assert log.scores[split].keys() == {"accuracy", "f1", "loss"}


def test_results_without_prefixes_are_scores(tmp_path):
    log = read_trainer_log("theirs", write(tmp_path / "r.json", {"accuracy": 0.9, "epoch": 3.0, "model": "bert"}))
    assert log.scores == {"evaluation": {"accuracy": 0.9}}
    assert log.facts == {"epochs": 3.0}


STATE = {"log_history": [{"loss": 0.5, "epoch": 1.0, "step": 10}, {"eval_loss": 0.4, "epoch": 1.0, "step": 10}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1, 2]", "is not a JSON object"),
        ({"a": "b"}, "holds neither a log_history nor a score"),
        ({"train_runtime": 3.0, "train_loss": 0.5}, "holds neither a log_history nor a score"),
        ({"log_history": []}, "has no losses in its log_history; train with logging_steps or eval_strategy"),
        ({"log_history": [{"eval_accuracy": 0.5, "epoch": 1.0, "step": 2}]}, "has no losses in its log_history"),
        ({"log_history": 3}, "log_history is not a list"),
        ({"log_history": [{"loss": float("nan"), "epoch": 1.0, "step": 2}]}, "entry 1 of log_history: loss is nan"),
        ({"log_history": [{"loss": "0.5", "epoch": 1.0, "step": 2}]}, "loss is '0.5', not a number"),
        ({"log_history": [{"loss": 0.5, "epoch": 1.0}]}, "entry 1 of log_history has no step"),
        ({"eval_accuracy": float("inf")}, "eval_accuracy is inf; the training diverged"),
    ],
)
def test_what_is_no_log_is_one_line(content, message, tmp_path):
    with pytest.raises(DataError) as error:
        read_trainer_log("theirs", write(tmp_path / "trainer_state.json", content))
    assert message in str(error.value)
    assert str(error.value).startswith("imported theirs: ")
    assert "\n" not in str(error.value)


def test_a_missing_file_and_an_empty_folder_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"imported theirs: file '.*gone.json' does not exist; give a trainer_state"):
        read_trainer_log("theirs", str(tmp_path / "gone.json"))
    with pytest.raises(DataError, match=r"holds no trainer_state.json and no results JSON"):
        read_trainer_log("theirs", str(tmp_path))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not JSON"):
        read_trainer_log("theirs", str(tmp_path / "binary.json"))


def test_the_best_checkpoint_is_scored_else_the_last(tmp_path):
    log = read_trainer_log("a", write(tmp_path / "a.json", STATE))
    assert log.scored_at == "step 10, the last"
    assert log.scores == {"evaluation": {"loss": 0.4}}
    later = {"eval_loss": 0.6, "epoch": 2.0, "step": 20}
    best = {"log_history": [*STATE["log_history"], later], "best_model_checkpoint": "/their/machine/checkpoint-10"}
    log = read_trainer_log("a", write(tmp_path / "a.json", best))
    assert (log.scored_at, log.scores["evaluation"]) == ("the best checkpoint, step 10", {"loss": 0.4})
