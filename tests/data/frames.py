"""Small labelled data as pandas frames, and datasets loaded from them."""

import numpy as np
import pandas as pd

from tests.tiny import WORDS
from tuneoff.data.load import load_dataset
from tuneoff.data.sources import from_memory, store_in_cache
from tuneoff.data.spec import DataSpec

MULTILABEL_NAMES = ("good", "film", "rare")


def load(data, **options):
    """Load a dataset from a frame, or from a mapping of splits to frames. options: fields of DataSpec."""
    return load_dataset(DataSpec(source=store_in_cache(from_memory(data)), **options))


def frame(labels, texts=None, **columns):
    """One example per label; texts differ unless they are set."""
    return pd.DataFrame({"text": texts or [f"text {i}" for i in range(len(labels))], "label": labels, **columns})


def multilabel_frame(count, seed=0):
    """Multi-label examples whose words determine their labels, each drawn independently; some have none."""
    rng = np.random.default_rng(seed)
    has_label = rng.random((count, 3)) < [0.5, 0.4, 0.2]
    words = np.array([WORDS[:3], WORDS[3:6]]).T  # of the tiny encoder's vocabulary; a pair of words for each label
    texts = [" ".join(words[i][0 if row[i] else 1] for i in range(3)) for row in has_label]
    texts = [f"{text} {' '.join(WORDS[-1 - n % 3 :])}" for n, text in enumerate(texts)]
    labels = [[name for name, is_set in zip(MULTILABEL_NAMES, row, strict=True) if is_set] for row in has_label]
    return pd.DataFrame({"text": texts, "labels": labels})


def examples_of(dataset):
    """Sorted pairs of text and label name from all splits of a single-label dataset."""
    return sorted(
        (text, dataset.label_names[label])
        for table in dataset.splits.values()
        for text, label in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)
    )
