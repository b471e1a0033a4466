"""What a plan foretells, where it can be known without a clock."""

import pytest

from tuneoff.data.batches import largest_batch, training_order
from tuneoff.spec import study_from
from tuneoff.study import Study, estimates, prepare, search_jobs


@pytest.fixture
def prepared(encoder, toy_csv):
    """The runs and searches of a small study, before any is made."""
    spec = study_from(
        {
            "name": "toy",
            "data": {"source": str(toy_csv), "validation_fraction": 0.2, "test_fraction": 0.2},
            "model": encoder,
            "strategies": ["probe", "head", "partial:layers=1", "lora", "full"],
            "recipe": {"epochs": 4, "batch_size": 4, "max_length": 16},
            "seeds": 1,
            "fractions": [0.5],
            "search": 3,
        }
    )
    return spec, prepare(spec)


def found(prepared):
    return {e.run.title: e for e in estimates(prepared[1], prepared[1].runs)}


def test_more_work_is_foretold_for_what_trains_more(prepared):
    plan = found(prepared)
    work = [plan[f"{name} seed 0"].operations for name in ("head", "partial layers=1", "lora", "full")]
    assert work == sorted(work)
    assert plan["lora on 50 % seed 0"].run.recipe.min_steps == 36  # as all of train
    assert plan["full seed 0"].memory_bytes > plan["lora seed 0"].memory_bytes > plan["head seed 0"].memory_bytes


def test_states_of_frozen_blocks_are_foretold_once(prepared, tmp_path):
    plan, _ = Study(prepared[0], tmp_path / "results").plan()
    paying = [e.run.title for e in plan if e.shared_operations and e.frozen_blocks == 2]
    assert len(paying) == 1


def test_checkpointing_and_parts_of_a_batch_need_less_memory(prepared):
    spec, _ = prepared
    needs = []
    for changes in ({}, {"checkpointing": True}, {"accumulation": 4}):
        recipe = spec.recipe.model_copy(update={**changes, "max_length": 16})
        changed = spec.model_copy(update={"recipe": recipe, "search": None})
        one = prepare(changed)
        needs.append({e.run.title: e for e in estimates(one, one.runs)}["full seed 0"].memory_bytes)
    assert needs[0] > needs[1]
    assert needs[0] > needs[2]


def test_a_search_is_its_trials_of_which_half_are_stopped(prepared):
    spec, ready = prepared
    jobs = {e.run.title: e for e in estimates(ready, search_jobs(spec, ready))}
    runs = found(prepared)
    # four epochs: all of the first trial, then 1, 1/2, 1/4 and 1/4 of an epoch's worth
    assert jobs["full search"].operations == pytest.approx(runs["full seed 0"].operations * (1 + 2 * 2 / 4))
    assert jobs["probe search"].operations > runs["probe seed 0"].operations
    assert jobs["full search"].disk_bytes == 0


def test_the_largest_batch_is_that_of_the_first_epoch(prepared):
    table = next(iter(prepared[1].tokens.values()))["train"]
    sizes = [int(table.lengths[batch].sum()) for batch in training_order(table.lengths, 4, 0, 0)]
    assert largest_batch(table, 4) == max(sizes)
