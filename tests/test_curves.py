"""Learning curves: which examples a part of train is, what training on it is, and what the curve says."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.strategies.test_contract import adapted_model, toy_table
from tests.tiny import toy_texts
from tuneoff import stats
from tuneoff.comparison.curve import Gain, advise
from tuneoff.data.carve import check_subset
from tuneoff.data.dataset import DataSpec
from tuneoff.data.encode import TokenTable
from tuneoff.data.load import load_dataset
from tuneoff.data.splits import Subset
from tuneoff.engine.feed import Feed, predict
from tuneoff.engine.loop import train
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.metrics import evaluate
from tuneoff.spec import study_from
from tuneoff.study import Study

LABELS = np.array([0] * 60 + [1] * 30 + [2] * 10)


def test_a_fraction_keeps_classes_in_proportion_and_holds_the_smaller_ones():
    parts = [Subset(fraction=share).of(LABELS, seed=1) for share in (0.1, 0.2, 0.5)]
    assert [np.bincount(LABELS[part]).tolist() for part in parts] == [[6, 3, 1], [12, 6, 2], [30, 15, 5]]
    assert set(parts[0]) < set(parts[1]) < set(parts[2])
    assert set(parts[0]) != set(Subset(fraction=0.1).of(LABELS, seed=2))


def test_so_many_a_class_are_so_many_of_each():
    few, more = (Subset(per_class=count).of(LABELS, seed=0) for count in (2, 8))
    assert np.bincount(LABELS[few]).tolist() == [2, 2, 2]
    assert np.bincount(LABELS[more]).tolist() == [8, 8, 8]
    assert set(few) < set(more)


@pytest.mark.parametrize(("num_examples", "passes", "steps"), [(16, 20, 60), (17, 10, 60), (100, 3, 63), (400, 1, 75)])
def test_small_data_is_passed_over_more_often(num_examples, passes, steps):
    recipe = Recipe(epochs=3, batch_size=16, min_steps=60)
    assert recipe.passes(num_examples) == passes
    assert recipe.num_steps(num_examples) == steps
    assert Recipe(epochs=3).passes(num_examples) == 1


def test_training_on_a_part_is_training_on_a_table_that_holds_no_more():
    table, chosen = toy_table(), np.arange(3, 40, 2)
    pieces = [table.ids[table.offsets[i] : table.offsets[i + 1]] for i in chosen]
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
    alone = TokenTable(
        np.concatenate(pieces), offsets, None, table.is_truncated[chosen], table.labels[chosen], "alone", 0.0
    )
    losses = []
    for feed in (Feed(table, chosen=chosen), Feed(alone)):
        adapted = adapted_model("full", num_labels=2, vocab_size=24)

        def validate(model=adapted.model):
            answers = torch.from_numpy(predict(model, Feed(table))).softmax(-1).numpy()
            return evaluate(table.labels, answers.argmax(1), answers)

        recipe = Recipe(epochs=2, batch_size=8, min_steps=12)
        trained = train(adapted, feed, recipe, 1e-3, 0, torch.float32, validate, "accuracy")
        losses.append([step["loss"] for step in trained.steps])
        assert trained.examples == 4 * len(chosen)  # two passes an epoch
        assert len(trained.epochs) == 2
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-6)


def study_spec(encoder, toy_csv, **changes):
    given = {
        "name": "toy",
        "data": {"source": str(toy_csv), "validation_fraction": 0.2, "test_fraction": 0.2},
        "model": encoder,
        "strategies": ["probe", "head"],
        "recipe": {"epochs": 2, "batch_size": 4, "max_length": 16, "precision": "fp32"},
        "seeds": 2,
    }
    return study_from({**given, **changes})


@pytest.mark.slow
def test_a_study_with_a_curve_is_the_study_without_it_and_the_curve(encoder, toy_csv, tmp_path):
    plain = Study(study_spec(encoder, toy_csv), tmp_path / "plain").run()
    curve = Study(study_spec(encoder, toy_csv, fractions=[0.5, 1.0], per_class=[4]), tmp_path / "curve")
    comparison = curve.run()
    assert [(row.group, row.scores) for row in comparison.rows] == [(row.group, row.scores) for row in plain.rows]
    assert len(comparison.records) == len(plain.records)
    points = {(point.label, point.size): point for point in comparison.curve}
    assert {size for _, size in points} == {"4 a class", "50 %", "all"}
    assert ("majority", "50 %") not in points  # its curve is flat
    assert points["tfidf", "50 %"].seeds == 2  # each with examples of its own
    assert [points["head", size].examples for size in ("4 a class", "50 %", "all")] == [8, 18, 36]
    assert points["head", "all"].score == next(row.score for row in plain.rows if row.label == "head")
    page = (curve.folder / "report" / "index.html").read_text()
    assert "Learning curves" in page
    assert "Learning curves" not in (tmp_path / "plain" / "report" / "index.html").read_text()
    assert (curve.folder / "figures" / "learning-curve.svg").is_file()
    parts = [run for run in (curve.folder / "runs").iterdir() if run.name.startswith("head")]
    steps = [len(curve.store.history(run.name).query("kind == 'step'")) for run in parts]
    assert sorted(steps) == [18, 18, 20, 20, 20, 20]  # a part trains as long as all of train, in whole passes
    assert not any((run / "model").exists() for run in parts if '"subset": {' in (run / "run.json").read_text())


@pytest.mark.slow
def test_intervals_of_parts_hold_the_luck_of_the_draw(encoder, tmp_path):
    texts, labels = toy_texts(1500, np.random.default_rng(0))
    pd.DataFrame({"text": texts, "label": labels}).to_csv(tmp_path / "large.csv", index=False)
    data = {"source": str(tmp_path / "large.csv"), "test_fraction": 0.8, "validation_fraction": 0.1}
    spec = study_spec(encoder, tmp_path, data=data, strategies=["tfidf"], per_class=[1], fractions=[0.02], seeds=4)
    study = Study(spec, tmp_path / "results")
    comparison = study.run()
    parts = [record for record in comparison.parts if record.spec["subset"]["per_class"] == 1]
    tables = [study.store.predictions(record.run_id, "test") for record in parts]
    scores = np.array([record.metrics["test"]["accuracy"] for record in parts])
    answers = [
        [table["predicted"].to_numpy() for table in tables],
        [table[["p0", "p1"]].to_numpy() for table in tables],
    ]
    resampled = stats.resampled_scores("accuracy", tables[0]["label"].to_numpy(), *answers, seed=0)
    # as if the draw changed nothing, as it is with all of train
    low, high = stats.interval(stats.measure(stats.Runs(scores, resampled, (0, 1, 2, 3), False), 1200), (0.0, 1.0))
    found = next(point.interval for point in comparison.curve if (point.label, point.size) == ("tfidf", "1 a class"))
    assert len(parts) == 4
    assert found[1] - found[0] > 1.2 * (high - low)


def row(group, score):
    return SimpleNamespace(group=group, score=score)


def said(gain, interval, others=(("b", 0.85),), metric="accuracy"):
    rows = [row("a", 0.8), *(row(*other) for other in others)]
    gains = {found.group: Gain(gain, interval, 100, 400) for found in rows}
    return advise(rows, gains, {"a": "LoRA", "b": "full"}, "a", metric)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (said(0.06, (0.03, 0.09)), "The best strategy, full, is 0.050 better: if curves go on, more labels would help more."),
        (said(0.02, (0.01, 0.03)), "The best strategy, full, is 0.050 better: if curves go on, it helps more than twice the labels would."),
        (said(0.02, (-0.01, 0.05)), "That more labels help it at all is not shown."),
        (said(0.02, (0.01, 0.03), others=[("b", 0.7)]), "No other strategy scores higher: if its curve goes on, more labels are what would help."),
        (said(-0.2, (-0.3, -0.1), others=[("b", 0.75)], metric="log_loss"), "The best strategy, full, is 0.050 better: if curves go on, more labels would help more."),
    ],
)  # fmt: skip
def test_the_curve_says_what_would_help_more(text, ends):
    assert text.startswith("From 100 to 400 training examples LoRA gained +")
    assert text.endswith(ends)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": [0.0]}, "fraction 0 of train is not above 0 and at most 1; write 0.05 for 5 %"),
        ({"fractions": [5]}, "fraction 5 of train is not above 0 and at most 1"),
        ({"fractions": ["few"]}, "fractions.0: .*not 'few'"),
        ({"fractions": ["5%"]}, "fraction '5%' of train is not a number; write 0.05 for 5 %"),
        ({"per_class": [0]}, "greater than or equal to 1"),
    ],
)
def test_parts_that_make_no_sense_are_one_line(changes, message):
    with pytest.raises(ConfigError, match=message):
        study_from({"data": {"source": "x"}, **changes}).subsets  # noqa: B018


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"fraction": 0.03}, "fraction 0.03 of 36 training examples leaves out class 'positive'; give a larger one"),
        ({"per_class": 19}, "per_class 19: train has only 18 examples of 'negative'; give at most so many"),
    ],
)
def test_parts_that_the_data_cannot_give_are_one_line(part, message, toy_csv):
    dataset = load_dataset(DataSpec(source=str(toy_csv), validation_fraction=0.2, test_fraction=0.2))
    with pytest.raises(ConfigError, match=message):
        check_subset(dataset, Subset(**part))
