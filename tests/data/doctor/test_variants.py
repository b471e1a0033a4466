"""Label variants: what is a spelling of another label, and what is another label."""

import pytest

from tuneoff.data.doctor.variants import label_variants


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"pos": 90, "Pos": 12, "neg": 80}, {"Pos": "pos"}),
        ({"Pos": 12, "pos": 90, "POS.": 80}, {"Pos": "pos", "POS.": "pos"}),
        ({"very positive": 90, "very_positive": 100, "Very-Positive": 1}, {"very positive": "very_positive", "Very-Positive": "very_positive"}),
        ({"ｐｏｓ": 1, "pos": 9}, {"ｐｏｓ": "pos"}),
        ({"positive": 900, "positve": 3, "postiive": 2, "psoitive": 1}, {"positve": "positive", "postiive": "positive", "psoitive": "positive"}),
        ({"Positive": 900, "positive": 2, "POSITVE": 1}, {"positive": "Positive", "POSITVE": "Positive"}),
        ({"sport": 900, "spotr": 1}, {}),  # two edits in five letters
        ({"sport": 900, "spor": 1}, {"spor": "sport"}),
    ],
)  # fmt: skip
def test_spellings_of_one_label(counts, expected):
    assert label_variants(counts) == expected


@pytest.mark.parametrize(
    "names",
    [
        ["label_1", "label_2"], ["label 1", "label 11"], ["LABEL_0", "LABEL_10"], ["anger", "danger"], ["able", "unable"],
        ["moral", "immoral"], ["C", "C++", "C#"], ["A", "A-", "A+"], ["1.0", "10"], ["-1", "1"], ["1-star", "2-star"],
        ["pos", "neg"], ["cat", "car"], ["entailment", "contradiction"], ["male", "female"], ["½", "1"],
    ],
)  # fmt: skip
def test_other_labels_are_no_variants_however_rare(names):
    assert label_variants({name: 10_000 if number == 0 else 1 for number, name in enumerate(names)}) == {}


def test_two_frequent_names_are_no_typos_of_each_other():
    assert label_variants({"transfer": 100, "transfers": 40}) == {}
    assert label_variants({"transfer": 100, "transfers": 1}) == {"transfers": "transfer"}


def test_many_labels_take_no_time():
    names = [f"intent about {a} and {b}" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnopqrst"]
    assert label_variants(dict.fromkeys(names, 10)) == {}
