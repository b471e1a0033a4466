"""Sources of randomness that vary apart: parsing, the grid of runs, and what each source changes."""

import itertools

import numpy as np
import pandas as pd
import pytest

from tests.studies import changed, toy_spec
from tuneoff.cli.options import parse_seeds as parse_option
from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec
from tuneoff.data.splits import parts_of
from tuneoff.errors import ConfigError
from tuneoff.execute.fit import fit
from tuneoff.execute.inputs import CachedInputs
from tuneoff.grid import prepare
from tuneoff.seeds import cell_number, crossed, parse_seeds
from tuneoff.spec.file import read_study, study_from, write_study
from tuneoff.spec.run import Job, RunSpec


def lora_run(**changes):
    fields = {"strategy": "lora", "model": "m", "model_fingerprint": "f", "data_fingerprint": "d"}
    return RunSpec.model_validate({**fields, "recipe": {}, "metric": "accuracy", "seed": 0, **changes})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (2, (0, 1)),
        ([1, 42], (1, 42)),
        ({"order": 2, "head": [0, 7]}, {"head": (0, 7), "order": (0, 1)}),
    ],
)
def test_seeds_are_a_number_a_list_or_such_for_each_source(given, expected):
    assert parse_seeds(given) == expected
    assert parse_seeds(expected) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"haed": 2},
            r"seeds: source 'haed' is unknown; did you mean 'head'\? Choose from head, order, dropout, split",
        ),
        ({"head": 0}, "seeds: head: no value; give at least 1"),
        ({}, "seeds: no source; name one or more of head, order, dropout, split"),
        ({"head": "three"}, "seeds: head 'three': write a number of seeds such as 3, or the seeds themselves"),
        ([1, -2], "seeds .*: write a number of seeds such as 3"),
        (True, "seeds True: write a number"),
    ],
)
def test_wrong_seeds_raise_one_line(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        study_from({"data": {"source": "x"}, "seeds": given})
    assert "\n" not in str(caught.value)


def test_the_option_reads_sources():
    assert parse_option("head=3, order=1+42") == {"head": 3, "order": [1, 42]}
    with pytest.raises(ConfigError, match="write 3, 1,2,42 or head=3,order=3"):
        parse_option("head=x")


def test_seeds_by_source_do_not_go_with_folds_or_a_learning_curve():
    for fields, message in (
        ({"evaluate": {"folds": 5}}, "do not go with 5 folds"),
        ({"fractions": [0.5]}, "learning curve"),
    ):
        with pytest.raises(ConfigError, match=message):
            study_from({"data": {"source": "x"}, "seeds": {"head": 2}, **fields})


def test_a_study_with_seeds_by_source_reads_back_the_same(tmp_path):
    spec = study_from({"data": {"source": "x"}, "name": "mine", "seeds": {"head": 2, "dropout": [3]}}).resolved(None)
    assert spec.seeds == {"head": (0, 1), "dropout": (3,)}
    write_study(spec, tmp_path / "study.yaml")
    assert read_study(str(tmp_path / "study.yaml")) == spec


@pytest.mark.parametrize("num_sources", [1, 2, 3])
def test_a_cell_keeps_its_number_when_the_grid_grows(num_sources):
    for size in (1, 2, 3):
        seeds = {f"source {index}": tuple(range(size)) for index in range(num_sources)}
        numbers = [cell_number(cell) for cell in crossed(seeds, list(seeds))]
        assert sorted(numbers) == list(range(size**num_sources))


def test_cells_of_any_seeds_have_numbers_of_their_own():
    cells = crossed({"head": (3, 0, 11), "order": (5, 42), "dropout": (0, 7)}, ["head", "order", "dropout"])
    assert len({cell_number(cell) for cell in cells}) == len(cells) == 12


def test_runs_of_a_grid_share_a_group_of_their_own():
    first, second = (
        lora_run(sources={"head": 0, "order": order}, seed=cell_number({"head": 0, "order": order})) for order in (0, 1)
    )
    assert first.group == second.group != lora_run().group
    assert first.group != lora_run(sources={"head": 0}).group
    assert (first.run_id, second.run_id) == (f"{first.group}-s0", f"{first.group}-s1")
    assert Job(run=second).title == "lora seeds head 0, order 1"


def test_a_source_that_is_not_named_stays_at_0_and_a_plain_seed_is_of_all():
    assert [lora_run(sources={"order": 2}, seed=2).seed_of(source) for source in ("head", "order", "dropout")] == [
        0,
        2,
        0,
    ]
    assert [lora_run(seed=2).seed_of(source) for source in ("head", "order", "dropout")] == [2, 2, 2]


@pytest.fixture
def runs(encoder, toy_csv):
    """The runs of a study by strategy, on a grid of two heads and two orders."""
    names = ["tfidf", "untrained", "probe", "head", "lora"]
    prepared = prepare(toy_spec(encoder, toy_csv, strategies=names, seeds={"head": 2, "order": 2}))
    return {name: [run for run in prepared.runs if run.strategy.name == name] for name in names}


def test_a_strategy_runs_with_the_combinations_of_the_sources_that_change_it(runs):
    grid = [{"head": head, "order": order} for head, order in itertools.product((0, 1), (0, 1))]
    for name, expected in (("lora", grid), ("untrained", [{"head": 0}, {"head": 1}]), ("probe", [{}]), ("tfidf", [{}])):
        assert [run.sources for run in runs[name]] == expected
    assert [run.seed for run in runs["lora"]] == [0, 1, 2, 3]


def test_runs_that_ignore_seeds_are_those_of_a_study_with_plain_seeds(runs, encoder, toy_csv):
    plain = prepare(toy_spec(encoder, toy_csv, strategies=["tfidf", "probe"], seeds=3)).runs
    assert [run.run_id for run in plain] == [run.run_id for name in ("tfidf", "probe") for run in runs[name]]


@pytest.fixture
def probabilities(encoder, toy_csv):
    """Function: the test probabilities of a LoRA run with some seeds."""
    recipe = {"epochs": 1, "batch_size": 4, "max_length": 16, "precision": "fp32"}
    spec = toy_spec(encoder, toy_csv, strategies=["lora:learning_rate=0.05"], recipe=recipe, seeds=1)
    prepared = prepare(spec)

    def fitted(**changes):
        run = prepared.runs[0].model_copy(update=changes)
        return fit(run, prepared.dataset, CachedInputs(), ("validation", "test")).probabilities["test"]

    return fitted


def test_each_source_changes_a_run_and_all_of_them_together_are_the_plain_seed(probabilities):
    plain = probabilities(seed=1)
    together = probabilities(seed=99, sources={"head": 1, "order": 1, "dropout": 1})
    np.testing.assert_array_equal(plain, together)
    # seed 0 of every source, then each of them alone at 1
    alone = [
        probabilities(sources={source: level})
        for source, level in (("head", 0), ("head", 1), ("order", 1), ("dropout", 1))
    ]
    np.testing.assert_array_equal(alone[0], probabilities(seed=0))
    for first, second in itertools.combinations([plain, *alone], 2):
        assert not np.array_equal(first, second)


@pytest.mark.slow
def test_a_larger_grid_runs_only_the_new_combinations(small):
    study = changed(small, seeds={"head": 1, "order": 2})
    assert [len(row.seeds) for row in sorted(study.run().rows, key=lambda row: row.strategy)] == [2, 1]
    started = []
    changed(study, seeds={"head": 2, "order": 2}).run(
        lambda event: started.append(event.job.run.sources) if event.kind == "started" else None
    )
    assert sorted(map(str, started)) == ["{'head': 1, 'order': 0}", "{'head': 1, 'order': 1}"]


@pytest.fixture
def divided(encoder, toy_csv):
    """A study whose runs differ in the division into train and validation, prepared."""
    names = ["majority", "tfidf", "untrained", "probe", "head"]
    return prepare(toy_spec(encoder, toy_csv, strategies=names, seeds={"head": 2, "split": 3}))


def test_every_strategy_that_learns_runs_on_each_division_of_train_and_validation(divided):
    sources = {name: [run.sources for run in divided.runs if run.strategy.name == name] for name in ("tfidf", "head")}
    assert sources["tfidf"] == [{"split": 0}, {"split": 1}, {"split": 2}]
    assert sources["head"] == crossed({"head": (0, 1), "split": (0, 1, 2)}, ["head", "split"])
    assert {tuple(run.sources) for run in divided.runs if run.strategy.name == "untrained"} == {("head",)}
    (majority,) = [run for run in divided.runs if run.strategy.name == "majority"]
    assert majority.sources == {}
    assert list(fit(majority, divided.dataset, CachedInputs()).probabilities) == ["validation", "test"]


def test_a_division_leaves_test_and_the_sizes_as_they_are(divided, encoder, toy_csv):
    plain = prepare(toy_spec(encoder, toy_csv)).dataset
    assert divided.dataset.splits["test"].equals(plain.splits["test"])
    by_seed = [parts_of(divided.dataset, division=seed) for seed in range(3)]
    for purpose in ("train", "validation"):
        assert by_seed[0][purpose].table(divided.dataset)["text"].equals(plain.splits[purpose]["text"])
        assert {parts[purpose].num_examples(divided.dataset) for parts in by_seed} == {plain.num_examples(purpose)}
    rows = [tuple(parts["validation"].row_numbers(divided.dataset)) for parts in by_seed]
    assert len(set(rows)) == 3
    for parts in by_seed:
        both = np.concatenate([parts[purpose].row_numbers(divided.dataset) for purpose in ("train", "validation")])
        np.testing.assert_array_equal(np.sort(both), np.arange(divided.dataset.num_examples("train")))


def test_the_stored_division_gives_the_scores_of_a_study_with_plain_seeds(divided, encoder, toy_csv):
    plain = prepare(toy_spec(encoder, toy_csv, strategies=["tfidf", "probe"]))

    def on_test(prepared, name, division=0):
        runs = [run for run in prepared.runs if run.strategy.name == name and run.division == division]
        return fit(runs[0], prepared.dataset, CachedInputs(), ("validation", "test")).probabilities["test"]

    for name in ("tfidf", "probe"):
        np.testing.assert_allclose(on_test(divided, name, 0), on_test(plain, name), atol=1e-6)
        assert not np.allclose(on_test(divided, name, 0), on_test(divided, name, 1))


def test_groups_stay_whole_in_each_division(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"text {row} {rng.integers(1000)}", row % 2, f"author {row // 6}") for row in range(300)]
    path = tmp_path / "groups.csv"
    pd.DataFrame(rows, columns=["text", "label", "author"]).to_csv(path, index=False)
    dataset = load_dataset(DataSpec(source=str(path), group="author"), pools=True)
    groups = dataset.splits["train"]["group"].to_numpy(zero_copy_only=False)
    for seed in range(4):
        parts = parts_of(dataset, division=seed)
        train, validation = (set(groups[parts[purpose].row_numbers(dataset)]) for purpose in ("train", "validation"))
        assert validation
        assert not train & validation


@pytest.mark.slow
def test_a_study_shows_how_much_of_the_variance_the_division_explains(small):
    comparison = changed(small, seeds={"split": 3}).run()
    assert {row.repeats for row in comparison.rows} == {"3 seeds"}
    assert comparison.variance is not None
    assert comparison.variance.pooled is not None
    assert list(comparison.variance.pooled.sd_by_source) == ["split"]
    assert all(measured.temperature for measured in comparison.calibration.values())
