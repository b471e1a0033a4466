"""Files of texts are predicted row by row as the classifier predicts them, and no row is lost."""

import json
import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tuneoff.cli.app import app
from tuneoff.deliver.confidence import Evidence, evidence
from tuneoff.deliver.find import find, load
from tuneoff.deliver.predict import Output, _as_glue, _Predictions, predict_file
from tuneoff.deliver.texts import TextBatch, TextColumns
from tuneoff.errors import ConfigError, DataError

pytestmark = pytest.mark.slow

TEXTS = ["good great fine", "bad awful poor", "good fine good", "poor bad"]


@pytest.fixture(scope="module")
def classifier(finished):
    return load(finished[0].folder, strategy="lora")


def predicted(classifier, path, target="out.csv", **options):
    done = predict_file(classifier, str(path), str(path.with_name(target)), **options)
    out = path.with_name(target)
    frame = pd.read_parquet(out) if out.suffix == ".parquet" else None
    if frame is None:
        frame = (
            pd.read_json(out, lines=True)
            if out.suffix == ".jsonl"
            else pd.read_csv(out, sep="\t" if out.suffix == ".tsv" else ",")
        )
    return done, frame


@pytest.mark.parametrize("source", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("target", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_is_predicted_into_every_other(classifier, source, target, tmp_path):
    frame, path = pd.DataFrame({"id": range(4), "text": TEXTS}), tmp_path / f"in.{source}"
    if source in ("csv", "tsv"):
        frame.to_csv(path, index=False, sep="," if source == "csv" else "\t")
    elif source == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    done, given = predicted(classifier, path, f"out.{target}")
    assert list(given.columns) == ["id", "text", "predicted", "confidence", "p_negative", "p_positive"]
    assert given["text"].tolist() == TEXTS
    assert given["predicted"].tolist() == classifier.predict(TEXTS).tolist()
    expected = classifier.predict_proba(TEXTS)
    np.testing.assert_allclose(given[["p_negative", "p_positive"]].to_numpy(float), expected, atol=1e-6)
    np.testing.assert_allclose(given["confidence"].to_numpy(float), expected.max(1), atol=1e-6)
    assert (done.rows, done.answered, sum(done.counts.values())) == (4, 4, 4)


def test_many_batches_are_those_of_one(classifier, tmp_path, monkeypatch):
    path = tmp_path / "in.csv"
    pd.DataFrame({"text": [f"{text} {i}" for i in range(50) for text in TEXTS]}).to_csv(path, index=False)
    _, whole = predicted(classifier, path)
    monkeypatch.setattr("tuneoff.data.stream._BLOCK_BYTES", 300)
    progress: list[int] = []
    _, parts = predicted(classifier, path, on_progress=progress.append)
    assert len(progress) > 5
    assert progress[-1] == 200
    assert parts["predicted"].equals(whole["predicted"])
    np.testing.assert_allclose(parts["p_positive"], whole["p_positive"], atol=1e-6)


def test_rows_without_a_text_keep_their_place(classifier, tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes("id,text\n1,good fine\n2,  \n3,caf\xe9\n4,bad\n".encode("latin-1"))
    done, given = predicted(classifier, path)
    assert given["id"].tolist() == [1, 2, 3, 4]
    assert given["predicted"].isna().tolist() == [False, True, True, False]
    assert given["p_positive"].isna().tolist() == [False, True, True, False]
    assert done.bad.by_reason == {"a text that is not UTF-8": [3], "an empty text": [2]}
    assert (done.rows, done.answered) == (4, 2)


def test_below_the_confidence_there_is_no_label(classifier, finished, tmp_path):
    path = tmp_path / "in.csv"
    pd.DataFrame({"text": [*TEXTS, "a"]}).to_csv(path, index=False)
    confidence = np.sort(classifier.predict_proba([*TEXTS, "a"]).max(1))
    done, given = predicted(classifier, path, output=Output(min_confidence=float(confidence[2:4].mean())))
    assert (done.answered, done.unsure) == (2, 3)
    assert given["predicted"].isna().sum() == 3
    assert given["confidence"].notna().all()
    measured = evidence(find(finished[0].folder, strategy="lora", ensemble=True))
    assert measured is not None
    assert measured.source == "validation"
    assert measured.at(0.0).accuracy == pytest.approx(measured.is_right.mean())
    with pytest.raises(ConfigError, match=r"min_confidence 90 is not from 0 to 1; write 0.9 for 90 %"):
        Output(min_confidence=90)


def test_what_to_expect_above_a_confidence():
    measured = Evidence(np.array([0.5, 0.6, 0.8, 0.9]), np.array([False, True, True, True]), "validation")
    answered = measured.at(0.8)
    assert (answered.share, answered.accuracy, answered.examples) == (0.5, 1.0, 4)
    assert answered.interval[0] == pytest.approx(0.025**0.5)  # Clopper & Pearson: 2 of 2
    assert measured.at(0.95).share == 0


def test_columns_are_as_asked_as_in_training_or_by_common_names(classifier, tmp_path):
    path = tmp_path / "in.csv"
    pd.DataFrame({"body": TEXTS, "note": ["x"] * 4, "headline": TEXTS[::-1]}).to_csv(path, index=False)
    expected = classifier.predict(TEXTS).tolist()
    for columns, texts in (
        (TextColumns(), expected),
        (TextColumns(text="headline"), expected[::-1]),
        (TextColumns(in_training=("headline",)), expected[::-1]),
    ):
        assert predicted(classifier, path, columns=columns)[1]["predicted"].tolist() == texts
    _, given = predicted(classifier, path, output=Output(has_texts=False, prefix="new_"))
    assert list(given.columns) == [
        "note",
        "headline",
        "new_predicted",
        "new_confidence",
        "new_p_negative",
        "new_p_positive",
    ]
    with pytest.raises(DataError, match="column 'titel' is unknown"):
        predicted(classifier, path, columns=TextColumns(text="titel"))
    with pytest.raises(ConfigError, match="the model classifies single texts; name --text alone"):
        predicted(classifier, path, columns=TextColumns(text="body", text_pair="note"))
    pd.DataFrame({"a": TEXTS, "b": TEXTS}).to_csv(path, index=False)
    with pytest.raises(DataError, match="no text column among a, b; name it with --text"):
        predicted(classifier, path)
    pd.DataFrame({"text": TEXTS, "predicted": TEXTS}).to_csv(path, index=False)
    with pytest.raises(
        DataError, match="has a column 'predicted' already; name the new ones differently with --prefix"
    ):
        predicted(classifier, path)


def test_a_test_split_of_glue_is_predicted_in_its_own_format(classifier, tmp_path):
    path = tmp_path / "test.tsv"
    path.write_text('index\tsentence\n7\t"good fine\n8\tbad " poor\n')
    done = predict_file(classifier, str(path), str(tmp_path / "SST-2.tsv"), output=Output(format="glue"))
    assert done.rows == 2
    assert '"' not in (tmp_path / "SST-2.tsv").read_text()
    given = pd.read_csv(tmp_path / "SST-2.tsv", sep="\t")
    assert given.to_dict("list") == {
        "index": [7, 8],
        "prediction": classifier.labels_from(classifier.predict_proba(['"good fine', 'bad " poor'])).tolist(),
    }


def test_labels_that_glue_has_names_for_are_written_as_names(classifier):
    text = TextBatch(pa.table({"sentence": ["a"]}), 0, ("sentence",), pa.table({"text": ["a"]}), np.array([0]))
    predictions = _Predictions(pa.array(["not_entailment"]), None, {})
    written = {
        names: _as_glue(text, predictions, classifier.saved.model_copy(update={"label_names": names}))[
            "prediction"
        ].to_pylist()
        for names in (("entailment", "not_entailment"), ("no", "not_entailment"))
    }
    assert list(written.values()) == [["not_entailment"], [1]]


def test_the_command_predicts_and_says_what_it_did(finished, tmp_path):
    path, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    path.write_text('text\ngood fine\n""\n')
    result = CliRunner().invoke(
        app, ["predict", str(finished[0].folder), str(path), "--out", str(out), "--min-confidence", "0.5"]
    )
    assert result.exit_code == 0, result.output
    assert "2 rows in" in result.output
    assert "on validation: 100 % of 20 examples, accuracy" in result.output
    assert "! 1 row has an empty text: 2" in result.output
    assert [json.loads(line)["predicted"] for line in out.read_text().splitlines()] == ["positive", None]


def test_standard_input_goes_to_standard_output(finished):
    command = [
        sys.executable,
        "-m",
        "tuneoff",
        "predict",
        str(finished[0].folder),
        "-",
        "--strategy",
        "tfidf",
        "--format",
        "jsonl",
    ]
    done = subprocess.run(command, input="text\ngood fine\n", capture_output=True, text=True, check=True)
    assert [json.loads(line)["predicted"] for line in done.stdout.splitlines()] == ["positive"]
    assert "1 row in" in done.stderr


def test_a_full_disk_leaves_no_half_file(finished, tmp_path):
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    pd.DataFrame({"text": TEXTS * 5000}).to_csv(path, index=False)
    command = [
        sys.executable,
        "-m",
        "tuneoff",
        "predict",
        str(finished[0].folder),
        str(path),
        "--out",
        str(out),
        "--strategy",
        "tfidf",
    ]
    # a limit on the size of a file stands in for a full disk
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)),
    )
    assert done.returncode == 2, done.stderr
    assert "out.csv cannot be written: " in done.stderr
    assert "nothing was kept of it" in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.csv"]


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_the_command_embeds_a_file(encoder, suffix, tmp_path):
    from tuneoff import embed

    path, out = tmp_path / "in.csv", tmp_path / f"vectors{suffix}"
    pd.DataFrame({"text": TEXTS}).to_csv(path, index=False)
    result = CliRunner().invoke(app, ["embed", str(path), "--out", str(out), "--model", encoder, "--max-length", "16"])
    assert result.exit_code == 0, result.output
    vectors = np.load(out) if suffix == ".npy" else np.stack(pd.read_parquet(out)["embedding"].tolist())
    np.testing.assert_array_equal(vectors, embed(TEXTS, model=encoder, max_length=16))
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["in.csv", out.name])
