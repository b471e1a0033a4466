"""Findings of the doctor on five real datasets; skipped where they are absent."""

import os
from pathlib import Path

import numpy as np
import pytest

from tuneoff.data.doctor.checks import examine
from tuneoff.data.doctor.copies import copies_of, scored_codes
from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec

# next to the repository, or where the variable says
FOLDER = Path(os.environ.get("TUNEOFF_REAL_DATA", Path(__file__).parents[4] / "shared" / "data"))
SST2_LEAK = "3,698 of 6,735 test examples are also in train, 2,111 of them nearly, 207 with another label"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_leaked", "num_repeated", "most_harmful"),
    [
        ("rotten_tomatoes", 0, 0, "duplicates in train: 2 of 8,530 examples repeat an earlier one"),
        # phrases of parsed sentences; test is held out, so that most of its phrases are parts of training phrases
        ("sst2", 3698, 59, f"leakage from train into test: {SST2_LEAK}"),
        ("snli", 0, 43, "duplicates in test: 43 of 9,824 examples repeat an earlier one, 43 of them nearly"),
        (
            "tweet_eval_sentiment", 0, 35,
            "leakage from train into validation: 39 of 2,000 validation examples are also in train, 31 of them nearly, "
            "8 with another label",
        ),
        ("imdb", 124, 216, "duplicates in test: 216 of 25,000 examples repeat an earlier one, 16 of them nearly"),
    ],
)  # fmt: skip
def test_findings_of_real_sets(name, num_leaked, num_repeated, most_harmful):
    if not (FOLDER / name).is_dir():
        pytest.skip(f"no {name} in {FOLDER}")
    dataset = load_dataset(DataSpec(source=str(FOLDER / name)))
    copies = copies_of(dataset.splits)
    findings = examine(dataset, copies)
    assert f"{findings[0].kind}: {findings[0].text}" == most_harmful
    codes = np.bincount(scored_codes(dataset, copies), minlength=3)
    assert codes[1:].tolist() == [num_leaked, num_repeated]
    if name == "sst2":
        clean = load_dataset(DataSpec(source=str(FOLDER / name), drop_leaks=True))
        assert not any("leakage" in finding.kind for finding in examine(clean))
