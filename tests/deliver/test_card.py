"""Cards: metadata that the hub's library reads, code that runs, and nothing from the data as markup."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from packaging.version import Version
from peft import AutoPeftModelForSequenceClassification, PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from tests.saved import saved_model
from tests.studies import toy_spec
from tests.tiny import toy_texts
from tuneoff.deliver.card import DataFacts, ModelFacts, card, write_card
from tuneoff.deliver.classifier import load_classifier
from tuneoff.deliver.export import FORMATS, export
from tuneoff.deliver.find import find
from tuneoff.deliver.snippets import snippet
from tuneoff.runs import RunRecord
from tuneoff.study import Study

# of transformers, in peft's call
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

EXAMPLES = ["a first text", "another one, which is longer"]  # of every snippet
PAIRS = ["its pair", "and the pair of the other"]
TEXTS = toy_texts(4, np.random.default_rng(0))[0]


def code_of(folder):
    """The code in the card of a folder."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return code


def run_code(folder, monkeypatch):
    """Run the code in the card of a folder, there. Returns its variables."""
    monkeypatch.chdir(folder)
    variables: dict[str, Any] = {}
    exec(compile(code_of(folder), "README.md", "exec"), variables)
    return variables


def check_code(folder, expected, monkeypatch, is_pair=False):
    """Compare the probabilities of a card's code with those of a classifier."""
    texts = list(zip(EXAMPLES, PAIRS, strict=True)) if is_pair else EXAMPLES
    variables = run_code(folder, monkeypatch)
    np.testing.assert_allclose(variables["probabilities"], expected.predict_proba(texts), atol=1e-5)
    predicted = expected.predict(texts)
    if expected.saved.is_multilabel:
        predicted = [[name for name, is_on in zip(expected.classes_, row, strict=True) if is_on] for row in predicted]
    assert list(variables["labels"]) == list(predicted)


@pytest.mark.parametrize("strategy", ["full", "lora", "peft:type=ia3", "adapter:reduction=2"])
def test_the_code_of_a_gradient_strategys_card_runs(strategy, tmp_path, monkeypatch, capsys):
    _, saved = saved_model(strategy, "bert", tmp_path)
    write_card(tmp_path / "model", ModelFacts(saved))
    check_code(tmp_path / "model", load_classifier([tmp_path / "model"]), monkeypatch)


@pytest.mark.slow
def test_the_code_of_every_runs_card_runs(finished, monkeypatch, capsys):
    study, comparison, _ = finished
    for record in comparison.records:
        folder = study.store.runs.path(record.run_id) / "model"
        check_code(folder, load_classifier([folder]), monkeypatch)


@pytest.mark.slow
def test_the_code_of_every_exports_card_runs(finished, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxscript")
    study, _, _ = finished
    for strategy in ("tfidf", "probe", "full", "lora", "adapter"):
        run = find(study.folder, strategy=strategy)
        for to, row in FORMATS.items():
            layouts = {"tfidf": "texts", "probe": "probe", "full": "whole", "lora": "peft", "adapter": "bottleneck"}
            if layouts[strategy] not in row.readers or to == "onnx-int8":
                continue
            exported = export(study.folder, to, strategy=strategy, out=tmp_path / f"{strategy}-{to}", is_checked=False)
            check_code(exported.folder, load_classifier(run.folders), monkeypatch)
            text = (exported.folder / "README.md").read_text()
            assert "- Nothing was checked (--no-check)." in text
            assert "Lowest F1 of a label: " in text
            assert "95 % confidence interval" in text


@pytest.mark.slow
def test_the_code_fits_pairs_multi_label_data_and_tails(encoder, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(["good", "bad", "fine", "poor", "great", "awful"], 12)) for _ in range(60)]
    frames = {
        "pairs": pd.DataFrame({"premise": rows, "hypothesis": rows[::-1], "label": [i % 2 for i in range(60)]}),
        "both": pd.DataFrame({"text": rows, "label": [["a"], ["b"], ["a", "b"]] * 20}),
    }
    recipe = {"epochs": 1, "batch_size": 8, "max_length": 6, "long_texts": "tail", "precision": "fp32"}
    strategies = ["tfidf", "probe", "probe:classifier=svm:pooling=cls", "head", "lora"]
    for name, frame in frames.items():
        frame.to_parquet(tmp_path / f"{name}.parquet")
        data = {"source": str(tmp_path / f"{name}.parquet"), "validation_fraction": 0.2, "test_fraction": 0.2}
        study = Study(toy_spec(encoder, "", data=data, strategies=strategies, recipe=recipe, seeds=1), tmp_path / name)
        for record in study.run().records:
            folder = study.store.runs.path(record.run_id) / "model"
            check_code(folder, load_classifier([folder]), monkeypatch, is_pair=name == "pairs")


def test_an_adapter_of_four_classes_loads_in_three_ways(tmp_path):
    _, saved = saved_model("lora", "bert", tmp_path, names=("a", "b", "c", "d"))
    folder, expected = tmp_path / "model", load_classifier([tmp_path / "model"]).predict_proba(TEXTS)
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    models = [
        PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(saved.model, num_labels=4), folder
        ),
        AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=4),
    ]
    if Version(transformers.__version__) >= Version("5.23"):  # 5.7 leaves the head untrained, without a word
        models.append(pipeline("text-classification", str(folder), model_kwargs={"num_labels": 4}).model)
    for model in models:
        with torch.no_grad():
            np.testing.assert_allclose(model.eval()(**batch).logits.softmax(-1).numpy(), expected, atol=1e-5)


@pytest.mark.slow
def test_metadata_is_read_by_the_hubs_library(finished):
    study, comparison, _ = finished
    libraries = {"tfidf": "sklearn", "probe": "sklearn", "lora": "peft", "full": "transformers"}
    for strategy, library in libraries.items():
        record = next(record for record in comparison.records if record.strategy == strategy)
        read = ModelCard.load(study.store.runs.path(record.run_id) / "model" / "README.md").data
        assert (read.library_name, read.pipeline_tag, read.base_model) == (library, "text-classification", None)
        assert read.model_name == record.run_id
        scores = {(result.metric_type, result.metric_name): result.metric_value for result in read.eval_results}
        assert scores["accuracy", "accuracy"] == record.metrics["test"]["accuracy"]
        assert scores["f1", "macro f1"] == record.metrics["test"]["macro_f1"]


HOSTILE = (
    "</code><script>alert(1)</script>",
    "---\nlicense: mit",
    "[x](javascript:y) | `z`",
    "```\n# heading",
    "*b* _c_ &amp;",
)


def test_nothing_from_the_data_is_markup(tmp_path):
    _, saved = saved_model("lora", "bert", tmp_path, names=HOSTILE)
    saved = saved.model_copy(update={"model": "packaged:minilm"})
    record = RunRecord(
        "lora-1-s0", "lora-1", "lora", "lora", "m", 0, "ok", metrics={"test": {"accuracy": 0.5, "macro_f1": 0.4}}
    )
    data = DataFacts(f"hf:x/y\n{HOSTILE[1]}{HOSTILE[0]}", {"train": 3})
    text = card(tmp_path / "model", ModelFacts(saved, record, data))
    read: Any = ModelCard(text).data
    assert read.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert read.datasets == ["x/y"]
    assert read.eval_results[0].dataset_name == data.name
    assert read.get("license") is None
    assert text.count("\n---\n") == 1  # the end of the metadata
    body = text.partition("\n---\n")[2]
    assert "<script" not in body
    assert "\n# heading" not in body
    assert "[x](" not in body
    assert body.count("```") == 2  # around the code
    assert all(name not in snippet(tmp_path / "model", saved) for name in HOSTILE)
    assert "sentence-transformers/all-MiniLM-L6-v2" in snippet(tmp_path / "model", saved)
