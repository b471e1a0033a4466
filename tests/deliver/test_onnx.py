"""ONNX exports of every strategy give the probabilities of the model, for any batch and length."""

import json

import numpy as np
import pandas as pd
import pytest

import tuneoff
from tests.deliver.test_export import reload_without
from tests.saved import saved_model
from tests.strategies.rows import STRATEGY_NAMES
from tests.studies import toy_spec
from tests.tiny import toy_texts
from tuneoff.deliver.check import reloaded
from tuneoff.deliver.classifier import as_texts, load_classifier
from tuneoff.deliver.export import export
from tuneoff.errors import StoreError
from tuneoff.study import Study

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow

TEXTS = [*toy_texts(20, np.random.default_rng(0))[0], "good", "bad film " * 40]
FORBIDDEN = {"torch", "transformers", "peft", "sklearn"}


@pytest.mark.parametrize("strategy", ["full", "lora", *[name for name in STRATEGY_NAMES if name.startswith("adapter")]])
def test_a_graph_gives_the_probabilities_of_the_model(strategy, tmp_path):
    saved_model(strategy, "bert", tmp_path)
    exported = export(tmp_path / "model", "onnx", out=tmp_path / "out", is_checked=False)
    given = reload_without(FORBIDDEN, "reload_onnx.py", exported.folder, TEXTS, tmp_path)
    np.testing.assert_allclose(given, load_classifier([tmp_path / "model"]).predict_proba(TEXTS), atol=1e-5)
    config = json.loads((exported.folder / "config.json").read_text())
    assert list(config["id2label"].values()) == ["a", "b", "c"]
    with pytest.raises(StoreError, match="is an ONNX export, which onnxruntime reads"):
        tuneoff.load(exported.folder)


@pytest.mark.parametrize("model_type", ["distilbert", "roberta", "albert", "modernbert", "mpnet", "deberta-v2"])
def test_other_architectures_are_traced(model_type, tmp_path):
    saved_model("lora", model_type, tmp_path)
    exported = export(tmp_path / "model", "onnx", out=tmp_path / "out", is_checked=False)
    given = reloaded("reload_onnx.py", exported.folder, as_texts(TEXTS, False))
    np.testing.assert_allclose(given, load_classifier([tmp_path / "model"]).predict_proba(TEXTS), atol=1e-5)


def test_probes_pairs_and_multi_label_data_are_one_graph(encoder, tmp_path):
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(["good", "bad", "fine", "poor", "great", "awful"], 12)) for _ in range(90)]
    frames = {
        "pairs": pd.DataFrame({"premise": rows, "hypothesis": rows[::-1], "label": [i % 2 for i in range(90)]}),
        "both": pd.DataFrame({"text": rows, "label": [["a"], ["b"], ["a", "b"]] * 30}),
        "three": pd.DataFrame({"text": rows, "label": [i % 3 for i in range(90)]}),
    }
    recipe = {"epochs": 1, "batch_size": 8, "max_length": 12, "long_texts": "tail", "precision": "fp32"}
    strategies = ["probe", "probe:classifier=svm:pooling=cls", "head"]
    for name, frame in frames.items():
        frame.to_parquet(tmp_path / f"{name}.parquet")
        data = {"source": str(tmp_path / f"{name}.parquet"), "validation_fraction": 0.2, "test_fraction": 0.2}
        spec = toy_spec(encoder, "", data=data, name=name, strategies=strategies, recipe=recipe, seeds=1)
        study = Study(spec, tmp_path / name)
        for row in study.run().rows:
            exported = export(study.folder, "onnx", strategy=row.label)
            assert "the probabilities that the run stored for 18 test examples" in exported.notes[0]
        with pytest.raises(StoreError, match="exists already"):
            export(study.folder, "onnx", strategy=row.label)


def test_8_bit_weights_are_measured(finished, tmp_path):
    study, _, _ = finished
    exported = export(study.folder, "onnx-int8", strategy="full", out=tmp_path / "out")
    checked, accuracy, size = exported.notes
    assert "the largest difference is" in checked
    assert "points (95 % interval" in accuracy
    assert "on 20 test examples" in accuracy
    assert "one thread, median of 20 texts" in size
    assert sorted(path.name for path in exported.folder.iterdir()) == [
        "README.md", "config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json", "tuneoff.json",
    ]  # fmt: skip
