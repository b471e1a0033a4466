"""The command line as users see it: output, and one line with exit code 2 for every mistake."""

import json
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import yaml

import tuneoff as package
from tests.tiny import toy_texts
from tuneoff.cli import main
from tuneoff.data.spec import DataSpec
from tuneoff.studies import packaged_studies


@pytest.fixture
def tuneoff(capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder: -> (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tuneoff", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


TEXTS = [f"good film {i}" for i in range(20)]
LABELS = ["a", "b"] * 10
TABLES: dict[str, dict[str, Sequence[object]]] = {
    "good.csv": {"text": TEXTS, "label": LABELS},
    "missing.csv": {"text": TEXTS, "label": ["a", "b", None, "a"] * 5},
    "unlabelled.csv": {"text": TEXTS, "label": [-1] * 20},
    "one-class.csv": {"text": TEXTS, "label": ["a"] * 20},
    "empty-text.csv": {"text": [" ", *TEXTS[1:]], "label": LABELS},
    "few.csv": {"text": TEXTS[:3], "label": ["a", "b", "c"]},
    "numbers.csv": {"text": range(20), "label": LABELS},
}


@pytest.fixture
def messy_folder(tmp_path):
    """A folder with everything that the mistakes below name."""
    for name, columns in TABLES.items():
        pd.DataFrame(columns).to_csv(tmp_path / name, index=False)
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,1\n".encode("latin-1"))
    for name, model_type, file in (
        ("pickled", "bert", "pytorch_model.bin"),
        ("untokenized", "bert", "model.safetensors"),
        ("gpt", "gpt2", None),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": model_type}))
        if file:
            (tmp_path / name / file).write_bytes(b"x")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "taken").write_text("not a folder")
    (tmp_path / "study.yaml").write_text("data: {source: good.csv}\nstrategis: [full]\n")


MISTAKES = {
    "missing file": ("compare no.csv", "data file 'no.csv' does not exist"),
    "unknown column": ("compare good.csv --text txt", "column 'txt' is unknown; did you mean 'text'?"),
    "unknown strategy": ("compare good.csv --strategies lorra", "strategy 'lorra' is unknown; did you mean 'lora'?"),
    "unknown option": ("compare good.csv --strategies lora:rang=2", "key 'rang' is unknown; did you mean 'rank'?"),
    "recipe without value": ("compare good.csv --recipe class_weights", "'class_weights' is not key=value; write e.g. class_weights=balanced"),
    "unknown recipe": ("compare good.csv --recipe class_weight=balanced", "key 'class_weight' is unknown; did you mean 'class_weights'?"),
    "two recipes": ("compare good.csv --recipe loss=focal,label_smoothing=0.1", "label_smoothing"),
    "unknown cost of compare": ("compare good.csv --cost latency", "cost 'latency' is unknown; did you mean 'latency_seconds'?"),
    "unknown YAML key": ("run study.yaml", "key 'strategis' is unknown; did you mean 'strategies'?"),
    "unknown metric": ("compare good.csv --metric acc", "metric 'acc' is unknown; "),
    "missing label": ("compare missing.csv", "no label in 5 of 20 rows (the first row is 1): 3, 7, 11, 15, 19"),
    "label outside the set": ("compare good.csv --labels a,c", "outside the label set in 10 rows"),
    "unlabelled split": ("compare good.csv --test unlabelled.csv", "split test is unlabelled"),
    "one class": ("compare one-class.csv", "one class only, 'a'"),
    "empty text": ("compare empty-text.csv", "an empty text in 1 of 20 rows (the first row is 1): 1"),
    "wrong encoding": ("compare latin.csv", "byte 0xe9 at position 14"),
    "no safetensors": ("compare good.csv --model ./pickled", "has no *.safetensors; pytorch_model.bin is a pickle, which is not loaded"),
    "no tokenizer": ("compare good.csv --model ./untokenized", "has no tokenizer"),
    "no model": ("compare good.csv --model ./nowhere", "model folder './nowhere' does not exist"),
    "hub out of reach": ("compare good.csv --model nobody/nothing", "model 'nobody/nothing' cannot be loaded"),
    "unsupported architecture": ("compare good.csv --model ./gpt", "architecture 'gpt2' is unknown"),
    "few examples": ("compare few.csv", "too few to hold out"),
    "no text": ("compare numbers.csv", "holds only numbers, not text"),
    "no data": ("compare", "no data given"),
    "params of tfidf": ("params distilbert-base-uncased --strategies tfidf", "strategy tfidf uses no encoder"),
    "results is a file": ("compare good.csv --strategies majority --name taken", "cannot be written"),
    "seeds": ("compare good.csv --seeds x", "--seeds 'x' is not a number"),
    "limit": ("compare good.csv --limit train:5", "--limit 'train:5' is not a number"),
    "fraction": ("compare good.csv --test-fraction 2", "test_fraction: "),
    "hub dataset out of reach": ("inspect hf:nobody/nothing", "hub dataset 'nobody/nothing' cannot be loaded"),
    "no study": ("report results/none", "study folder 'results/none' does not exist"),
    "no study file": ("run none.yaml", "study file 'none.yaml' does not exist"),
    "unknown cost": ("report . --cost money", "cost 'money' is unknown; "),
    "not a study": ("report gpt", "holds no study.yaml"),
    "params of nothing": ("params ./nowhere", "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize(("command", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(tuneoff, messy_folder, command, message):
    code, _, error = tuneoff(*command.split())
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("tuneoff: ")


def test_the_version(tuneoff):
    assert tuneoff("--version")[:2] == (0, f"tuneoff {package.__version__}\n")


def test_every_field_of_the_data_is_an_option(tuneoff):
    for command in ("compare", "inspect"):
        help_text = tuneoff(command, "--help")[1]
        for field in DataSpec.model_fields:
            option = {"source": "DATA", "splits": "--validation", "limits": "--limit"}.get(
                field, f"--{field.replace('_', '-')}"
            )
            assert option in help_text, (command, field)


def test_data_options_reach_the_data(tuneoff, messy_folder, encoder):
    options = ["--test-fraction", "0.4", "--limit", "train=6", "--labels", "b,a", "--model", encoder]
    stored = json.loads(tuneoff("inspect", "good.csv", *options, "--json")[1])
    assert {split: part["examples"] for split, part in stored["splits"].items()} == {
        "train": 6,
        "validation": 2,
        "test": 8,
    }
    assert stored["label_names"] == ["b", "a"]


@pytest.mark.parametrize("command", ["strategies", "studies", "doctor"])
def test_lists_are_json_too(tuneoff, command):
    stored = json.loads(tuneoff(command, "--json")[1])
    expected = {"strategies": "recipe", "studies": "quickstart", "doctor": "packaged"}[command]
    assert stored[expected]


def test_tab_completion_is_installed_by_typer(tuneoff, monkeypatch):
    assert "--install-completion" in tuneoff("--help")[1]
    monkeypatch.setenv("_TUNEOFF_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "tuneoff run studies:")
    monkeypatch.setenv("COMP_CWORD", "2")
    command = [sys.executable, "-c", "import sys; sys.argv = ['tuneoff']; from tuneoff.cli import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == {f"studies:{name}" for name in packaged_studies()}


def test_many_classes_are_summarised(tuneoff, tmp_path, encoder):
    rng = np.random.default_rng(0)
    labels = [f"intent {i:03d}" for i in range(77) for _ in range(3 + (i == 5) * 40)]
    texts = [f"{text} {i}" for i, text in enumerate(toy_texts(len(labels), rng)[0])]
    pd.DataFrame({"text": texts, "label": labels}).to_csv(tmp_path / "intents.csv", index=False)
    code, printed, _ = tuneoff("inspect", "intents.csv", "--model", encoder, "--report", "data.html")
    assert code == 0
    assert "77 classes of " in printed
    assert "(intent 005)" in printed
    assert "intent 040" not in printed.split("train:")[0]
    page = (tmp_path / "data.html").read_text()
    assert page.count('<td class="words" title="intent ') >= 77
    assert 'data-chart="labels"' in page


@pytest.mark.slow
def test_compare_prints_leaderboard_verdict_and_report(tuneoff, toy_csv, encoder, tmp_path):
    command = [
        "compare",
        toy_csv,
        "--model",
        encoder,
        "--strategies",
        "majority,tfidf",
        "--seeds",
        "1",
        "--max-length",
        "16",
    ]
    code, printed, _ = tuneoff(*command)
    assert code == 0
    assert "tfidf scores best: accuracy" in printed.replace("\n", " ")
    assert "results/toy/report/index.html" in printed
    stored = sorted(tmp_path.glob("results/toy/runs/*/run.json"))
    assert len(stored) == 2
    times = [path.stat().st_mtime_ns for path in stored]
    # a mistake in a later command loses nothing
    assert tuneoff(*command, "--text", "nope")[0] == 2
    assert [path.stat().st_mtime_ns for path in stored] == times
    assert "runs to do" not in tuneoff(*command)[1]
    quiet = tuneoff(*command, "--quiet")
    assert quiet == (0, "", "")
    stored = json.loads(tuneoff(*command, "--json")[1])
    assert stored["verdict"]["best"] == stored["leaderboard"][0]["group"]
    assert tuneoff("report", "results/toy")[0] == 0


@pytest.mark.slow
def test_a_packaged_study_runs_on_data_and_an_encoder_of_ones_own(tuneoff, toy_csv, encoder, tmp_path):
    options = [
        "--data",
        toy_csv,
        "--model",
        encoder,
        "--epochs",
        "1",
        "--max-length",
        "16",
        "--seeds",
        "1",
        "--limit",
        "train=20",
    ]
    (tmp_path / "s.yaml").write_text(
        "data: {source: nowhere.csv, text: review, label: stars, labels: [negative, positive]}\n"
        "model: bert-base-uncased\nstrategies: [head]\n"
        "reported: [{strategy: head, score: 0.8, source: somebody, model: bert-base-uncased}]\n"
    )
    code, printed, _ = tuneoff("run", "s.yaml", *options, "--name", "mine")
    assert code == 0
    assert "head" in printed
    study = yaml.safe_load((tmp_path / "results" / "mine" / "study.yaml").read_text())
    assert (study["recipe"]["epochs"], study["data"]["limits"], study["model"]) == (1, {"train": 20}, [encoder])
    assert "somebody" in (tmp_path / "results" / "mine" / "report.md").read_text()


def test_plan_says_what_would_run(tuneoff, toy_csv, encoder, tmp_path):
    (tmp_path / "s.yaml").write_text(
        f"data: {{source: {toy_csv}}}\nmodel: {encoder}\nstrategies: [tfidf, lora]\nbaselines: false\nseeds: 2\nrecipe: {{max_length: 16}}\n"
    )
    code, printed, _ = tuneoff("plan", "s.yaml")
    assert code == 0
    assert "3 runs" in printed
    assert not (tmp_path / "results").exists()
    found = json.loads(tuneoff("plan", "s.yaml", "--json")[1])
    assert [run["label"] for run in found["runs"]] == ["tfidf", "lora", "lora"]
    assert found["runs"][1]["parameters"]["added"] > 0


def test_params_are_published_ones(tuneoff):
    code, printed, _ = tuneoff("params", "distilbert-base-uncased", "--strategies", "head,lora,lora:rank=16", "--json")
    assert code == 0
    assert [row["trainable"] for row in json.loads(printed)] == [592_130, 739_586, 887_042]
    probe = tuneoff("params", "distilbert-base-uncased", "--strategies", " probe", "--json")[1]
    assert json.loads(probe)[0]["trainable"] == 769
    assert "66,955,010" in tuneoff("params", "distilbert-base-uncased")[1]


def test_inspect_shows_the_data(tuneoff, toy_csv, encoder):
    code, printed, _ = tuneoff("inspect", toy_csv, "--model", encoder)
    assert code == 0
    for part in ("negative", "positive", "tokens on average", "test was held out from train"):
        assert part in printed


def test_lists_name_everything(tuneoff):
    from tuneoff.strategies import STRATEGIES

    assert all(name in tuneoff("strategies")[1] for name in STRATEGIES)
    assert "studies:quickstart" in tuneoff("studies")[1]
    assert "packaged model minilm: ready" in tuneoff("doctor")[1]


def test_the_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "tuneoff", "--help"], capture_output=True, text=True, check=True)
    assert "compare" in done.stdout
