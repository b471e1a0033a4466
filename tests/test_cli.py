"""The command line as a user meets it: what it prints, and one line with exit code 2 for every mistake."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from tuneoff.cli import main


@pytest.fixture
def tuneoff(capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder: -> (exit code, what it printed, what it complained)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tuneoff", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


def write(path, frame):
    pd.DataFrame(frame).to_csv(path, index=False)
    return path


@pytest.fixture
def mistakes(tmp_path, encoder):
    """Every kind of bad input: name -> (arguments, what the line says)."""
    texts = [f"good film {i}" for i in range(20)]
    good = write(tmp_path / "good.csv", {"text": texts, "label": ["a", "b"] * 10})
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,1\n".encode("latin-1"))
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    (tmp_path / "untokenized").mkdir()
    (tmp_path / "untokenized" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "untokenized" / "model.safetensors").write_bytes(b"x")
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "taken").write_text("not a folder")
    (tmp_path / "study.yaml").write_text("data: {source: good.csv}\nstrategis: [full]\n")
    return {
        "missing file": (["compare", "no.csv"], "data file 'no.csv' does not exist"),
        "unknown column": (["compare", good, "--text", "txt"], "column 'txt' is unknown; did you mean 'text'?"),
        "unknown strategy": (["compare", good, "--strategies", "lorra"], "strategy 'lorra' is unknown; did you mean 'lora'?"),
        "unknown option": (["compare", good, "--strategies", "lora:rang=2"], "key 'rang' is unknown; did you mean 'rank'?"),
        "recipe without value": (["compare", good, "--recipe", "class_weights"], "'class_weights' is not key=value; write e.g. class_weights=balanced"),
        "unknown recipe": (["compare", good, "--recipe", "class_weight=balanced"], "key 'class_weight' is unknown; did you mean 'class_weights'?"),
        "two recipes": (["compare", good, "--recipe", "loss=focal,label_smoothing=0.1"], "label_smoothing does not go with loss focal; use one of them"),
        "unknown cost of compare": (["compare", good, "--cost", "latency"], "cost 'latency' is unknown; did you mean 'latency_seconds'?"),
        "unknown YAML key": (["run", tmp_path / "study.yaml"], "key 'strategis' is unknown; did you mean 'strategies'?"),
        "unknown metric": (["compare", good, "--metric", "acc"], "metric 'acc' is unknown; "),
        "missing label": (["compare", write(tmp_path / "m.csv", {"text": texts, "label": ["a", "b", None, "a"] * 5})], "no label in 5 of 20 rows (the first row is 1): 3, 7, 11, 15, 19"),
        "label outside the set": (["compare", good, "--labels", "a,c"], "outside the label set in 10 rows"),
        "unlabelled split": (["compare", good, "--test", write(tmp_path / "t.csv", {"text": texts, "label": [-1] * 20})], "split test is unlabelled"),
        "one class": (["compare", write(tmp_path / "o.csv", {"text": texts, "label": ["a"] * 20})], "one class only, 'a'"),
        "empty text": (["compare", write(tmp_path / "e.csv", {"text": [" ", *texts[1:]], "label": ["a", "b"] * 10})], "an empty text in 1 of 20 rows (the first row is 1): 1"),
        "wrong encoding": (["compare", tmp_path / "latin.csv"], "byte 0xe9 at position 14"),
        "no safetensors": (["compare", good, "--model", tmp_path / "pickled"], "has no *.safetensors; pytorch_model.bin is a pickle, which is not loaded"),
        "no tokenizer": (["compare", good, "--model", tmp_path / "untokenized"], "has no tokenizer"),
        "no model": (["compare", good, "--model", "./nowhere"], "model folder './nowhere' does not exist"),
        "hub out of reach": (["compare", good, "--model", "nobody/nothing"], "model 'nobody/nothing' cannot be loaded"),
        "unsupported architecture": (["compare", good, "--model", tmp_path / "gpt"], "architecture 'gpt2' is unknown"),
        "few examples": (["compare", write(tmp_path / "f.csv", {"text": texts[:3], "label": ["a", "b", "c"]})], "too few to carve"),
        "no text": (["compare", write(tmp_path / "n.csv", {"text": range(20), "label": ["a", "b"] * 10})], "holds only numbers, not text"),
        "no data": (["compare"], "no data given"),
        "params of tfidf": (["params", encoder, "--strategies", "tfidf"], "strategy tfidf uses no encoder"),
        "results is a file": (["compare", good, "--strategies", "majority", "--name", "taken"], "cannot be written"),
        "seeds": (["compare", good, "--seeds", "x"], "--seeds 'x' is not a number"),
        "limit": (["compare", good, "--limit", "train:5"], "--limit 'train:5' is not a number"),
        "hub dataset out of reach": (["inspect", "hf:nobody/nothing"], "hub dataset 'nobody/nothing' cannot be loaded"),
        "no study": (["report", "results/none"], "study folder 'results/none' does not exist"),
        "no study file": (["run", "none.yaml"], "study file 'none.yaml' does not exist"),
        "unknown cost": (["report", ".", "--cost", "money"], "cost 'money' is unknown; "),
        "not a study": (["report", tmp_path / "gpt"], "holds no study.yaml"),
        "params of nothing": (["params", "./nowhere"], "does not exist"),
    }  # fmt: skip


def test_every_mistake_is_one_line_and_exit_code_2(tuneoff, mistakes):
    for name, (arguments, message) in mistakes.items():
        code, printed, complaint = tuneoff(*arguments)
        assert code == 2, (name, code, printed, complaint)
        assert message in complaint, (name, complaint)
        assert complaint.count("\n") == 1, (name, complaint)
        assert complaint.startswith("tuneoff: "), name


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
    assert "runs to make" not in tuneoff(*command)[1]
    assert tuneoff("report", "results/toy")[0] == 0


@pytest.mark.slow
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
    for part in ("negative", "positive", "tokens on average", "test was carved from train"):
        assert part in printed


def test_lists_name_everything(tuneoff):
    from tuneoff.strategies import STRATEGIES

    assert all(name in tuneoff("strategies")[1] for name in STRATEGIES)
    assert "studies:quickstart" in tuneoff("studies")[1]
    assert "packaged model minilm: ready" in tuneoff("doctor")[1]


def test_the_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "tuneoff", "--help"], capture_output=True, text=True, check=True)
    assert "compare" in done.stdout
