"""A step under a real limit of the system on memory."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tuneoff.engine.master_weights import EmbeddingRows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's")]


def train_within(megabytes):
    command = [sys.executable, "-m", "tests.engine.limited_memory", str(megabytes)]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)


def test_a_training_that_lacks_memory_goes_on_in_smaller_micro_batches():
    finished = train_within(220)  # 300 MB are enough; at 150 too little is left for the allocator when it is unlucky
    assert finished.returncode == 0, finished.stderr
    trained = json.loads(finished.stdout.splitlines()[-1])
    assert trained["halvings"] >= 1
    assert 1 in trained["steps"]
    assert len(trained["losses"]) == 3


def test_a_text_that_does_not_fit_in_memory_is_one_clear_error():
    last = train_within(5).stderr.strip().splitlines()[-1]
    assert "out of memory at step 1 with one example at a time; use a shorter max_length" in last


def test_masters_of_an_embedding_hold_no_copy_of_all_tokens():
    ids = np.zeros(2**23, np.int32)
    ids[-1] = 3
    embedding = nn.Embedding(5, 2)
    tracemalloc.start()
    try:
        rows = EmbeddingRows(embedding, embedding.weight.data, ids)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows.master.tolist() == embedding.weight.data[[0, 3]].tolist()
    assert peak < ids.nbytes / 2
