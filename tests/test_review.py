"""Review of labels: planted label errors lead the list, and the corrected file repairs the data."""

import csv

import numpy as np
import pandas as pd
import pytest

from tests.data.frames import multilabel_frame
from tuneoff.data.load import load_dataset
from tuneoff.data.sources import from_memory, store_in_cache
from tuneoff.data.spec import DataSpec
from tuneoff.errors import ConfigError, DataError
from tuneoff.review import review_labels

COUNT = 300
TRUTH = np.arange(COUNT) % 3
WORDS = ["good fine lovely", "bad awful dull", "it was here"]
WRONG = set(range(0, COUNT, 20))  # a twentieth


def source():
    rng = np.random.default_rng(0)
    texts = [f"{' '.join(rng.permutation(WORDS[t].split()))} {i}" for i, t in enumerate(TRUTH)]
    names = np.array(["pos", "neg", "neutral"])
    return pd.DataFrame({"text": texts, "label": [names[(t + (i in WRONG)) % 3] for i, t in enumerate(TRUTH)]})


def loaded(data, **options):
    spec = DataSpec(source=store_in_cache(from_memory(data)), **options)
    return load_dataset(spec, evaluate=None, keeps_rows=True)


def test_planted_label_errors_lead_the_list_and_the_corrected_file_repairs_them(tmp_path):
    data, path = source(), tmp_path / "labels.csv"
    review = review_labels(loaded(data), "none", by="tfidf")
    review.write(path)
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {int(line["row"]) - 1 for line in lines} == WRONG
    assert all(line["corrected"] == "" for line in lines)
    (finding,) = review.findings
    assert finding.kind == "doubtful labels"
    for line in lines:
        line["corrected"] = line["suggested"]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    repaired = loaded(data, corrections=str(path))
    assert f"{len(WRONG)} labels of labels.csv corrected: {len(WRONG)} changed and 0 dropped" in repaired.notes
    assert review_labels(repaired, "none", by="tfidf").findings == []


def test_the_review_of_an_encoder_uses_its_vectors(encoder):
    review = review_labels(loaded(source()), str(encoder))
    assert (review.by, review.examples) == ("encoder", COUNT)


def test_rows_are_those_of_the_source_after_splits_are_held_out():
    data = source()
    dataset = loaded(data, test_fraction=0.2)
    for split, table in dataset.splits.items():
        for line in table.select(["row", "source_split", "text"]).to_pylist():
            assert data["text"][line["row"] - 1] == line["text"], split
            assert line["source_split"] == "train"


def test_the_places_of_the_source_are_no_part_of_the_fingerprint():
    spec = DataSpec(source=store_in_cache(from_memory(source())))
    assert loaded(source()).fingerprint == load_dataset(spec, evaluate=None).fingerprint


def test_large_data_are_sampled_with_the_scored_split_first(monkeypatch):
    monkeypatch.setattr("tuneoff.review._MAX_EXAMPLES", 100)
    review = review_labels(loaded(source(), test_fraction=0.2), "none", by="tfidf")
    assert (review.examples, review.total) == (100, COUNT)


def test_multilabel_data_and_an_unknown_way_are_one_line():
    with pytest.raises(DataError, match="a review needs single labels"):
        review_labels(loaded(multilabel_frame(60), label="labels"), "none")
    with pytest.raises(ConfigError, match="--review-by 'tfdif' is unknown; did you mean 'tfidf'"):
        review_labels(loaded(source()), "none", by="tfdif")
