"""Columns beside text and label: groups that are not split, and parts of test that are scored by themselves."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

from tests.made import made_study
from tuneoff.comparison.errors import Answers
from tuneoff.comparison.slices import by_slice
from tuneoff.data.checks import findings
from tuneoff.data.dataset import GROUP, DataSpec, labels_of
from tuneoff.data.load import load_dataset
from tuneoff.errors import DataError
from tuneoff.runs import write_table
from tuneoff.study import Study


def frame(count=200, groups=40):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "text": [f"text number {i}" for i in range(count)],
            "label": np.where(np.arange(count) % 4 == 0, "rare", "common"),
            "author": [f"a{i}" for i in rng.integers(groups, size=count)],
            "half": [f"h{min(i // 100, 1)}" if i < 190 else f"h{i}" for i in range(count)],
            "source": np.where(np.arange(count) % 3 == 0, "web", "mail"),
        }
    )


def load(data, tmp_path, **options):
    data.to_csv(tmp_path / "data.csv", index=False)
    return load_dataset(DataSpec(source=str(tmp_path / "data.csv"), **options))


def test_no_group_stands_in_two_splits_and_classes_stay_in_proportion(tmp_path):
    dataset = load(frame(), tmp_path, group="author", test_fraction=0.2, validation_fraction=0.2)
    groups = {split: set(table[GROUP].to_pylist()) for split, table in dataset.splits.items()}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]
    for table in dataset.splits.values():
        assert 0.15 < labels_of(table).mean() < 0.35
    assert 25 <= dataset.num_examples("test") <= 55
    assert "groups of 'author' whole" in " ".join(dataset.notes)
    assert not any("groups that also stand" in line for line in findings(dataset))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_rare_class_does_not_make_splits_large(count, tmp_path):
    data = frame(400, 100)
    data["label"] = ["odd" if i % (400 // count) == 7 else label for i, label in enumerate(data["label"])]
    dataset = load(data, tmp_path, group="author")
    assert 25 <= dataset.num_examples("test") <= 55
    assert 25 <= dataset.num_examples("validation") <= 55
    assert len(np.unique(labels_of(dataset.splits["train"]))) == 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_example_without_a_group_is_one_of_its_own(seed, tmp_path):
    data = frame(400, 40)
    data.loc[data.index % 5 < 3, "author"] = None
    dataset = load(data, tmp_path, group="author", split_seed=seed, test_fraction=0.3)
    assert 100 <= dataset.num_examples("test") <= 140
    assert 25 <= dataset.num_examples("validation") <= 55


def test_more_than_half_can_be_test(tmp_path):
    assert 220 <= load(frame(400, 100), tmp_path, group="author", test_fraction=0.6).num_examples("test") <= 260


def test_splits_that_would_take_all_of_train_are_refused(tmp_path):
    with pytest.raises(DataError, match="test and validation together would take all of train; lower test_fraction"):
        load(frame(), tmp_path, group="author", test_fraction=0.5, validation_fraction=0.5)


def test_a_group_in_two_given_splits_is_found(tmp_path):
    data = frame()
    data[:100].to_csv(tmp_path / "train.csv", index=False)
    data[100:].to_csv(tmp_path / "test.csv", index=False)
    dataset = load_dataset(DataSpec(source=str(tmp_path), group="author"))
    assert any(line.startswith("test: ") and "groups that also stand in train" in line for line in findings(dataset))


def test_what_runs_do_not_see_changes_no_fingerprint(tmp_path):
    assert load(frame(), tmp_path).fingerprint == load(frame(), tmp_path, slices=("source",)).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "auther"}, "column 'auther' is unknown; did you mean 'author'"),
        ({"slices": ("sorce",)}, "column 'sorce' is unknown; did you mean 'source'"),
        ({"group": "source"}, "group column 'source' has 2 groups, too few to carve a test split of 10 %; give the split .--test FILE"),
        ({"group": "half"}, "group column 'half': groups are so large that test would hold .* where 20 are wanted"),
        ({"group": "label", "test_fraction": 0.5}, "group column 'label': all examples of a class stand in groups that would leave train"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_used_are_one_line(options, message, tmp_path):
    with pytest.raises(DataError, match=message) as error:
        load(frame(), tmp_path, **options)
    assert "\n" not in str(error.value)


def test_a_slice_is_scored_as_if_it_were_all_of_test():
    rng = np.random.default_rng(0)
    labels, chances = rng.integers(2, size=90), rng.dirichlet([1, 1], (2, 90))
    answers = {"lora-1": Answers(chances.argmax(2), chances)}
    columns = pd.DataFrame({"text": ["x"] * 90, "slice:source": ["web"] * 30 + ["mail"] * 59 + ["odd"]})
    found = by_slice(labels, answers, {"lora-1": (0, 1)}, columns, "accuracy")
    assert found["value"].tolist() == ["mail", "web"]  # one example has no interval
    assert found["examples"].tolist() == [59, 30]
    expected = [accuracy_score(labels[:30], chances[s, :30].argmax(1)) for s in range(2)]
    assert found["score"][1] == pytest.approx(np.mean(expected))
    assert (found["low"] < found["score"]).all()
    assert (found["score"] < found["high"]).all()


def test_many_numbers_become_ranges_and_many_words_the_common_ones():
    labels, chances = np.zeros(300, int), np.tile([[0.9, 0.1]], (1, 300, 1))
    answers, seeds = {"full-1": Answers(chances.argmax(2), chances)}, {"full-1": (0,)}
    numbers = pd.DataFrame({"slice:age": [str(i) for i in range(300)]})
    ranges = by_slice(labels, answers, seeds, numbers, "accuracy")
    assert ranges["examples"].tolist() == [75] * 4
    assert ranges["value"].tolist() == ["0 to 74", "75 to 149", "150 to 224", "225 to 299"]
    words = pd.DataFrame({"slice:author": [f"a{i % 25}" for i in range(150)] + ["b"] * 150})
    found = by_slice(labels, answers, seeds, words, "accuracy")
    assert len(found) == 20
    assert found.set_index("value")["examples"]["(7 rarer values)"] == 42


@pytest.mark.parametrize("start", [0, 1_700_000_000])
def test_what_is_missing_and_large_numbers_are_parts_of_their_own(start):
    labels, chances = np.zeros(200, int), np.tile([[0.9, 0.1]], (1, 200, 1))
    answers, seeds = {"full-1": Answers(chances.argmax(2), chances)}, {"full-1": (0,)}
    column = [str(start + i) for i in range(160)] + [""] * 40
    found = by_slice(labels, answers, seeds, pd.DataFrame({"slice:time": column}), "accuracy")
    assert found["examples"].tolist() == [40] * 5
    assert found["value"].nunique() == 5
    assert found["value"].iloc[-1] == "(missing)"


def test_a_value_that_is_called_other_is_itself():
    labels, chances = np.zeros(130, int), np.tile([[0.9, 0.1]], (1, 130, 1))
    answers, seeds = {"full-1": Answers(chances.argmax(2), chances)}, {"full-1": (0,)}
    column = ["other"] * 30 + [f"w{i % 25}" for i in range(100)]
    found = by_slice(labels, answers, seeds, pd.DataFrame({"slice:word": column}), "accuracy").set_index("value")
    assert found["examples"]["other"] == 30


def test_the_report_shows_slices(tmp_path):
    study = made_study(tmp_path / "made", [("full", "full", 0.9), ("lora", "lora", 0.7)])
    examples = study.comparison().examples
    examples["slice:so/urce <b>"] = ["web", "mail"] * (len(examples) // 2)
    import pyarrow as pa

    write_table(pa.Table.from_pandas(examples, preserve_index=False), study.folder / "test.parquet")
    comparison = Study.open(study.folder).report()
    assert set(comparison.slices["value"]) == {"web", "mail"}
    page = (study.folder / "report" / "index.html").read_text()
    assert "does worst where so/urce &lt;b&gt; is " in page
    assert (study.folder / "figures" / "slice-so-urce--b-.svg").is_file()
    assert len((study.folder / "tables" / "slices.csv").read_text().splitlines()) == 3
