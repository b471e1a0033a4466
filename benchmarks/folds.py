"""Five folds against one split on real texts: loss of the pick, width of intervals, and whether they hold the truth.

Five cheap strategies (linear classifiers on frozen embeddings and on TF-IDF) are compared on a small sample of labelled
texts, with five folds or with a test split of a tenth. The other texts are the truth: the accuracy of each strategy,
trained on the whole sample, on all of them. Both ways train each strategy as often as they need to: the strategies do
not depend on a seed, so that one split takes one training, and five would give the same model.

# K strategies  N labelled examples
"""

import argparse
import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from tuneoff.data.splits import stratified_split
from tuneoff.data.tokens import tokenize_split
from tuneoff.encoder.config import load_tokenizer, model_fingerprint
from tuneoff.encoder.load import load_model
from tuneoff.engine.inputs import embeddings
from tuneoff.scoring import stats

MODEL, NUM_FOLDS = "packaged:minilm", 5
Classifier = Callable[[], object]


def _logistic(C: float) -> Classifier:
    return lambda: make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=300, tol=1e-3))


# features and classifier of each strategy
STRATEGIES: list[tuple[str, Classifier]] = [
    ("mean", _logistic(0.001)),
    ("mean", _logistic(0.05)),
    ("cls", _logistic(0.002)),
    ("mean", lambda: make_pipeline(StandardScaler(), LinearSVC(C=0.0005, dual=False, tol=1e-3))),
    ("text", lambda: make_pipeline(TfidfTransformer(sublinear_tf=True), LogisticRegression(C=10, max_iter=200))),
]


def features(folder: Path, count: int) -> tuple[dict[str, object], np.ndarray]:
    """Read texts, and compute the features of each kind. -> features by kind, labels (N,)."""
    table = pa.concat_tables(
        [pq.read_table(path, columns=["text", "label"]) for path in sorted(folder.glob("*.parquet"))]
    )
    rows = np.sort(np.random.default_rng(0).permutation(table.num_rows)[:count])
    table = table.take(rows)
    labels = np.unique(np.array(table["label"].to_pylist()), return_inverse=True)[1]
    texts = pa.table({"text": table["text"].cast(pa.large_string()), "label": labels})
    tokens = tokenize_split(texts, load_tokenizer(MODEL), 128)
    model = load_model(MODEL, tuple(map(str, range(labels.max() + 1))), seed=0)
    of_kind: dict[str, object] = {
        pooling: embeddings(model, tokens, pooling, model_fingerprint(MODEL), torch.float32)[0].numpy()
        for pooling in ("mean", "cls")
    }
    hashing = HashingVectorizer(ngram_range=(1, 2), n_features=2**16, alternate_sign=False, norm=None)
    return {**of_kind, "text": hashing.transform(texts["text"].to_pylist())}, labels


class Repetition:
    """One sample of labelled examples, and what folds and a split make of it."""

    def __init__(self, of_kind: dict[str, object], labels: np.ndarray, size: int, rng: np.random.Generator) -> None:
        self.of_kind, self.labels = of_kind, labels
        order = rng.permutation(len(labels))
        self.sample, self.others = order[:size], order[size:]
        self.split_rng, self.fold_seed = rng, int(rng.integers(2**31))

    def _is_right(self, strategy: int, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        kind, make = STRATEGIES[strategy]
        of_all, classifier = self.of_kind[kind], make()
        classifier.fit(of_all[train], self.labels[train])  # type: ignore[attr-defined,index]
        return classifier.predict(of_all[test]) == self.labels[test]  # type: ignore[attr-defined,index]

    def truth(self) -> np.ndarray:
        """Accuracy on all other texts of each strategy, trained on the whole sample. (K,)."""
        return np.array([self._is_right(k, self.sample, self.others).mean() for k in range(len(STRATEGIES))])

    def on_folds(self) -> np.ndarray:
        """Correct out-of-fold predictions. (K, N)."""
        is_right = np.zeros((len(STRATEGIES), len(self.sample)), bool)
        folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=self.fold_seed)
        for train, test in folds.split(self.sample, self.labels[self.sample]):
            for k in range(len(STRATEGIES)):
                is_right[k, test] = self._is_right(k, self.sample[train], self.sample[test])
        return is_right

    def on_split(self) -> np.ndarray:
        """Correct predictions of a test split of a tenth, by models trained on eight tenths. (K, N / 10)."""
        held_out, rest = stratified_split(self.labels[self.sample], 2 * (len(self.sample) // 10), self.split_rng)
        test = self.split_rng.permutation(held_out)[: len(self.sample) // 10]
        return np.stack([self._is_right(k, self.sample[rest], self.sample[test]) for k in range(len(STRATEGIES))])


def intervals(is_right: np.ndarray, are_folds: bool, rng: np.random.Generator) -> list[tuple[float, float]]:
    """95 % confidence intervals of the differences of all pairs of strategies. is_right: (K, N)."""
    weights = stats.example_weights(is_right.shape[1], 1000, rng)
    runs = []
    for correct in is_right:
        resampled = (correct.astype(np.float32) @ weights.T / len(correct))[None]
        resampled = stats.widened_for_folds(resampled, len(correct)) if are_folds else resampled
        runs.append(stats.RunScores(np.array([correct.mean()]), resampled, (0,), is_seeded=False))
    pairs = itertools.combinations(runs, 2)
    return [stats.interval(stats.difference(first, second, is_right.shape[1])) for first, second in pairs]


def measure(folder: Path, size: int, repetitions: int, count: int) -> dict[str, object]:
    """Repeat on samples of one size, and summarise: losses and widths in points, coverage as a share."""
    of_kind, labels = features(folder, count)
    rng, pairs = np.random.default_rng(size), list(itertools.combinations(range(len(STRATEGIES)), 2))
    losses: dict[str, list[float]] = {"folds": [], "split": []}
    widths: dict[str, list[float]] = {"folds": [], "split": [], "uncorrected folds": []}
    hits: dict[str, list[bool]] = {name: [] for name in widths}
    for _ in range(repetitions):
        repetition = Repetition(of_kind, labels, size, rng)
        truth, on_folds, on_split = repetition.truth(), repetition.on_folds(), repetition.on_split()
        for name, is_right in (("folds", on_folds), ("split", on_split)):
            losses[name].append(truth.max() - truth[is_right.mean(1).argmax()])
        for name, is_right in (("folds", on_folds), ("split", on_split), ("uncorrected folds", on_folds)):
            ends = intervals(is_right, name == "folds", rng)
            widths[name] += [(high - low) / 2 for low, high in ends]
            hits[name] += [low <= truth[a] - truth[b] <= high for (low, high), (a, b) in zip(ends, pairs, strict=True)]
    row: dict[str, object] = {"data": folder.name, "labelled": size, "repetitions": repetitions}
    for name, values in losses.items():
        row |= {
            f"loss of {name}": 100 * np.mean(values),
            f"its 95th percentile, {name}": 100 * np.quantile(values, 0.95),
        }
    for name in widths:
        row |= {f"half-width, {name}": 100 * np.mean(widths[name]), f"coverage, {name}": np.mean(hits[name])}
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="Parquet files with the columns text and label")
    parser.add_argument("--labelled", type=int, nargs="+", default=[400, 1600])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--texts", type=int, default=17_000, help="texts in all")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of solvers that stop early, for speed
    rows = []
    for size in options.labelled:
        rows.append(measure(options.folder, size, options.repetitions, options.texts))
        print({key: round(float(v), 3) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
        if options.out:
            options.out.write_text(json.dumps(rows, indent=1, default=float))


if __name__ == "__main__":
    main()
