"""A training under a limit of the system on memory: prints the halvings of the micro-batch, and the losses."""

import json
import resource
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from tests.tiny import WORDS, word_tokenizer
from tests.training import adapted_model
from tuneoff.data.tokens import tokenize_split
from tuneoff.engine.inputs import SplitInputs
from tuneoff.engine.loop import TrainingSettings, train
from tuneoff.engine.recipe import Recipe


def main(limit_megabytes):
    """Train three steps of 32 long texts."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 450)) for _ in range(96)]
    table = tokenize_split(pa.table({"text": texts, "label": np.arange(96) % 2}), word_tokenizer(), 400)
    adapted = adapted_model("full", num_labels=2, vocab_size=len(WORDS) + 5, max_position_embeddings=512)
    settings = TrainingSettings(Recipe(epochs=1, batch_size=32), 1e-3, 0, torch.float32)
    if limit_megabytes:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        in_use = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData")) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (in_use + limit_megabytes * 2**20,) * 2)
    trained = train(adapted, SplitInputs(table), settings, None)
    losses = [step["loss"] for step in trained.steps]
    print(json.dumps({"halvings": trained.halvings, "steps": trained.memory_steps, "losses": losses}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
