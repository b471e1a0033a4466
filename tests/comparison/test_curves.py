"""Learning curves: training on subsets of train, the points of a curve, and the advice that follows from it."""

import numpy as np
import pandas as pd
import pytest

from tests.comparison.rows import row
from tests.tiny import toy_texts
from tests.training import toy_model, toy_table, train_on_toy
from tuneoff.comparison.curves import Gain, advise
from tuneoff.data.tokens import TokenTable
from tuneoff.engine.inputs import SplitInputs
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.scoring import stats
from tuneoff.spec.file import study_from
from tuneoff.study import Study


@pytest.mark.parametrize(("num_examples", "passes", "steps"), [(16, 20, 60), (17, 10, 60), (100, 3, 63), (400, 1, 75)])
def test_small_data_gets_more_passes_per_epoch(num_examples, passes, steps):
    recipe = Recipe(epochs=3, batch_size=16, min_steps=60)
    assert recipe.passes(num_examples) == passes
    assert recipe.num_steps(num_examples) == steps
    assert Recipe(epochs=3).passes(num_examples) == 1


def test_training_on_a_subset_equals_training_on_a_table_of_its_examples():
    table, subset = toy_table(), np.arange(3, 40, 2)
    pieces = [table.ids[table.offsets[i] : table.offsets[i + 1]] for i in subset]
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
    ids, labels = np.concatenate(pieces), table.labels[subset]
    subset_table = TokenTable(ids, offsets, None, table.is_truncated[subset], labels, "subset", 0.0)
    losses = []
    for inputs in (SplitInputs(table, subset=subset), SplitInputs(subset_table)):
        trained = train_on_toy(toy_model("full"), 1e-3, epochs=2, inputs=inputs, min_steps=12)
        losses.append([step["loss"] for step in trained.steps])
        assert trained.examples == 2 * 2 * len(subset)  # two epochs of two passes
        assert len(trained.epochs) == 2
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-6)


def study_spec(encoder, source, **changes):
    defaults = {
        "name": "toy",
        "data": {"source": str(source), "validation_fraction": 0.2, "test_fraction": 0.2},
        "model": encoder,
        "strategies": ["probe", "head"],
        "recipe": {"epochs": 2, "batch_size": 4, "max_length": 16, "precision": "fp32"},
        "seeds": 2,
    }
    return study_from({**defaults, **changes})


@pytest.fixture(scope="module")
def studies(encoder, tmp_path_factory):
    """The same study without and with a learning curve, both run."""
    folder = tmp_path_factory.mktemp("studies")
    texts, labels = toy_texts(60, np.random.default_rng(0))
    pd.DataFrame({"text": texts, "label": labels}).to_csv(folder / "toy.csv", index=False)
    plain = Study(study_spec(encoder, folder / "toy.csv"), folder / "plain")
    curve = Study(study_spec(encoder, folder / "toy.csv", fractions=[0.5, 1.0], per_class=[4]), folder / "curve")
    plain.run()
    curve.run()
    return plain, curve


@pytest.mark.slow
def test_a_learning_curve_does_not_change_the_comparison(studies):
    plain, curve = (study.comparison() for study in studies)
    assert [(row.group, row.scores) for row in curve.rows] == [(row.group, row.scores) for row in plain.rows]
    assert len(curve.records) == len(plain.records)


@pytest.mark.slow
def test_a_curve_has_a_point_for_each_strategy_that_learns_and_each_subset(studies):
    comparison = studies[1].comparison()
    points = {(point.label, point.size): point for point in comparison.curve}
    assert {size for _, size in points} == {"4 per class", "50 %", "all"}
    assert ("majority", "50 %") not in points  # its curve is flat
    assert points["tfidf", "50 %"].seeds == 2  # each seed draws its own subset
    assert [points["head", size].examples for size in ("4 per class", "50 %", "all")] == [8, 18, 36]
    assert points["head", "all"].score == next(row.score for row in comparison.rows if row.label == "head")


@pytest.mark.slow
def test_runs_on_subsets_train_as_many_steps_as_on_all_of_train_and_save_no_model(studies):
    store = studies[1].store.runs
    records = [store.record(path.name) for path in store.folder.glob("head-*")]
    num_steps = [len(store.history(record.run_id).query("kind == 'step'")) for record in records]
    assert sorted(num_steps) == [18, 18, 20, 20, 20, 20]  # at least as many, in whole passes
    assert [(store.path(record.run_id) / "model").exists() for record in records] == [not r.is_subset for r in records]


@pytest.mark.slow
def test_the_report_shows_a_learning_curve_if_there_is_one(studies):
    has_section = [
        "Learning curves" in (study.folder / "report" / "index.html").read_text(encoding="utf-8") for study in studies
    ]
    assert has_section == [False, True]
    assert (studies[1].folder / "figures" / "learning-curve.svg").is_file()


@pytest.mark.slow
def test_the_interval_of_a_point_includes_the_variance_of_drawing_the_subset(encoder, tmp_path):
    texts, labels = toy_texts(1500, np.random.default_rng(0))
    pd.DataFrame({"text": texts, "label": labels}).to_csv(tmp_path / "large.csv", index=False)
    data = {"source": str(tmp_path / "large.csv"), "test_fraction": 0.8, "validation_fraction": 0.1}
    spec = study_spec(encoder, tmp_path, data=data, strategies=["tfidf"], per_class=[1], fractions=[0.02], seeds=4)
    study = Study(spec, tmp_path / "results")
    comparison = study.run()
    records = [record for record in comparison.subset_records if record.spec["subset"]["per_class"] == 1]
    assert len(records) == 4
    tables = [study.store.runs.predictions(record.run_id, "test") for record in records]
    scores = np.array([record.metrics["test"]["accuracy"] for record in records])
    predicted = [table["predicted"].to_numpy() for table in tables]
    probabilities = [table[["p0", "p1"]].to_numpy() for table in tables]
    resampled = stats.resampled_scores("accuracy", tables[0]["label"].to_numpy(), predicted, probabilities, seed=0)
    # as if the seed changed nothing, as for TF-IDF on all of train
    unseeded = stats.estimate_score(stats.RunScores(scores, resampled, (0, 1, 2, 3), is_seeded=False), 1200)
    low, high = stats.interval(unseeded, (0.0, 1.0))
    point = next(point for point in comparison.curve if (point.label, point.size) == ("tfidf", "1 per class"))
    assert point.interval[1] - point.interval[0] > 1.2 * (high - low)


@pytest.mark.parametrize(
    ("gain", "interval", "full_score", "metric", "expected"),
    [
        (0.06, (0.03, 0.09), 0.85, "accuracy", "The best strategy, full, is 0.050 better: if the learning curve continues, twice the labels would help more."),
        (0.02, (0.01, 0.03), 0.85, "accuracy", "The best strategy, full, is 0.050 better: if the learning curve continues, twice the labels would help less."),
        (0.02, (-0.01, 0.05), 0.85, "accuracy", "It is not shown that more labels help LoRA."),
        (-0.02, (-0.05, 0.01), 0.85, "accuracy", "It is not shown that more labels help LoRA."),
        (0.02, (0.01, 0.03), 0.7, "accuracy", "No other strategy scores higher: if the learning curve continues, more labels would help."),
        (-0.2, (-0.3, -0.1), 0.75, "log_loss", "The best strategy, full, is 0.050 better: if the learning curve continues, twice the labels would help more."),
    ],
)  # fmt: skip
def test_advice_compares_more_labels_with_the_best_strategy(gain, interval, full_score, metric, expected):
    rows = [row("lora", 0.8, 40, label="LoRA"), row("full", full_score, 100)]
    gains = {row.group: Gain(gain, interval, 100, 400) for row in rows}
    advice = advise(rows, gains, "lora-1", metric)
    low, high = interval
    assert advice == (
        f"Each doubling of the training examples from 100 to 400 changed {metric.replace('_', ' ')} of LoRA by "
        f"{gain:+.3f} (95 % confidence interval {low:+.3f} to {high:+.3f}). {expected}"
    )


def test_without_a_curve_of_the_recommended_strategy_there_is_no_advice():
    rows = [row("majority", 0.8, 0.1, model=None)]
    assert advise(rows, {}, "majority-1", "accuracy") == ""


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
def test_sizes_of_subsets_that_are_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        study_from({"data": {"source": "x"}, **changes})
