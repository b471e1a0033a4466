"""Records of a race: stored and read back, stops, looks, and what was left out."""

import json
from dataclasses import asdict

from tuneoff.search.race_record import GOES_ON, REPEAT, STOPPED, TRIAL, RaceRecord, Round, Standing, last_standings


def standing(label, state, runs=1):
    return Standing(label, "m", runs, 0.8, state, "because", chance=0.5)


def race():
    first = Round("first trial", TRIAL, (standing("a", GOES_ON, 0), standing("b", STOPPED, 0)), 10.0)
    seeds = [Round(f"seed {seed}", REPEAT, (standing("a", GOES_ON),), 20.0 + seed) for seed in (0, 1)]
    return RaceRecord("key", 3, rounds=(first, *seeds), phases={"trial": 10.0})


def test_a_race_is_read_as_it_was_stored():
    record = race().with_left_out("a", "m", REPEAT, "seed 2", 12.0)
    assert RaceRecord.from_json(json.loads(json.dumps(asdict(record)))) == record


def test_stopped_strategies_have_their_round_and_reason():
    ((key, (entry, decision)),) = race().stopped.items()
    assert key == ("b", "m")
    assert entry.name == "first trial"
    assert decision.reason == "because"
    assert [s.label for s in last_standings(race())] == ["a"]


def test_a_round_that_is_decided_again_is_another_look():
    assert race().num_looks == 3
    again = race().after(Round("seed 1", REPEAT, (standing("a", GOES_ON),), 40.0))
    assert again.num_looks == 4


def test_left_out_runs_of_one_strategy_are_joined():
    record = race().with_left_out("a", "m", REPEAT, "seed 1", 5.0).with_left_out("a", "m", REPEAT, "seed 2", 5.0)
    (entry,) = record.left_out
    assert entry.names == ("seed 1", "seed 2")
    assert entry.seconds == 10.0
