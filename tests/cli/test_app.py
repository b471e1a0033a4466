"""The command line as users see it: output, and one line with exit code 2 for every mistake."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import yaml

import tuneoff as package
from tests.data.frames import multilabel_frame
from tests.stored import stored_study
from tests.tiny import tiny_model, toy_texts
from tuneoff.cli.options import parse_cost
from tuneoff.costs import choosable_costs
from tuneoff.data.spec import DataSpec
from tuneoff.studies import packaged_studies
from tuneoff.validation import is_list_field

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
        ("gpt", "gpt2", None),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": model_type}))
        if file:
            (tmp_path / name / file).write_bytes(b"x")
    tiny_model("bert").base_model.save_pretrained(tmp_path / "untokenized")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "taken").write_text("not a folder")
    (tmp_path / "limits.yaml").write_text("data: {source: good.csv, limits: {foo: 3}}\n")
    (tmp_path / "study.yaml").write_text("data: {source: good.csv}\nstrategis: [full]\n")


MISTAKES = {
    "missing file": ("compare no.csv", "data file 'no.csv' does not exist"),
    "unknown column": ("compare good.csv --text txt", "column 'txt' is unknown; did you mean 'text'?"),
    "unknown strategy": ("compare good.csv --strategies lorra", "strategy 'lorra' is unknown; did you mean 'lora'?"),
    "unknown option": ("compare good.csv --strategies lora:rang=2", "key 'rang' is unknown; did you mean 'rank'?"),
    "recipe without value": ("compare good.csv --recipe class_weights", "'class_weights' is not key=value; write e.g. class_weights=balanced"),
    "unreadable recipe": ("compare good.csv --recipe clip=[", "--recipe 'clip=[': value '[' cannot be read"),
    "no seeds": ("compare good.csv --seeds 0", "seeds: no value; give at least 1"),
    "not a number": ("compare good.csv --strategies lora:rank=x", "rank: should be a valid integer, not 'x'"),
    "no data files": ("inspect results", "folder 'results' holds no data files; expected train.csv or another of .csv, .tsv"),
    "unknown recipe": ("compare good.csv --recipe class_weight=balanced", "key 'class_weight' is unknown; did you mean 'class_weights'?"),
    "two recipes": ("compare good.csv --recipe loss=focal,label_smoothing=0.1", "label_smoothing"),
    "unknown cost of compare": ("compare good.csv --cost latency", "cost 'latency' is unknown; did you mean 'latency_seconds'?"),
    "unknown YAML key": ("run study.yaml", "key 'strategis' is unknown; did you mean 'strategies'?"),
    "unknown metric": ("compare good.csv --metric acc", "metric 'acc' is unknown; "),
    "metric of no module": ("compare good.csv --metric nosuch:score", "metric nosuch:score: there is no module nosuch in"),
    "metric of no function": ("compare good.csv --metric json:nosuch", "metric json:nosuch: module json has no nosuch; define score(labels, predicted, probabilities)"),
    "positive class that there is not": ("compare good.csv --positive c", "positive class 'c' is none of the labels; choose from a, b"),
    "threshold": ("compare good.csv --threshold 0.3", "threshold '0.3' is neither validation nor 0.5; write threshold: validation"),
    "threshold of no metric": ("compare good.csv --threshold validation --select-by log_loss", "log_loss does not depend on it; select by another one"),
    "labels that are not ordered": ("compare good.csv --metric mae", "metric mae is of ordered labels; say that a, b are in order"),
    "missing label": ("compare missing.csv", "no label in 5 of 20 rows (the first row is 1): 3, 7, 11, 15, 19"),
    "label outside the set": ("compare good.csv --labels a,c", "outside the label set in 10 rows"),
    "unlabelled split": ("compare good.csv --test unlabelled.csv", "split test is unlabelled"),
    "one class": ("compare one-class.csv", "one class only, 'a'"),
    "empty text": ("compare empty-text.csv", "an empty text in 1 of 20 rows (the first row is 1): 1"),
    "wrong encoding": ("compare latin.csv", "byte 0xe9 at position 14"),
    "no safetensors": ("compare good.csv --model ./pickled", "has no *.safetensors; pytorch_model.bin is a pickle, which is not loaded"),
    "no tokenizer": ("compare good.csv --model ./untokenized --max-length 16", "has no tokenizer"),
    "no model": ("compare good.csv --model ./nowhere", "model folder './nowhere' does not exist"),
    "hub out of reach": ("compare good.csv --model nobody/nothing", "model 'nobody/nothing' is not in the cache of the Hugging Face hub"),
    "unsupported architecture": ("compare good.csv --model ./gpt", "architecture 'gpt2' is unknown"),
    "few examples": ("compare few.csv", "too few to hold out"),
    "no text": ("compare numbers.csv", "holds only numbers, not text"),
    "no data": ("compare", "no data given"),
    "params of tfidf": ("params distilbert-base-uncased --strategies tfidf", "strategy tfidf uses no encoder"),
    "results is a file": ("compare good.csv --strategies majority --name taken", "cannot be written"),
    "folds": ("compare good.csv --folds x", "--folds 'x' is neither a number of folds, 2 or more, nor none; write 5 or none"),
    "folds and seeds": ("compare good.csv --folds 3 --seeds 2", "seeds do not go with 3 folds, which take their place"),
    "too many folds": ("compare good.csv --folds 11", "class 'a' has 10 examples, fewer than 11 folds; use fewer folds (--folds 2), or"),
    "seeds": ("compare good.csv --seeds x", "--seeds 'x' is not a number"),
    "seeds of an unknown source": ("compare good.csv --seeds head=2,ordr=2", "seeds: source 'ordr' is unknown; did you mean 'order'?"),
    "seeds of a source": ("compare good.csv --seeds head=2,order", "--seeds 'head=2,order' is not a number"),
    "limit of an unknown split": ("compare good.csv --limit foo=3", "--limit 'foo=3': split 'foo' is unknown; choose from train, validation, test"),
    "limit of an unknown split in YAML": ("plan limits.yaml", "data.limits: key 'foo' should be 'train', 'validation' or 'test'"),
    "name": ("compare good.csv --name a/b", "name: 'a/b' does not fit the pattern, which is letters, digits, _, - and . only"),
    "report in no folder": ("inspect good.csv --report none/data.html", "--report 'none/data.html': folder 'none' does not exist; create it first"),
    "report is a folder": ("inspect good.csv --report gpt", "--report 'gpt' is a folder; name a file in it"),
    "review in no folder": ("inspect good.csv --review none/labels.csv", "--review 'none/labels.csv': folder 'none' does not exist"),
    "unknown review": ("inspect good.csv --review labels.csv --review-by tfdif", "--review-by 'tfdif' is unknown; did you mean 'tfidf'?"),
    "no corrections": ("compare good.csv --corrections none.csv", "corrections file 'none.csv' does not exist"),
    "limit given twice": ("compare good.csv --limit train=5 --limit train=6", "--limit 'train=5,train=6' names train twice; give it once"),
    "recipe given twice": ("compare good.csv --recipe clip=1,clip=2", "names clip twice; give it once"),
    "option given twice": ("compare good.csv --metric accuracy --text text --metric macro_f1", "--metric takes one value, but is given 2 times"),
    "seeds given twice": ("compare good.csv --seeds 3 --seeds 4", "--seeds takes one value, but is given 2 times"),
    "limit": ("compare good.csv --limit train:5", "--limit 'train:5' is not a number"),
    "fraction": ("compare good.csv --test-fraction 2", "test_fraction: "),
    "hub dataset out of reach": ("inspect hf:nobody/nothing", "hub dataset 'nobody/nothing' is not in the cache of the Hugging Face hub"),
    "no study": ("report results/none", "study folder 'results/none' does not exist"),
    "no study file": ("run none.yaml", "study file 'none.yaml' does not exist"),
    "unknown cost": ("report . --cost money", "cost 'money' is unknown; "),
    "difference in percent": ("plan study.yaml --detect 1", "difference 1 is not from 0.001 to 0.5; it is of accuracy: write 0.01 for one point"),
    "margin in percent": ("compare good.csv --margin 1", "margin 1 is not from 0 to 0.5; it is in the metric's units: write 0.01 for one point"),
    "margin with a sign": ("report . --margin -0.01", "margin -0.01 is not from 0 to 0.5"),
    "margin with a unit": ("compare good.csv --margin 1%", "margin '1%' is not a number; write 0.01 for one point of accuracy"),
    "price is no number": ("report . --price-per-hour cheap", "--price-per-hour 'cheap' is not a number of at least 0; write e.g. --price-per-hour 0.5"),
    "negative price": ("compare good.csv --price-per-hour -1", "--price-per-hour '-1' is not a number of at least 0"),
    "endless emissions": ("compare good.csv --grams-per-kwh inf", "--grams-per-kwh 'inf' is not a number of at least 0"),
    "predictions without a name": ("compare good.csv --predictions gpt.csv", "predictions 'gpt.csv' are not name=file; write e.g. gpt=gpt.csv"),
    "predictions from no file": ("compare good.csv --strategies majority --predictions gpt=none.csv", "predictions gpt: data file 'none.csv' does not exist"),
    "predictions of other texts": ("compare good.csv --strategies majority --predictions gpt=few.csv", "predictions gpt: "),
    "predictions named like a strategy": ("compare good.csv --predictions lora=good.csv", "predictions 'lora' have the name of a strategy; choose another name"),
    "tag without a pattern": ("compare good.csv --tag late", "tag 'late' is not name=pattern; write e.g. late_but="),
    "tag that is no regular expression": ("compare good.csv --tag late=(but", "tag 'late': '(but' is no regular expression: missing ) at position 4; put a backslash before characters such as ( [ * + ? that are meant literally"),
    "log without a name": ("compare good.csv --import state.json", "imported 'state.json' is not name=file; write e.g. theirs=trainer_state.json"),
    "log from no file": ("compare good.csv --strategies majority --import theirs=none.json", "imported theirs: file 'none.json' does not exist"),
    "log that is no JSON": ("compare good.csv --strategies majority --import theirs=good.csv", "imported theirs: good.csv is not JSON"),
    "log named like a strategy": ("compare good.csv --import lora=none.json", "imported logs 'lora' have the name of a strategy; choose another name"),
    "cost of predictions": ("compare good.csv --predictions gpt=good.csv:usd=", "predictions.0.cost.usd: should be a valid number, not ''"),
    "money without a price": ("compare good.csv --cost usd", "cost usd needs rates.usd_per_hour; state it in the study, or with --price-per-hour"),
    "not a study": ("report gpt", "holds no study.yaml"),
    "no study to prune": ("studies --prune gpt", "'gpt' is no study's folder"),
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


def test_options_that_are_lists_show_their_format(tuneoff):
    options = " ".join(tuneoff("inspect", "--help")[1].split()).split(" --")
    lists = [name for name, field in DataSpec.model_fields.items() if is_list_field(field)]
    assert lists
    for field in lists:
        # the type is TEXT in older typer, <str> in newer
        (option,) = [option for option in options if option.startswith(f"{field.replace('_', '-')} ")]
        assert "; separated by commas, e.g. " in option


def test_costs_are_listed_and_their_names_are_accepted(tuneoff, finished):
    for command in ("compare", "report"):
        help_text = " ".join(tuneoff(command, "--help")[1].split())
        for key, cost in choosable_costs().items():
            assert f"{key} ({cost.name})" in help_text
            assert parse_cost(cost.name) == key
    assert tuneoff("report", finished[0].folder, "--cost", "memory", "--quiet") == (0, "", "")


def test_a_report_states_another_price_without_new_runs(tuneoff, tmp_path):
    study = stored_study(tmp_path / "s", [("full", "full", 0.9), ("lora", "lora", 0.7)], rates={"usd_per_hour": 1.0})

    def money(*options):
        code, out, _ = tuneoff("report", study.folder, "--json", *options)
        assert code == 0
        return json.loads(out)["leaderboard"][0]["costs"]

    stored = money()
    assert stored["usd"] == pytest.approx(stored["fit_seconds"] / 3600)
    assert "co2_grams" not in stored
    other = money("--price-per-hour", "2", "--cost", "usd", "--grams-per-kwh", "300", "--watts", "100")
    assert other["usd"] == pytest.approx(2 * stored["usd"])
    assert other["co2_grams"] == pytest.approx(other["fit_seconds"] * 100 / 3.6e6 * 300)
    assert money() == stored


def test_a_report_may_be_of_another_class_or_of_labels_in_order(tuneoff, tmp_path):
    study = stored_study(tmp_path / "s", [("full", "full", 0.9), ("lora", "lora", 0.7)])
    code, out, _ = tuneoff("report", study.folder, "--metric", "f1", "--positive", "negative")
    assert code == 0
    assert "F1 is that of the class 'negative'." in out
    code, out, _ = tuneoff("report", study.folder, "--metric", "mae", "--ordered", "--json")
    assert code == 0
    assert json.loads(out)["leaderboard"][0]["scores"]["quadratic_kappa"] > 0.5


def test_predictions_are_added_by_name_and_file(tuneoff, tmp_path):
    study = stored_study(tmp_path / "s", [("full", "full", 0.9)], seeds=1)
    labels = study.store.test_examples()["label"]
    for name in ("a", "b", "c"):
        pd.DataFrame({"example": range(len(labels)), "predicted": labels}).to_csv(tmp_path / f"{name}.csv", index=False)
    options = ["--predictions", "a=a.csv:usd=0.001,b=b.csv", "--predictions", "c=c.csv", "--price-per-hour", "1"]
    code, out, _ = tuneoff("report", study.folder, *options)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:5]] == ["a", "b", "c", "full"]
    stored = yaml.safe_load((study.folder / "study.yaml").read_text())
    assert [entry["cost"] for entry in stored["predictions"]] == [{"usd": 0.001}, {}, {}]
    assert stored["rates"]["usd_per_hour"] is None  # of that report only


def test_data_options_reach_the_data(tuneoff, messy_folder, encoder):
    options = ["--test-fraction", "0.4", "--limit", "train=6", "--labels", "b,a", "--model", encoder]
    stored = json.loads(tuneoff("inspect", "good.csv", *options, "--json")[1])
    assert {split: part["examples"] for split, part in stored["splits"].items()} == {
        "train": 6,
        "validation": 2,
        "test": 8,
    }
    assert stored["label_names"] == ["b", "a"]


def test_repeated_options_add_up(tuneoff, messy_folder, encoder):
    limits = ["--limit", "train=6", "--limit", "test=2"]
    stored = json.loads(
        tuneoff("inspect", "good.csv", *limits, "--labels", "b", "--labels", "a", "--model", encoder, "--json")[1]
    )
    assert [stored["splits"][split]["examples"] for split in ("train", "test")] == [6, 2]
    assert stored["label_names"] == ["b", "a"]
    counted = tuneoff("params", "distilbert-base-uncased", "--strategies", "head", "--strategies", "lora", "--json")[1]
    assert [row["strategy"] for row in json.loads(counted)] == ["head", "lora"]


@pytest.mark.parametrize("command", ["strategies", "studies", "doctor"])
def test_lists_are_json_too(tuneoff, command):
    stored = json.loads(tuneoff(command, "--json")[1])
    expected = {"strategies": "recipe", "studies": "packaged", "doctor": "packaged_models"}[command]
    assert stored[expected]


def completions(monkeypatch, *words):
    """Completions of the last word in bash."""
    monkeypatch.setenv("_TUNEOFF_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(["tuneoff", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    command = [sys.executable, "-c", "import sys; sys.argv = ['tuneoff']; from tuneoff.cli import main; main()"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def test_tab_completion_is_installed_by_typer(tuneoff):
    assert "--install-completion" in tuneoff("--help")[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "st"], {f"studies:{name}" for name in packaged_studies()}),
        (["run", "studies:"], {f"studies:{name}" for name in packaged_studies()}),  # without : in COMP_WORDBREAKS
        (["run", "studies", ":"], set(packaged_studies())),
        (["run", "studies", ":", "quick"], {"quickstart"}),
        (["plan", "studies", ":", "nothing"], set()),
        (["report", "results/quickstart", "--cost", "pe"], {"peak_bytes"}),
    ],
)
def test_completion_in_bash_starts_after_the_colon(monkeypatch, words, expected):
    assert set(completions(monkeypatch, *words)) == expected


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
    assert "Examples of the first 10 of 77 labels" in printed
    assert "Report: data.html" in printed
    page = (tmp_path / "data.html").read_text()
    assert page.count('<td class="words" title="intent ') >= 77
    assert 'data-chart="labels"' in page


@pytest.mark.slow
def test_quiet_prints_failed_runs_as_errors(tuneoff, toy_csv, encoder):
    options = ["--model", encoder, "--seeds", "1", "--epochs", "1", "--max-length", "16", "--search", "none"]
    command = ["compare", toy_csv, *options, "--strategies", "head:learning_rate=1.0,full:learning_rate=1.0"]
    loud = tuneoff(*command, "--recipe", "clip=1e30,weight_decay=1e30")
    code, printed, errors = tuneoff("report", "results/toy", "--quiet")
    assert "diverged" in loud[1]
    assert (code, printed) == (0, "")
    assert "diverged" in errors
    quiet = tuneoff(*command, "--recipe", "clip=1e30,weight_decay=1e30", "--name", "again", "--quiet")
    assert (quiet[0], quiet[1]) == (loud[0], "")
    assert quiet[2].replace("again", "toy") == errors


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
    assert "Pick tfidf: accuracy" in printed.replace("\n", " ")
    lines = printed.splitlines()
    assert lines[0].startswith("toy.csv: 60 examples, 2 classes (negative 50 %, positive 50 %); text from ")
    assert lines[1] == "evaluation: 48 train, 6 validation, 6 test (held out, stratified), 1 seed"
    assert "2 runs after 1 search, " in printed
    assert "results/toy/report/index.html" in printed
    stored = sorted(tmp_path.glob("results/toy/runs/*/run.json"))
    assert len(stored) == 2
    times = [path.stat().st_mtime_ns for path in stored]
    # a mistake in a later command loses nothing
    assert tuneoff(*command, "--text", "nope")[0] == 2
    assert [path.stat().st_mtime_ns for path in stored] == times
    assert "every run is stored: nothing to train" in tuneoff(*command)[1]
    quiet = tuneoff(*command, "--quiet")
    assert quiet == (0, "", "")
    _, printed, errors = tuneoff(*command, "--json")
    stored = json.loads(printed)
    assert errors == ""
    assert stored["verdict"]["best"] == stored["leaderboard"][0]["group"]
    assert tuneoff("report", "results/toy")[0] == 0


@pytest.mark.slow
def test_fewer_strategies_extend_a_study_and_other_settings_replace_it(tuneoff, toy_csv, encoder, tmp_path):
    command = ["compare", toy_csv, "--model", encoder, "--seeds", "1", "--max-length", "16", "--search", "none"]
    tuneoff(*command, "--strategies", "head,probe", "--epochs", "1")
    printed = tuneoff(*command, "--strategies", "probe", "--epochs", "1")[1]
    assert "extends results/toy: head is stored" in printed
    assert "head " in printed.partition("nothing to train")[2]
    code, _, error = tuneoff(*command, "--strategies", "head", "--epochs", "2")
    assert (code, error.count("\n")) == (2, 1)
    assert "results/toy holds runs with other settings: epochs 1, now 2. " in error
    printed = tuneoff(*command, "--strategies", "head", "--epochs", "2", "--replace")[1]
    assert "replaces the settings of results/toy" in printed
    assert "2 stored runs have other settings and are not shown; tuneoff studies --prune results/toy" in printed
    assert len(list(tmp_path.glob("results/toy/runs/*"))) == 5
    assert "results/toy  3 runs, and 2 runs (" in tuneoff("studies")[1]
    listed = tuneoff("studies", "--prune", "toy")[1]
    assert "Nothing was removed; add --yes to remove 2 runs (" in listed
    assert len(json.loads(tuneoff("studies", "--prune", "--json")[1])["results/toy"]) == 2
    stored = json.loads(tuneoff("studies", "--json")[1])["stored"]["results/toy"]
    assert (stored["runs"], len(stored["orphans"])) == (3, 2)
    assert "results/toy: removed 2 runs (" in tuneoff("studies", "--prune", "--yes")[1]
    assert len(list(tmp_path.glob("results/toy/runs/*"))) == 3
    assert "Nothing to remove" in tuneoff("studies", "--prune", "results/toy")[1]


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
    stored = json.loads(tuneoff("plan", "s.yaml", "--json")[1])
    assert [run["label"] for run in stored["runs"]] == ["tfidf", "lora", "lora"]
    assert stored["runs"][1]["parameters"]["added"] > 0


def test_plan_of_folds_says_what_follows_them(tuneoff, toy_csv, encoder, tmp_path):
    (tmp_path / "s.yaml").write_text(
        f"data: {{source: {toy_csv}}}\nmodel: {encoder}\nstrategies: [tfidf, lora]\nbaselines: false\nevaluate: {{folds: 3}}\nrecipe: {{max_length: 16}}\n"
    )
    code, printed, _ = tuneoff("plan", "s.yaml")
    assert code == 0
    assert "6 runs" in printed
    assert "the strategy that the verdict picks is trained once on all labelled examples" in " ".join(printed.split())


def test_plan_of_a_peft_strategy_prints_nothing_of_libraries(tuneoff, toy_csv, encoder, tmp_path):
    (tmp_path / "s.yaml").write_text(
        f"data: {{source: {toy_csv}}}\nmodel: {encoder}\nstrategies: [peft: {{type: dora}}]\nbaselines: false\n"
        "seeds: 1\nrecipe: {max_length: 16}\n"
    )
    # a process of its own: libraries read their settings when they are imported
    libraries = ("HF_", "TRANSFORMERS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(libraries)}
    command = [sys.executable, "-m", "tuneoff", "plan", "s.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["strategy", "peft", "1"]


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
    for part in ("negative", "positive", "tokens on average", "5 folds over all examples"):
        assert part in printed


def test_inspect_counts_each_multilabel_example_once(tuneoff, tmp_path, encoder):
    multilabel_frame(60).to_json(tmp_path / "topics.jsonl", orient="records", lines=True)
    command = ["inspect", "topics.jsonl", "--model", encoder]
    splits = json.loads(tuneoff(*command, "--json")[1])["splits"]
    assert sum(splits["train"]["labels"]) != splits["train"]["examples"]
    row = next(line for line in tuneoff(*command)[1].splitlines() if line.startswith("all "))
    assert row.split()[1:] == [str(split["examples"]) for split in splits.values()]


def test_inspect_writes_doubtful_labels_that_corrections_repair(tuneoff, tmp_path):
    rows = [(f"{'good' if i % 2 else 'bad'} film {i}", "ab"[i % 2 if i > 3 else 1 - i % 2]) for i in range(80)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "noisy.csv", index=False)
    code, printed, _ = tuneoff("inspect", "noisy.csv", "--review", "labels.csv", "--review-by", "tfidf")
    assert code == 0
    assert "4 doubtful labels of 80 examples, by TF-IDF, most doubtful first: labels.csv" in printed
    assert "doubtful labels: 4 of 80 in train are contradicted by a classifier" in " ".join(printed.split())
    labels = pd.read_csv(tmp_path / "labels.csv")
    labels.assign(corrected=labels["suggested"]).to_csv(tmp_path / "labels.csv", index=False)
    printed = tuneoff("inspect", "noisy.csv", "--corrections", "labels.csv", "--review", "more.csv")[1]
    assert "4 labels of labels.csv corrected: 4 changed and 0 dropped" in printed
    assert "0 doubtful labels of 80 examples, by a probe on the encoder's vectors" in printed


def test_inspect_tells_how_the_tokenizer_cuts_the_texts(tuneoff, toy_csv, encoder):
    assert " pieces a word (" in tuneoff("inspect", toy_csv, "--model", encoder)[1]
    assert "encoder_fit" in json.loads(tuneoff("inspect", toy_csv, "--model", encoder, "--json")[1])


def test_labels_cannot_control_the_terminal(tuneoff, tmp_path, encoder):
    labels = ["two\nlines", "title\x1b]0;taken\x07"] * 20
    pd.DataFrame({"text": [f"good film {i}" for i in range(40)], "label": labels}).to_csv(
        tmp_path / "x.csv", index=False
    )
    code, printed, _ = tuneoff("inspect", "x.csv", "--model", encoder)
    assert code == 0
    assert not set(printed) & {"\x1b", "\x07"}
    assert "two␊lines " in printed
    assert "title␛]0;taken␇" in printed
    assert "\x1b" not in tuneoff("compare", "x.csv", "--labels", "a,title\x1b")[2]


def test_the_report_of_few_classes_is_confirmed_too(tuneoff, toy_csv, encoder):
    assert "Report: data.html" in tuneoff("inspect", toy_csv, "--model", encoder, "--report", "data.html")[1]


def test_fixed_choices_of_options_are_shown(tuneoff):
    lines = {line.split()[0]: line for line in tuneoff("strategies")[1].splitlines() if line.startswith("    ")}
    assert "choices: svm, logistic" in lines["classifier=logistic"]
    assert "choices: linear, cosine, constant" in lines["schedule=linear"]
    assert "choices: query, key, value" in lines["targets=query+value"]
    assert not [line for line in lines if "None" in line or "False" in line]
    options = json.loads(tuneoff("strategies", "--json")[1])["strategies"]
    assert options["adapter"]["options"]["placement"]["choices"] == ["pfeiffer", "houlsby", "parallel"]


def test_lists_name_everything(tuneoff):
    from tuneoff.strategies import STRATEGIES

    assert all(name in tuneoff("strategies")[1] for name in STRATEGIES)
    assert "studies:quickstart" in tuneoff("studies")[1]
    assert "packaged model minilm: ready" in tuneoff("doctor")[1]


def test_the_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "tuneoff", "--help"], capture_output=True, text=True, check=True)
    assert "compare" in done.stdout
