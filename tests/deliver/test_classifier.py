"""A loaded classifier gives the probabilities that its run stored, for every kind of model and of data."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import tuneoff
from tests.studies import STRATEGIES, toy_spec
from tests.tiny import toy_texts
from tuneoff.data.load import open_dataset
from tuneoff.deliver.classifier import load_classifier, read_skops
from tuneoff.deliver.find import find, load
from tuneoff.deliver.saved import SavedModel
from tuneoff.errors import ConfigError, DataError, ModelError, StoreError
from tuneoff.spec.strategy import parse_strategy
from tuneoff.study import Study

LABELS = [parse_strategy(name).label for name in STRATEGIES]


def stored_probabilities(found, split="test"):
    """The probabilities of the first run, and the examples that they are of."""
    record = found.runs[0]
    table = found.store.runs.predictions(record.run_id, split)
    columns = [name for name in table.columns if name[0] == "p" and name[1:].isdecimal()]
    examples = open_dataset(record.spec["data_fingerprint"]).splits[split]
    return table[columns].to_numpy(), examples


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
def test_a_classifier_gives_the_stored_probabilities(finished, label):
    study, _, _ = finished
    found = find(study.folder, strategy=label)
    stored, examples = stored_probabilities(found)
    classifier = load_classifier(found.folders)
    given = classifier.predict_proba(examples["text"].to_pylist())
    np.testing.assert_allclose(given, stored, atol=1e-6)
    assert classifier.classes_.tolist() == ["negative", "positive"]
    predicted = classifier.predict(pd.Series(examples["text"].to_pylist()))
    assert predicted.tolist() == classifier.classes_[stored.argmax(1)].tolist()
    assert "classes: negative, positive" in repr(classifier)


@pytest.mark.slow
def test_a_study_means_its_recommended_strategy_and_the_best_seed_on_validation(finished):
    study, comparison, _ = finished
    found = find(study.folder)
    assert comparison.verdict is not None
    assert found.runs[0].group == comparison.verdict.recommended
    assert str(found.folders[0]) == comparison.model_folder
    assert comparison.recommended.folder == found.folders[0]
    texts = ["good fine", "a bad one"]
    np.testing.assert_array_equal(
        comparison.recommended.load().predict(texts), tuneoff.load(study.folder).predict(texts)
    )
    run = find(study.folder, strategy="lora").runs[0]
    assert find(study.folder, run=run.run_id).folders == find(study.store.runs.path(run.run_id)).folders
    assert find(study.store.runs.path(run.run_id) / "model").runs[0].run_id == run.run_id


@pytest.mark.slow
def test_an_ensemble_has_the_mean_probabilities_of_all_seeds(finished):
    study, _, _ = finished
    found = find(study.folder, strategy="lora", ensemble=True)
    assert [record.seed for record in found.runs] == [0, 1]
    texts = ["good fine", "a bad one"]
    each = [load_classifier([folder]).predict_proba(texts) for folder in found.folders]
    np.testing.assert_allclose(load_classifier(found.folders).predict_proba(texts), np.mean(each, axis=0))


@pytest.mark.slow
def test_a_moved_model_needs_nothing_but_its_encoder(finished, encoder, tmp_path):
    study, _, _ = finished
    moved = shutil.copytree(find(study.folder, strategy="lora").folders[0], tmp_path / "model")
    moved_encoder = shutil.copytree(encoder, tmp_path / "encoder")
    texts = ["good fine", "a bad one"]
    expected = load(study.folder, strategy="lora").predict_proba(texts)
    np.testing.assert_array_equal(load(moved, encoder=str(moved_encoder)).predict_proba(texts), expected)
    (moved_encoder / "config.json").write_text((moved_encoder / "config.json").read_text() + "\n")
    with pytest.raises(ModelError, match=r"has other weights than the one that lora-.* was trained on"):
        load(moved, encoder=str(moved_encoder))


@pytest.mark.slow
def test_a_model_of_an_earlier_version_is_described_by_its_run(finished, tmp_path):
    study, _, _ = finished
    copied = shutil.copytree(study.folder, tmp_path / "study")
    folder = find(copied, strategy="head").folders[0]
    described = SavedModel.read(folder)
    (folder / "tuneoff.json").unlink()
    assert SavedModel.read(folder) == described


def test_every_kind_of_data_is_classified_as_in_training(encoder, tmp_path):
    rng = np.random.default_rng(0)
    words = np.array(["good", "bad", "fine", "poor", "great", "awful"])
    rows = [" ".join(rng.choice(words, 12)) for _ in range(60)]
    pairs = pd.DataFrame({"premise": rows, "hypothesis": rows[::-1], "label": [i % 2 for i in range(60)]})
    both = pd.DataFrame({"text": rows, "label": [["a"], ["b"], ["a", "b"], []] * 15})
    single = pd.DataFrame({"text": rows, "label": [i % 2 for i in range(60)]})
    pairs.to_parquet(tmp_path / "pairs.parquet")
    both.to_parquet(tmp_path / "both.parquet")
    single.to_parquet(tmp_path / "single.parquet")
    recipe = {"epochs": 1, "batch_size": 8, "max_length": 8, "precision": "fp32"}
    windows = {**recipe, "long_texts": "windows", "max_windows": 3}
    strategies = ["tfidf:min_count=1", "probe:classifier=svm", "head"]
    for name, options in (("pairs", recipe), ("both", recipe), ("single", windows)):
        data = {"source": str(tmp_path / f"{name}.parquet"), "validation_fraction": 0.2, "test_fraction": 0.2}
        spec = toy_spec(encoder, "", data=data, name=name, strategies=strategies, recipe=options, seeds=1)
        study = Study(spec, tmp_path / name)
        study.run()
        for label in [row.label for row in study.comparison().rows]:
            found = find(study.folder, strategy=label)
            stored, examples = stored_probabilities(found)
            classifier = load_classifier(found.folders)
            np.testing.assert_allclose(classifier.predict_proba(examples), stored, atol=1e-6, err_msg=f"{name} {label}")
            if name == "both":
                predicted = study.store.runs.predictions(found.runs[0].run_id, "test")["predicted"]
                assert classifier.predict(examples).tolist() == np.stack(list(predicted)).tolist()
            if name == "pairs":
                texts = list(zip(examples["text"].to_pylist(), examples["text_pair"].to_pylist(), strict=True))
                np.testing.assert_allclose(classifier.predict_proba(texts), stored, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"strategy": "lroa"}, ConfigError, "strategy 'lroa' is unknown; choose from .*, lora learning_rate=0.05"),
        ({"run": "lora-123-s0"}, StoreError, "run 'lora-123-s0' is unknown"),
        ({"run": "x", "strategy": "lora"}, ConfigError, "a run is one model of one strategy"),
        ({"name": "nowhere"}, StoreError, "folder 'nowhere' does not exist; give a study's folder"),
    ],
)
def test_what_is_not_there_is_one_line(finished, changes, error, message):
    study, _, _ = finished
    with pytest.raises(error, match=message) as caught:
        load(**{"name": study.folder, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_wrong_texts_are_one_line(finished):
    study, _, _ = finished
    classifier = load(study.folder, strategy="tfidf")
    with pytest.raises(ConfigError, match=r"texts is a str; give a list: \[text, \.\.\.\]"):
        classifier.predict("one text")
    with pytest.raises(DataError, match=r"texts\[1\] is not a text, but nan"):
        classifier.predict(["good", float("nan")])
    assert classifier.predict([]).shape == (0,)
    assert classifier.predict_proba([]).shape == (0, 2)


@pytest.mark.slow
def test_a_damaged_model_is_one_line(finished, tmp_path):
    study, _, _ = finished
    folder = shutil.copytree(find(study.folder, strategy="head").folders[0], tmp_path / "model")
    path = folder / "tuneoff.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "format": 99, "version": "9.0"}))
    with pytest.raises(StoreError, match=r"was written by Tuneoff 9.0 in format 99.*update tuneoff"):
        load(folder)
    path.write_text(json.dumps({**stored, "label_names": 3}))
    with pytest.raises(StoreError, match="was altered and cannot be read"):
        load(folder)
    path.write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        load(folder)
    path.unlink()
    with pytest.raises(StoreError, match=r"holds no tuneoff\.json; give a study"):
        load(folder)
    path.write_text(json.dumps(stored))
    (folder / "model.safetensors").unlink()
    with pytest.raises(StoreError, match=r"holds no model\.safetensors; restore it"):
        load(folder)


@pytest.mark.slow
def test_embed_gives_the_vectors_that_probes_are_trained_on(finished, encoder):
    study, _, _ = finished
    found = find(study.folder, strategy="probe")
    stored, examples = stored_probabilities(found)
    vectors = tuneoff.embed(examples["text"].to_pylist(), model=encoder, pooling="mean", max_length=16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(read_skops(found.folders[0]).predict_proba(vectors), stored, atol=1e-6)
    assert tuneoff.embed([("a", "b")], model=encoder).shape == tuneoff.embed(["a"], model=encoder, pooling="cls").shape
    with pytest.raises(ConfigError, match="pooling 'max' is unknown; choose from cls, mean"):
        tuneoff.embed(["a"], model=encoder, pooling="max")


def test_a_notebook_shows_a_classifier_with_its_names_escaped(encoder, tmp_path):
    texts, labels = toy_texts(60, np.random.default_rng(0))
    names = np.where(labels == 1, "<script>x</script>", "bad\x1b[31m")
    tuneoff.TextClassifier("head", encoder, epochs=1, max_length=16).fit(texts, names).save(tmp_path / "model")
    shown = load(tmp_path / "model")._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;x&lt;/script&gt;" in shown
    assert "\x1b" not in shown
    for part in ("head", encoder, "seed 0", "classes", "the first 16 tokens"):
        assert part in shown
