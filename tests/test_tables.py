"""Typed tables: plain values in CSV, readable ones in Markdown and LaTeX, and nothing that runs."""

import csv
import json

import pytest

from tuneoff import formats, tables
from tuneoff.tables import (
    BYTES,
    COUNT,
    ESTIMATE,
    INTERVAL,
    MEAN_SD,
    P_VALUE,
    SCORE,
    SCORES,
    SECONDS,
    SHARE,
    SIGNED_ESTIMATE,
    SIGNED_HUNDREDTHS,
    SIGNED_HUNDREDTHS_INTERVAL,
    SIGNED_INTERVAL,
    SIGNED_SCORE,
    TENTHS,
    TEXT,
    Column,
    Table,
)


def table_of(*cells, rows=None, **options):
    """A table with a column for each (key, format, value)."""
    columns = tuple(Column(key, key.replace("_", " "), format_) for key, format_, _ in cells)
    return Table("t", columns, rows or [[value for *_, value in cells]], **options)


def csv_rows(table, folder):
    tables.write_csv(table, folder / "t.csv")
    with open(folder / "t.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_csv_holds_plain_numbers_in_base_units(tmp_path):
    table = table_of(
        ("strategy", TEXT, "full"),
        ("fit_seconds", SECONDS, 168.25),
        ("peak_bytes", BYTES, 1_500_000_000),
        ("truncated_share", SHARE, 0.125),
        ("accuracy", MEAN_SD, (0.8125, 0.0625)),
        ("accuracy", INTERVAL, (0.75, 0.875)),
        ("difference", SIGNED_ESTIMATE, None),
    )
    head, row = csv_rows(table, tmp_path)
    assert head == [
        "strategy", "fit_seconds", "peak_bytes", "truncated_share", "accuracy", "accuracy_sd", "accuracy_low", "accuracy_high",
        "difference", "difference_low", "difference_high",
    ]  # fmt: skip
    assert row == ["full", "168.25", "1500000000", "0.125", "0.8125", "0.0625", "0.75", "0.875", "", "", ""]


def test_readers_see_units_and_missing_values():
    table = table_of(
        ("strategy", TEXT, "full"),
        ("time", SECONDS, 168.0),
        ("memory", BYTES, 1_500_000_000),
        ("score", ESTIMATE, (0.8, 0.75, 0.85)),
        ("p", P_VALUE, 0.0001),
        ("size", BYTES, None),
        total=["all", 1.0, 10, (0.5, 0.4, 0.6), 0.5, 12],
    )
    assert table.text_rows() == [
        ["full", "2.8 min", "1.5 GB", "0.800 (0.750 to 0.850)", "< 0.001", "–"],
        ["all", "1.0 s", "10 B", "0.500 (0.400 to 0.600)", "0.500", "12 B"],
    ]
    assert tables.markdown(table).splitlines()[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"


@pytest.mark.parametrize(
    ("format_", "value", "text"),
    [
        (SCORE, -0.0002, "0.000"),
        (SCORE, -0.0, "0.000"),
        (SCORE, -0.0126, "-0.013"),
        (TENTHS, -0.04, "0.0"),
        (SIGNED_SCORE, -0.0002, "0.000"),
        (SIGNED_HUNDREDTHS, -0.004, "0.00"),
        (SIGNED_HUNDREDTHS, 0.9, "+0.90"),
        (SIGNED_HUNDREDTHS_INTERVAL, (-0.373, 2.166), "-0.37 to +2.17"),
        (INTERVAL, (-0.0001, 0.5), "0.000 to 0.500"),
        (SIGNED_INTERVAL, (-0.5, 0.0001), "-0.500 to 0.000"),
        (ESTIMATE, (-0.0, -0.0001, 0.1), "0.000 (0.000 to 0.100)"),
        (SIGNED_ESTIMATE, (0.1, -0.0001, 0.2), "+0.100 (0.000 to +0.200)"),
        (MEAN_SD, (-0.0001, 0.0), "0.000 ± 0.000"),
    ],
)
def test_what_rounds_to_zero_has_no_sign(format_, value, text):
    assert format_.text(value) == text


def test_a_list_is_one_cell_with_full_precision(tmp_path):
    scores = [0.8123456, 1 / 3]
    table = table_of(("score_by_epoch", SCORES, scores))
    assert table.text_rows() == [["0.812 0.333"]]
    assert json.loads(csv_rows(table, tmp_path)[1][0]) == scores


def test_the_width_of_a_table_in_a_terminal():
    table = table_of(
        ("strategy", TEXT, "full"), ("n", COUNT, 1_000), rows=[["full", 1_000], ["probe classifier=svm", 1]]
    )
    assert table.text_width == len("probe classifier=svm") + 2 + len("1,000")


@pytest.mark.parametrize(
    ("format_", "value", "key"),
    [(SECONDS, 0.5, 0.5), (ESTIMATE, (0.8, 0.7, 0.9), 0.8), (INTERVAL, (-0.5, 1), -0.5), (TEXT, "LoRA", "lora"), (COUNT, None, None)],
)  # fmt: skip
def test_columns_sort_by_value(format_, value, key):
    assert format_.sort_key(value) == key


def test_spreadsheets_see_no_formula(tmp_path):
    table = table_of(
        ("label", TEXT, ""), ("=x", COUNT, 0), rows=[["=SUM(A1)", -1.5], ["@cmd", 2], ["+1", 3], ["-", None]]
    )
    assert csv_rows(table, tmp_path) == [
        ["label", "'=x"],
        ["'=SUM(A1)", "-1.5"],
        ["'@cmd", "2"],
        ["'+1", "3"],
        ["'-", ""],
    ]


def test_latex_and_markdown_leave_text_as_it_is():
    assert (
        formats.latex_text("50 % & a_b $#{}~^\\<")
        == r"50 \% \& a\_b \$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}"
    )
    assert formats.markdown_text("a|b\n<i>*") == r"a\|b &lt;i&gt;\*"
    assert formats.markdown_text("a\u202eb\x00") == "a⟨U+202E⟩b␀"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0.0 s"), (0.01, "10.0 ms"), (5.25, "5.2 s"), (300, "5.0 min"), (10_000, "2.8 h")]
)
def test_durations_have_the_unit_that_suits_them(seconds, text):
    assert formats.seconds(seconds) == text
