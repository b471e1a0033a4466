"""Folds: disjoint and complete, stratified, with groups and repeated texts whole; bad cases in one line."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.data.frames import frame, multilabel_frame
from tests.data.test_groups import grouped_frame
from tuneoff.data.dataset import FOLD, GROUP, label_counts, labels_of
from tuneoff.data.folds import FOLDS_BELOW
from tuneoff.data.load import load_dataset, open_dataset, store_dataset
from tuneoff.data.sources import from_memory, store_in_cache
from tuneoff.data.spec import DataSpec, Evaluation, Fold, Subset
from tuneoff.data.splits import check_subset, parts_of
from tuneoff.errors import ConfigError, DataError

FIVE = Evaluation(folds=5)


def load(data, evaluate=FIVE, **options):
    return load_dataset(DataSpec(source=store_in_cache(from_memory(data)), **options), evaluate)


def parts_of_all(dataset, validation_fraction=0.1, subset=None):
    folds = [
        Fold(index=i, of=dataset.folds, validation_fraction=validation_fraction, split_seed=0)
        for i in range(dataset.folds)
    ]
    return [
        {purpose: part.row_numbers(dataset) for purpose, part in parts_of(dataset, fold, subset, fold.index).items()}
        for fold in folds
    ]


@pytest.mark.parametrize(
    "data",
    [frame([0, 1, 2, 2] * 25), grouped_frame(), multilabel_frame(200).assign(text=[f"text {i}" for i in range(200)])],
    ids=["plain", "groups", "multi-label"],
)
def test_every_example_is_a_test_example_once_and_never_read_before(data):
    dataset = load(data, group="author" if "author" in data else None)
    assert set(dataset.splits) == {"train"}
    parts = parts_of_all(dataset)
    num_examples = dataset.num_examples("train")
    assert sorted(np.concatenate([part["test"] for part in parts])) == list(range(num_examples))
    for part in parts:
        assert sorted(np.concatenate(list(part.values()))) == list(range(num_examples))
        assert abs(len(part["validation"]) - 0.1 * num_examples) <= 0.05 * num_examples
        assert (label_counts(labels_of(dataset.splits["train"])[part["train"]], dataset.num_labels) > 0).all()


def test_folds_and_their_validation_are_stratified():
    dataset = load(frame([0, 0, 0, 1] * 50))
    labels = labels_of(dataset.splits["train"])
    for part in parts_of_all(dataset):
        assert np.bincount(labels[part["test"]]).tolist() == [30, 10]
        assert np.bincount(labels[part["validation"]]).tolist() == [15, 5]
        assert np.bincount(labels[part["train"]]).tolist() == [105, 35]


def test_groups_and_repeated_texts_are_in_one_part():
    data = grouped_frame().assign(text=[" ".join(f"{word}x{i}" for word in range(8)) for i in range(200)])
    data.loc[190:, "text"] = [f"RT {text.upper()}!" for text in data["text"][:10]]
    data.loc[::5, "author"] = None
    dataset = load(data, group="author")
    groups, texts = (
        dataset.splits["train"][GROUP].to_pylist(),
        data["text"].str.extract(r"x(\d+)", flags=re.IGNORECASE)[0],
    )
    for part in parts_of_all(dataset):
        for purpose, rows in part.items():
            others = sorted(set(range(200)) - set(rows))
            assert not ({groups[i] for i in rows} - {""}) & ({groups[i] for i in others} - {""}), purpose
            assert not set(texts[rows]) & set(texts[others]), purpose
    assert "groups of 'author' kept whole, 20 repeated or nearly repeated texts in one fold each" in dataset.notes[-1]


def test_texts_from_one_template_can_still_be_divided():
    texts = [f"please book a table in the restaurant on the corner for {i % 40}" for i in range(100)]
    dataset = load(frame([0, 1] * 50, texts))
    assert (
        "100 repeated texts in one fold each, but not the nearly repeated ones, which are too many" in dataset.notes[-1]
    )
    for part in parts_of_all(dataset):
        test = {texts[i] for i in part["test"]}
        assert not test & {texts[i] for i in (*part["train"], *part["validation"])}


def test_folds_are_determined_by_the_split_seed_and_the_groups():
    data = grouped_frame()
    plain, again, other = load(data), load(data), load(data, split_seed=1)
    assert plain.fingerprint == again.fingerprint != other.fingerprint
    assert load(data, group="author").fingerprint != plain.fingerprint != load(data, Evaluation(folds=4)).fingerprint


def test_train_and_validation_are_pooled_after_their_limits_and_test_is_kept():
    splits = {name: frame([0, 1] * 40, [f"{name} {i}" for i in range(80)]) for name in ("train", "validation", "test")}
    dataset = load(splits, limits={"train": 50, "test": 20})
    assert {split: dataset.num_examples(split) for split in dataset.splits} == {"train": 130, "test": 20}
    assert "5 folds over train and validation: each of the 130 examples" in dataset.notes[-1]


def test_a_dataset_with_folds_is_stored_and_opened():
    dataset = load(frame([0, 1] * 20))
    store_dataset(dataset)
    opened = open_dataset(dataset.fingerprint)
    assert opened == replace(dataset, columns={})  # the columns of the source are for the screen alone
    assert opened.splits["train"][FOLD].to_pylist() == dataset.splits["train"][FOLD].to_pylist()


@pytest.mark.parametrize("subset", [Subset(fraction=0.5), Subset(per_class=5)])
def test_subsets_are_drawn_from_the_training_examples_of_each_fold(subset):
    dataset = load(frame([0, 1] * 50))
    for whole, part in zip(parts_of_all(dataset), parts_of_all(dataset, subset=subset), strict=True):
        assert set(part["train"]) < set(whole["train"])
        assert len(part["train"]) == (35 if subset.fraction else 10)
        assert part["test"].tolist() == whole["test"].tolist()


def test_a_subset_larger_than_a_fold_gives_is_refused():
    dataset = load(frame([0, 1] * 50))
    folds = [Fold(index=0, of=5, validation_fraction=0.1, split_seed=0)]
    with pytest.raises(ConfigError, match="per_class 36: train has only 35 examples of '0'; use at most 35"):
        check_subset(dataset, Subset(per_class=36), folds=folds)


@pytest.mark.parametrize(
    ("data", "options", "folds"),
    [
        (frame([0, 1] * 50), {}, 5),
        ({"train": frame([0, 1] * 50), "validation": frame([0, 1] * 5)}, {}, 5),
        ({"train": frame([0, 1] * 50), "test": frame([0, 1] * 5)}, {}, None),
        (frame([0, 1] * (FOLDS_BELOW // 2)), {}, None),
        (frame([0, 1] * (FOLDS_BELOW // 2)), {"limits": {"train": 1000}}, 5),
        (frame([0, 1] * 50), {"limits": {"test": 20}}, None),
        (frame([0, 1] * 50), {"test_fraction": 0.3}, None),
    ],
)
def test_small_data_without_a_test_split_have_folds_by_default(data, options, folds):
    assert load(data, None, **options).folds == folds


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (frame([0] * 96 + [1] * 4), {}, "class '1' has 4 examples, fewer than 5 folds"),
        (grouped_frame(), {"group": "source"}, "group column 'source' has 2 groups, fewer than 5 folds"),
        (
            grouped_frame(),
            {"group": "half"},
            "groups of 'half' and repeated texts are so large that a fold would have 10. of 200 examples instead of 40",
        ),
        (frame([0, 1] * 50, ["the same text every time"] * 100), {}, "repeated texts leave 1 of them apart, fewer than 5 folds"),
        (
            pd.DataFrame({"text": [f"t {i}" for i in range(60)], "label": [0] * 54 + [1] * 6, "g": [*range(54), *[99] * 6]}),
            {"group": "g"},
            "class '1' has no training example in fold . of 5",
        ),
    ],
)  # fmt: skip
def test_data_that_folds_cannot_divide(data, options, reason):
    with pytest.raises(DataError, match=rf"{reason}; use fewer folds \(--folds 2\), or one test split") as error:
        load(data, **options)
    assert "\n" not in str(error.value)


def test_where_folds_cannot_divide_the_data_one_split_is_the_default():
    data = frame([0] * 96 + [1] * 4)
    dataset = load(data, None)
    assert dataset.folds is None
    assert set(dataset.splits) == {"train", "validation", "test"}
    reason = "class '1' has 4 examples, fewer than 5 folds"
    assert dataset.notes[0] == f"evaluated on one test split instead of 5 folds: {reason}"


def test_a_limit_of_a_test_split_that_does_not_exist_is_refused():
    with pytest.raises(DataError, match="limit for test: with folds there is no test split unless one is given"):
        load(frame([0, 1] * 50), limits={"test": 10})
