"""What stands in a report is data: inert, legible, and the same in every format."""

import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tuneoff import formats
from tuneoff.comparison.result import Comparison, Pair, Row
from tuneoff.comparison.verdict import judge
from tuneoff.report import tables
from tuneoff.report.write import _tables as every_table
from tuneoff.report.write import markdown, page, write_report
from tuneoff.runs import RunRecord

HOSTILE = "<script>window.hit=1</script>"
LABELS = (HOSTILE, "=SUM(A1)", "50 % & more_$#", "مرحبا 😀")


def row(name, score, seconds, is_tied, strategy=None, **changes):
    given = Row(
        group=f"{name}-1",
        label=name,
        strategy=strategy or name,
        model="m",
        seeds=(0, 1),
        score=score,
        spread=0.01,
        interval=(score - 0.02, score + 0.02),
        from_examples=0.01,
        from_seeds=0.005,
        validation=score,
        scores={"accuracy": score, "macro_f1": score},
        difference=score - 0.9,
        difference_interval=(score - 0.92, 0.01 if is_tied else score - 0.88),
        p_value=0.4 if is_tied else 0.001,
        is_tied=is_tied,
        costs={"train_seconds": seconds, "peak_bytes": 2e9, "model_bytes": 9e7, "run_seconds": seconds + 1},
        parameters={"trainable": 10, "added": 2, "head": 8, "total": 100},
    )
    return replace(given, **changes)


def pairs_of(rows, **changes):
    return tuple(
        Pair(
            better=one.group,
            worse=other.group,
            difference=one.score - other.score,
            interval=(one.score - other.score - 0.02, one.score - other.score + 0.02),
            p_value=other.p_value / 3,
            p_corrected=other.p_value,
            mcnemar=other.p_value / 2,
            effect=0.1,
            **{"needed_examples": 4321, "needed_seeds": None, **changes},
        )
        for one, other in itertools.combinations(rows, 2)
    )


def judged(rows, metric="accuracy", cost="train_seconds", num_test=1000, **changes):
    return judge(rows, pairs_of(rows, **changes), metric, cost, num_test)


@pytest.fixture
def comparison():
    rows = (row("full", 0.9, 100, True), row("lora", 0.89, 40, True), row("head", 0.7, 5, False))
    history = pd.DataFrame(
        {
            "kind": ["step", "epoch"],
            "step": [1, None],
            "epoch": [1, 1],
            "loss": [0.5, None],
            "validation_accuracy": [None, 0.8],
        }
    )
    records = tuple(
        RunRecord(run_id=f"{r.group}-s0", group=r.group, strategy=r.strategy, label=r.label, model="m", seed=0, status="ok",
                  machine={"processor": "p", "cores": 2, "memory_bytes": 2**30, "gpu": None}, versions={"torch": "2"}) for r in rows
    )  # fmt: skip
    return Comparison(
        name="hostile",
        metric="accuracy",
        label_names=LABELS,
        rows=rows,
        pairs=pairs_of(rows),
        verdict=judged(rows),
        failures=(RunRecord(run_id="x-s0", group="x", strategy="x", label=HOSTILE, model=None, seed=0, status="failed", error=f"Traceback\n{HOSTILE}"),),
        records=records,
        histories={record.run_id: history for record in records},
        confusion={r.group: np.arange(16).reshape(4, 4) for r in rows},
        classes={r.group: [{"label": n, "precision": 0.5, "recall": 0.5, "f1": 0.5, "examples": 4} for n in LABELS] for r in rows},
        data={
            "name": HOSTILE, "label_names": LABELS, "notes": [HOSTILE], "findings": [], "is_pair": False, "fingerprint": "f",
            "splits": {split: {"examples": 4, "labels": [1, 1, 1, 1]} for split in ("train", "validation", "test")},
            "lengths": {"m": {"train": {"mean": 1.0, "max": 2, "truncated": 0.0}}},
        },
        study={"name": "hostile", "model": ["m"], "note": HOSTILE},
    )  # fmt: skip


def test_the_verdict_picks_the_cheapest_of_the_tied(comparison):
    verdict = comparison.verdict
    assert (verdict.best, verdict.recommended, verdict.tied) == ("full-1", "lora-1", ("full-1", "lora-1"))
    assert verdict.text == (
        "full scores best: accuracy 0.900 (95 % interval 0.880 to 0.920, 2 seeds). On 1,000 test examples it cannot be told "
        "from lora. The cheapest of them in training time is lora (2.5 times less than full): pick it. "
        "To tell full from lora, were they 0.010 apart as here, would take about 4,400 test examples (80 % power)."
    )


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"needed_examples": None, "needed_seeds": 12}, "would take 12 seeds (80 % power)."),
        ({"needed_examples": 950, "needed_seeds": 12}, "would take about 950 test examples or 12 seeds (80 % power)."),
        ({"needed_examples": None}, "would take more test examples and more seeds."),
    ],
)
def test_what_would_settle_it_is_said(needs, said):
    assert judged((row("full", 0.9, 100, True), row("lora", 0.89, 40, True)), **needs).text.endswith(said)


def test_a_clear_winner_is_said_to_be_one():
    rows = (row("full", 0.9, 100, True), row("head", 0.7, 5, False))
    text = judged(rows, "macro_f1").text
    assert "better than every other: the nearest, head, is 0.200 behind (0.180 to 0.220)" in text
    assert text.endswith("Pick full.")


def test_one_strategy_alone_has_a_verdict():
    assert judged((row("full", 0.9, 100, True),)).text.endswith("Pick full.")


def test_data_cannot_become_markup(comparison):
    found = page(comparison, every_table(comparison), {"a": {"title": HOSTILE}})
    assert HOSTILE not in found
    assert "&lt;script&gt;window.hit=1" in found
    assert "<script" not in markdown(comparison, every_table(comparison), has_curves=True)


def test_the_page_asks_for_nothing_from_elsewhere(comparison):
    found = page(comparison, every_table(comparison), {})
    markup = re.sub(r"<script>.*?</script>", "", found, flags=re.DOTALL)
    assert not re.search(r"(src|href)=", markup)
    assert "default-src 'none'" in found


def test_every_file_is_written(comparison, tmp_path):
    write_report(comparison, tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("scores", "cost", "validation", "loss", "confusion-full-1"):
        assert {f"figures/{name}.svg", f"figures/{name}.png"} <= names
    for name in ("leaderboard", "pairs", "metrics", "parameters", "costs"):
        assert {f"tables/{name}.csv", f"tables/{name}.tex"} <= names
    specs = re.search(r"const specs = (\{.*\});", (tmp_path / "report" / "index.html").read_text()).group(1)
    assert json.loads(specs)["confusion-full-1"]["title"]["text"] == "full"


def test_many_classes_and_runs_still_give_a_page(comparison, tmp_path):
    count = 120
    names = tuple(f"class {i}" for i in range(count))
    confusion = np.random.default_rng(0).integers(0, 9, (count, count))
    steps = pd.DataFrame({"kind": "step", "step": np.arange(1, 501), "epoch": 1, "loss": 0.5})
    records = [
        replace(record, run_id=f"{record.run_id}{seed}", seed=seed)
        for record in comparison.records
        for seed in range(60)
    ]
    many = replace(
        comparison,
        label_names=names,
        confusion=dict.fromkeys(comparison.confusion, confusion),
        classes={group: [{**rows[0], "label": name} for name in names] for group, rows in comparison.classes.items()},
        data={
            **comparison.data,
            "label_names": names,
            "splits": {s: {"examples": 9, "labels": [1] * count} for s in ("train", "test")},
        },
        records=tuple(records),
        histories={record.run_id: steps for record in records},
    )
    write_report(many, tmp_path)
    assert (tmp_path / "report" / "index.html").stat().st_size < 8e6


def test_encoders_are_named_where_there_are_several(comparison):
    rows = (*comparison.rows, replace(comparison.rows[0], group="full-2", model="other", difference=-0.01))
    both = replace(comparison, rows=rows, classes={**comparison.classes, "full-2": comparison.classes["full-1"]})
    assert [line[0] for line in tables.metrics(both)[1]] == ["full on m", "lora on m", "head on m", "full on other"]
    assert judged(rows).text.startswith("full on m scores best")


def test_an_unknown_cost_decides_nothing():
    rows = (row("full", 0.9, 100, True, costs={}), row("lora", 0.89, 40, True))
    assert "is not known for all" in judged(rows, cost="model_bytes").text


def test_a_report_without_any_success_still_says_why(comparison, tmp_path):
    empty = replace(comparison, rows=(), pairs=(), verdict=None, records=(), histories={}, confusion={}, classes={})
    write_report(empty, tmp_path)
    assert "No run succeeded" in (tmp_path / "report" / "index.html").read_text()
    assert "No run succeeded" in (tmp_path / "report.md").read_text()


def test_spreadsheets_see_no_formula(tmp_path):
    formats.write_csv(
        (["label", "x"], [["=SUM(A1)", "-0.013 (-0.02 to +0.01) tied"], ["@cmd", "+1.5"]]), tmp_path / "t.csv"
    )
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "label,x",
        "'=SUM(A1),-0.013 (-0.02 to +0.01) tied",
        "'@cmd,+1.5",
    ]


def test_latex_and_markdown_leave_text_as_it_is():
    assert (
        formats.latex_text("50 % & a_b $#{}~^\\<")
        == r"50 \% \& a\_b \$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}"
    )
    assert formats.markdown_text("a|b\n<i>*") == r"a\|b &lt;i&gt;\*"


def test_numbers_read_well():
    assert [formats.seconds(s) for s in (0.0, 0.01, 5.25, 300, 10_000)] == [
        "0.0 s",
        "< 0.1 s",
        "5.2 s",
        "5.0 min",
        "2.8 h",
    ]
    assert [formats.size(b) for b in (12, 4e3, 9.1e7, 2.5e9, None)] == ["12 B", "4.0 kB", "91.0 MB", "2.5 GB", "–"]
