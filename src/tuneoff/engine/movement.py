"""How far training moved an encoder's representations: CKA of each layer with the pretrained encoder.

What a fine-tuned encoder has forgotten of its pretraining task cannot be measured without that task. CKA between the
pretrained and the tuned encoder, on the same texts, says how far each layer is from where it started.

# N examples  W sequences (windows of long texts; else W = N)  L layers, the embeddings first  H hidden
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuneoff.cache import cached_folder, fingerprint
from tuneoff.data.batches import PackedBatch, length_sorted_batches, pack
from tuneoff.data.tokens import TokenTable
from tuneoff.encoder.anatomy import blocks, is_packed
from tuneoff.encoder.attention import build_packing
from tuneoff.encoder.packed import embed, padded_layers, pool, run_blocks
from tuneoff.engine.inputs import EVALUATION_TOKENS, average_windows
from tuneoff.engine.precision import inference
from tuneoff.scoring.similarity import linear_cka

# of the test split; the estimate has no bias, and more texts take as much time as predicting them in fp32
NUM_EXAMPLES = 128
_MIN_EXAMPLES = 4  # for which CKA is defined


def movement(
    model: Any, load_pretrained: Callable[[], Any], table: TokenTable, rows: np.ndarray, model_fingerprint: str
) -> dict[str, Any]:
    """Compare the layers of a trained encoder with those of the pretrained one, on the first of some examples.

    rows: of the token table. The representation of a text in a layer is the mean over its tokens, in fp32. Those of the
    pretrained encoder are computed once and cached. Returns examples, cka (of the embeddings and each block; null where
    it is not defined) and seconds; {} for too few examples. The random generators are left as they were.
    """
    if len(rows) < _MIN_EXAMPLES:
        return {}
    # spread over the split, which may be sorted
    chosen = rows[np.linspace(0, len(rows) - 1, min(NUM_EXAMPLES, len(rows))).round().astype(int)]
    started = time.perf_counter()
    with torch.random.fork_rng():
        tuned = layer_vectors(model, table, chosen)

        def write(into: Path) -> None:
            np.save(into / "layers.npy", layer_vectors(load_pretrained(), table, chosen))

        key = fingerprint(model_fingerprint, table.fingerprint, chosen.tolist())
        pretrained = np.load(cached_folder(f"layers-{key}", write) / "layers.npy")
    cka = [linear_cka(before, after) for before, after in zip(pretrained, tuned, strict=True)]
    return {"examples": len(chosen), "cka": cka, "seconds": time.perf_counter() - started}


def layer_vectors(model: Any, table: TokenTable, examples: np.ndarray) -> np.ndarray:
    """Mean over the tokens of each example, after the embeddings and after each block. (L, N, H) float32."""
    vectors = np.empty((len(blocks(model)) + 1, len(examples), model.config.hidden_size), np.float32)
    was_training, where = model.training, next(model.parameters()).device
    model.eval()
    with inference():
        for indices in length_sorted_batches(table.lengths[examples], EVALUATION_TOKENS):
            batch = pack(table, examples[indices]).to(where)
            for layer, states in enumerate(_layers(model, batch)):
                pooled = pool(model, states, batch, "mean")[:, 0]
                vectors[layer, indices] = average_windows(pooled, batch).cpu().numpy()
    model.train(was_training)
    return vectors


def _layers(model: Any, batch: PackedBatch) -> list[torch.Tensor]:
    """Return the output of the embeddings and of each block, (1, T, H) each."""
    if not is_packed(model.config):
        return padded_layers(model, batch)
    packing, states = build_packing(batch), embed(model, batch)
    layers = [states]
    for block in range(len(blocks(model))):
        states = run_blocks(model, states, batch, block, block + 1, packing)
        layers.append(states)
    return layers
