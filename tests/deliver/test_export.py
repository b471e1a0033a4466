"""Exports reload in a new process without Tuneoff, and give the probabilities of the model."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io
import torch
from transformers import AutoModelForSequenceClassification, pipeline

import tuneoff
from tests.saved import saved_model
from tests.strategies.rows import STRATEGY_NAMES
from tests.studies import toy_spec
from tests.tiny import toy_texts, word_tokenizer
from tuneoff.deliver import check
from tuneoff.deliver.classifier import load_classifier
from tuneoff.deliver.export import FORMATS, export
from tuneoff.deliver.find import find
from tuneoff.errors import ConfigError, ExportError, StoreError
from tuneoff.study import Study

TEXTS = toy_texts(6, np.random.default_rng(0))[0]
EXPORTS = [
    ("majority", "skops", {"transformers"}),
    ("tfidf", "skops", {"transformers"}),
    ("probe", "skops", {"onnxruntime"}),
    ("full", "merged", {"peft"}),
    ("head", "safetensors", {"peft"}),
    ("lora", "merged", {"onnxruntime"}),
    ("lora", "safetensors", {"onnxruntime"}),
]


def reload_without(modules, script, folder, texts, tmp_path, *base):
    """The probabilities that a script of checks/ gives in a process that must not import some modules, nor Tuneoff."""
    inputs, output = tmp_path / "examples.json", tmp_path / "probabilities.json"
    inputs.write_text(json.dumps([[text] for text in texts]))
    code = (
        "import json, runpy, sys; forbidden = json.loads(sys.argv[1]); sys.argv = sys.argv[2:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__'); "
        "sys.exit(', '.join(name for name in forbidden if name in sys.modules) or 0)"
    )
    forbidden, paths = json.dumps(["tuneoff", *modules]), [check.SCRIPTS / script, folder, inputs, output, *base]
    command = [sys.executable, "-c", code, forbidden, *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert output.is_file(), ended.stderr
    assert ended.returncode == 0, f"imported {ended.stderr}"
    return np.array(json.loads(output.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "to", "without"), EXPORTS)
def test_an_export_reloads_with_its_library_alone(finished, encoder, strategy, to, without, tmp_path):
    study, _, _ = finished
    exported = export(study.folder, to, strategy=strategy, out=tmp_path / "out")
    assert "the probabilities that the run stored for 20 test examples" in exported.notes[0]
    source = find(study.folder, strategy=strategy)
    reader = FORMATS[to].readers
    scripts = {"majority": "texts", "tfidf": "texts", "probe": "probe", "lora": "peft"}
    base = [encoder] if (strategy, to) == ("lora", "safetensors") else []
    given = reload_without(
        without, reader[scripts.get(strategy, "whole")].script, exported.folder, TEXTS, tmp_path, *base
    )
    np.testing.assert_allclose(given, load_classifier(source.folders).predict_proba(TEXTS), atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir() if "unfinished" in path.name) == []
    again = tuneoff.load(exported.folder).predict_proba(TEXTS)
    np.testing.assert_allclose(again, given, atol=1e-5)


@pytest.mark.parametrize("strategy", [name for name in STRATEGY_NAMES if name.startswith(("lora", "peft"))])
def test_every_method_of_peft_is_merged(strategy, tmp_path):
    saved_model(strategy, "bert", tmp_path)
    exported = export(tmp_path / "model", "merged", out=tmp_path / "out", is_checked=False)
    assert exported.notes == ("Nothing was checked (--no-check).",)
    model = AutoModelForSequenceClassification.from_pretrained(exported.folder).eval()
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    batch = word_tokenizer()(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        given = model(**batch).logits.softmax(-1).numpy()
    np.testing.assert_allclose(given, load_classifier([tmp_path / "model"]).predict_proba(TEXTS), atol=1e-5)
    (best,) = pipeline("text-classification", str(exported.folder))(TEXTS[0])
    assert best["label"] == "abc"[given[0].argmax()]


@pytest.mark.parametrize("model_type", ["distilbert", "roberta", "albert", "modernbert", "mpnet", "deberta-v2"])
def test_other_architectures_are_merged(model_type, tmp_path):
    saved_model("lora", model_type, tmp_path)
    exported = export(tmp_path / "model", "merged", out=tmp_path / "out", is_checked=False)
    merged = tuneoff.load(exported.folder).predict_proba(TEXTS)
    np.testing.assert_allclose(merged, tuneoff.load(tmp_path / "model").predict_proba(TEXTS), atol=1e-5)


@pytest.mark.slow
def test_skops_exports_predict_names(finished, tmp_path):
    study, _, _ = finished
    exported = export(study.folder, "skops", strategy="tfidf", out=tmp_path / "out")
    classifier = skops.io.load(exported.folder / "classifier.skops")
    assert classifier.predict(["good great fine", "bad awful poor"]).tolist() == ["positive", "negative"]


def test_an_adapter_names_no_path_into_the_packages_of_one_environment(tmp_path):
    _, saved = saved_model("lora", "bert", tmp_path)
    packaged = saved.model_copy(update={"model": "packaged:minilm"})
    packaged.write(tmp_path / "model")
    exported = export(
        tmp_path / "model", "safetensors", encoder=str(tmp_path / "encoder"), out=tmp_path / "a", is_checked=False
    )
    stored = json.loads((exported.folder / "adapter_config.json").read_text())
    assert stored["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
    saved.write(tmp_path / "model")
    exported = export(tmp_path / "model", "safetensors", out=tmp_path / "b", is_checked=False)
    stored = json.loads((exported.folder / "adapter_config.json").read_text())
    assert stored["base_model_name_or_path"] == saved.model  # a local folder has no other name


@pytest.mark.parametrize(
    ("strategy", "to", "message"),
    [
        ("adapter", "merged", r"adapter cannot be exported to merged \(bottleneck adapters compute between layers.*; choose from .*adapterhub"),
        ("lora", "skops", "lora cannot be exported to skops; choose from merged, safetensors"),
        ("full", "onx", "format 'onx' is unknown"),
    ],
)  # fmt: skip
def test_a_format_that_does_not_fit_is_one_line(strategy, to, message, tmp_path):
    saved_model({"adapter": "adapter:reduction=2"}.get(strategy, strategy), "bert", tmp_path)
    message = message.replace("adapter cannot", "adapter reduction=2 cannot")
    with pytest.raises(ConfigError, match=message) as caught:
        export(tmp_path / "model", to)
    assert "\n" not in str(caught.value)


def test_a_folder_that_exists_is_kept(tmp_path):
    saved_model("full", "bert", tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match=r"out exists already; give --overwrite, or another folder with --out"):
        export(tmp_path / "model", "merged", out=tmp_path / "out")
    export(tmp_path / "model", "merged", out=tmp_path / "out", overwrite=True, is_checked=False)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_what_is_no_export_is_never_replaced(tmp_path):
    saved_model("full", "bert", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    (tmp_path / "run.json").write_text("{}")  # the model's folder is one of a run
    for folder in ("mine", "model", "run.json"):
        with pytest.raises(StoreError, match=f"{folder} is not an export, so that --overwrite does not replace it"):
            export(tmp_path / "model", "merged", out=tmp_path / folder, overwrite=True, is_checked=False)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_an_export_that_gives_other_probabilities_is_not_kept(finished, tmp_path):
    study = shutil.copytree(finished[0].folder, tmp_path / "study")
    run = find(study, strategy="head").runs[0]
    path = study / "runs" / run.run_id / "predictions.parquet"
    stored = pd.read_parquet(path)
    stored.loc[(stored["split"] == "test") & (stored["example"] == 3), ["p0", "p1"]] = [0.25, 0.75]
    stored.to_parquet(path)
    with pytest.raises(
        ExportError, match=r"for 1 of 20 examples; first for example 3, '.*': .* instead of 0\.[27]5000"
    ):
        export(study, "merged", strategy="head")
    assert not list((study / "exports").iterdir())
    notes = export(study, "merged", strategy="head", is_checked=False).notes
    assert notes == ("Nothing was checked (--no-check).",)


def test_the_first_difference_is_named():
    texts = pa.table({"text": ["fine", "a\nlong " * 30, "poor"]})
    expected = check.Reference(texts, np.array([[0.5, 0.5], [0.2, 0.8], [0.1, 0.9]]), None, np.array([3, 5, 8]), "")
    assert check.compare(expected.probabilities + 9e-5, expected, "peft") == pytest.approx(9e-5)
    given = expected.probabilities + np.array([[0, 0], [0.3, -0.2], [np.nan, 0]])
    with pytest.raises(ExportError) as caught:
        check.compare(given, expected, "peft")
    assert str(caught.value) == (
        "peft gives other probabilities than the model for 2 of 3 examples; first for example 5, "
        "'a long a long a long a long a long a long a long a long a l…': 0.50000 instead of 0.20000 for label 0; "
        "nothing was exported"
    )


@pytest.mark.slow
def test_long_texts_and_final_models_are_checked_as_far_as_other_libraries_read_them(encoder, toy_csv, tmp_path):
    recipe = {"epochs": 1, "batch_size": 8, "max_length": 7, "long_texts": "windows", "precision": "fp32"}
    spec = toy_spec(encoder, toy_csv, strategies=["head"], recipe=recipe, seeds=None, evaluate={"folds": 2})
    study = Study(spec, tmp_path / "folds")
    study.run()
    notes = export(study.folder, "merged", strategy="head").notes
    assert "that Tuneoff computes for 60 labelled examples, its training examples, the first " in notes[0]
    assert "of at most 7 tokens" in notes[0]
    assert notes[1].startswith("Of longer texts this format reads the first 7 tokens; Tuneoff reads up to 8 windows")
    assert (study.folder / "exports" / "head-merged" / "config.json").is_file()
