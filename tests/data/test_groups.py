"""Groups, such as authors or threads: each is within one split, against leakage."""

import numpy as np
import pandas as pd
import pytest

from tests.data.frames import load
from tuneoff.data.dataset import GROUP, labels_of
from tuneoff.data.doctor.checks import examine
from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec
from tuneoff.errors import DataError


def grouped_frame(count=200, num_authors=40):
    """Examples of two classes, a quarter of them rare, by random authors."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "text": [f"text number {i}" for i in range(count)],
            "label": np.where(np.arange(count) % 4 == 0, "rare", "common"),
            "author": [f"a{i}" for i in rng.integers(num_authors, size=count)],
            "half": [f"h{min(i // 100, 1)}" if i < 190 else f"h{i}" for i in range(count)],
            "source": np.where(np.arange(count) % 3 == 0, "web", "mail"),
        }
    )


def test_no_group_is_in_two_splits_and_class_shares_are_kept():
    dataset = load(grouped_frame(), group="author", test_fraction=0.2, validation_fraction=0.2)
    groups = {split: set(table[GROUP].to_pylist()) for split, table in dataset.splits.items()}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]
    for table in dataset.splits.values():
        assert 0.15 < labels_of(table).mean() < 0.35
    assert 25 <= dataset.num_examples("test") <= 55
    assert "groups of 'author' kept whole" in " ".join(dataset.notes)
    assert not any("group leakage" in finding.kind for finding in examine(dataset))


@pytest.mark.parametrize("num_rare", [1, 2, 5])
def test_a_rare_class_does_not_enlarge_held_out_splits(num_rare):
    data = grouped_frame(400, 100)
    data["label"] = ["odd" if i % (400 // num_rare) == 7 else label for i, label in enumerate(data["label"])]
    dataset = load(data, group="author")
    assert 25 <= dataset.num_examples("test") <= 55
    assert 25 <= dataset.num_examples("validation") <= 55
    assert len(np.unique(labels_of(dataset.splits["train"]))) == 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_example_without_a_group_is_a_group_of_its_own(seed):
    data = grouped_frame(400)
    data.loc[data.index % 5 < 3, "author"] = None
    dataset = load(data, group="author", split_seed=seed, test_fraction=0.3)
    assert 100 <= dataset.num_examples("test") <= 140
    assert 25 <= dataset.num_examples("validation") <= 55


def test_more_than_half_of_the_examples_can_be_held_out():
    assert 220 <= load(grouped_frame(400, 100), group="author", test_fraction=0.6).num_examples("test") <= 260


def test_a_group_in_two_splits_of_the_user_is_reported_as_leakage():
    data = grouped_frame()
    dataset = load({"train": data[:100], "test": data[100:]}, group="author")
    assert any(finding.kind == "group leakage from train or validation into test" for finding in examine(dataset))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "auther"}, "column 'auther' is unknown; did you mean 'author'"),
        ({"group": "source"}, "group column 'source' has 2 groups, too few to hold out 10 % as test; give the split .--test FILE"),
        ({"group": "half"}, "group column 'half': groups are so large that test would have .* instead of 20; give the split"),
        ({"group": "label", "test_fraction": 0.5}, "group column 'label': every choice of groups for test takes all examples of a class from train"),
        ({"group": "author", "test_fraction": 0.5, "validation_fraction": 0.5}, "test and validation together would take all of train; lower test_fraction"),
    ],
)  # fmt: skip
def test_groups_that_cannot_be_split_are_refused_in_one_line(options, message):
    with pytest.raises(DataError, match=message) as error:
        load(grouped_frame(), **options)
    assert "\n" not in str(error.value)


def test_examples_without_a_group_are_no_leakage(tmp_path):
    data = grouped_frame().assign(author=None)
    data[:100].to_csv(tmp_path / "train.csv", index=False)
    data[100:].to_csv(tmp_path / "test.csv", index=False)
    dataset = load_dataset(DataSpec(source=str(tmp_path), group="author"))
    assert not any("group leakage" in finding.kind for finding in examine(dataset))
