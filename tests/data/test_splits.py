"""Held-out splits, limits and samples: stratified, of exact sizes, with no example lost."""

import numpy as np
import pytest

from tests.data.frames import examples_of, frame, load, multilabel_frame
from tuneoff.data.dataset import labels_of
from tuneoff.data.spec import DataSpec
from tuneoff.data.splits import apportion, stratified_sample, stratified_split
from tuneoff.errors import ConfigError, DataError
from tuneoff.validation import validated


def test_held_out_splits_share_no_example_and_lose_none():
    dataset = load(frame([0, 1, 2, 2] * 25))
    assert {split: dataset.num_examples(split) for split in dataset.splits} == {
        "train": 80,
        "validation": 10,
        "test": 10,
    }
    texts = [text for text, _ in examples_of(dataset)]
    assert len(texts) == len(set(texts)) == 100
    assert dataset.notes == (
        "test was held out from train: 10 of 100 examples, stratified by label, seed 0",
        "validation was held out from train: 10 of 100 examples, stratified by label, seed 0",
    )


def test_the_split_seed_determines_held_out_splits():
    data = frame([0, 1] * 50)
    assert load(data).fingerprint == load(data).fingerprint != load(data, split_seed=1).fingerprint


def test_limits_keep_class_shares_and_are_noted():
    dataset = load(frame([0, 0, 0, 1] * 100), limits={"train": 40, "test": 8})
    assert np.bincount(labels_of(dataset.splits["train"])).tolist() == [30, 10]
    assert np.bincount(labels_of(dataset.splits["test"])).tolist() == [6, 2]
    assert dataset.notes[2:] == (
        "train is a subset: 40 of 320 examples, stratified by label",
        "test is a subset: 8 of 40 examples, stratified by label",
    )


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        ({"test": 200}, {"train": 430, "validation": 70, "test": 200}),
        ({"test": 200, "validation": 100}, {"train": 400, "validation": 100, "test": 200}),
        ({"test": 20}, {"train": 560, "validation": 70, "test": 20}),  # as in studies of earlier versions
        ({"test": 5000}, {"train": 560, "validation": 70, "test": 70}),
        ({"test": 200, "train": 100}, {"train": 100, "validation": 70, "test": 200}),
    ],
)
def test_a_limit_is_the_size_of_a_split_that_is_held_out(limits, sizes):
    dataset = load(frame([0, 1] * 350), limits=limits)
    assert {split: dataset.num_examples(split) for split in dataset.splits} == sizes


def test_a_limit_is_about_the_size_of_a_held_out_split_of_groups():
    dataset = load(frame([0, 1] * 350, author=[f"a{i // 7}" for i in range(700)]), limits={"test": 200}, group="author")
    assert 180 <= dataset.num_examples("test") <= 220


def test_multilabel_splits_and_limits_keep_label_shares():
    dataset = load(multilabel_frame(400), limits={"train": 100})
    shares = {split: labels_of(table).mean(0) for split, table in dataset.splits.items()}
    for share in shares.values():
        np.testing.assert_allclose(share, shares["train"], atol=0.12)
    assert dataset.num_examples("train") == 100


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 1, 0], {}, "3 examples of 2 classes are too few to hold out a validation split; .* at least 6 examples"),
        ([0, 1] * 10, {"limits": {"train": 1}}, "limit 1 for train is below the number of classes, 2"),
        ([0] * 194 + [1] * 6, {"limits": {"train": 5}}, "the limit for train leaves out a class; raise it"),
    ],
)
def test_sizes_that_lose_a_class_are_refused(labels, options, message):
    with pytest.raises(DataError, match=message):
        load(frame(labels), **options)


@pytest.mark.parametrize("seed", range(20))
def test_apportion_is_exact_and_within_one_of_the_share(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 100, rng.integers(2, 12))
    total = int(rng.integers(0, counts.sum() + 1))
    sizes = apportion(counts, total)
    assert sizes.sum() == total
    assert (np.abs(sizes - counts * total / counts.sum()) < 1).all()


def test_stratified_split_leaves_an_example_of_every_class():
    labels = np.array([0] * 50 + [1] * 50 + [2])
    held_out, rest = stratified_split(labels, 60, np.random.default_rng(0))
    assert sorted([*held_out, *rest]) == list(range(101))
    assert 59 <= len(held_out) <= 60
    assert set(labels[rest]) == {0, 1, 2}


def test_stratified_sample_keeps_class_shares_and_is_at_most_everything():
    labels = np.repeat([0, 1], [70, 30])
    sample = stratified_sample(labels, 10, np.random.default_rng(0))
    assert np.bincount(labels[sample]).tolist() == [7, 3]
    assert len(stratified_sample(labels, 1000, np.random.default_rng(0))) == 100


def test_ignored_splits_are_pooled_and_divided_anew():
    parts = [(0, 60), (60, 80), (80, 100)]
    data = {
        split: frame([0, 1] * ((end - start) // 2), texts=[f"text {i}" for i in range(start, end)])
        for split, (start, end) in zip(("train", "validation", "test"), parts, strict=True)
    }
    given, divided = load(data), load(data, ignore_splits=True, test_fraction=0.2)
    assert {split: divided.num_examples(split) for split in divided.splits} == {
        "train": 70,
        "validation": 10,
        "test": 20,
    }
    assert examples_of(divided) == examples_of(given)
    assert divided.held_out == ("validation", "test")
    assert divided.notes[0] == (
        "the splits of the source are ignored: 100 examples (train 60, validation 20, test 20) are divided anew"
    )
    assert DataSpec(source="x", splits="ignore").ignore_splits
    assert load(data["train"], ignore_splits=True).notes[0] == "the data have no splits to ignore"


def test_groups_stay_whole_where_splits_are_ignored():
    groups = [f"g{i // 5}" for i in range(100)]
    texts = [f"text {i}" for i in range(100)]
    whole = frame([0, 1] * 50, texts=texts, author=groups)
    dataset = load({"train": whole[:70], "test": whole[70:]}, ignore_splits=True, group="author", test_fraction=0.2)
    by_split = [set(table["group"].to_pylist()) for table in dataset.splits.values()]
    assert not by_split[0] & by_split[1]
    assert not by_split[0] & by_split[2]


def test_splits_that_are_neither_a_mapping_nor_ignored_are_one_line():
    with pytest.raises(
        ConfigError, match="splits 'all' is neither a mapping of splits nor ignore; write splits: ignore"
    ):
        validated(DataSpec, {"source": "x", "splits": "all"}, "study")
