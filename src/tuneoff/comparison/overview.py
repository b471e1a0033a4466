"""Overview of several datasets: which strategy ranks best over their comparisons, and whether that is more than chance.

Two questions are kept apart. On these datasets the uncertainty comes from their test examples and seeds: draws from the
joint distribution of the true scores of each dataset give intervals of mean ranks. For datasets in general each dataset
is one observation: Friedman's test and Nemenyi's.

# D datasets  K strategies  R draws
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import Row
from tuneoff.errors import ConfigError
from tuneoff.formats import counted, encoder_names, fixed, join_names, p_value
from tuneoff.scoring.metrics import apart, display_name
from tuneoff.scoring.ranks import RankTest, critical_difference, friedman, nemenyi, ranks
from tuneoff.scoring.stats import LEVEL

FEW_DATASETS = 10  # Demsar (2006) asks for more for Friedman's test
Estimate = tuple[float, float, float]  # value, low, high
_Key = tuple[str, str | None]  # label of a strategy and its encoder


@dataclass(frozen=True)
class OverviewDataset:
    """One dataset of an overview: a study of its own."""

    name: str
    folder: str
    examples: int  # that are scored
    num_labels: int
    best: str  # name of the strategy with the best score, of those that every dataset has
    pick: str | None  # name of the strategy that its verdict picks


@dataclass(frozen=True)
class OverviewRow:
    """One strategy with one encoder over all datasets."""

    name: str
    label: str
    model: str | None
    scores: dict[str, Estimate]  # dataset -> score and its 95 % confidence interval
    ranks: dict[str, float]  # dataset -> rank among the strategies that all datasets have; empty if some has not
    mean_rank: float | None = None  # None for a strategy that some dataset has not, or that does not use the text
    rank_interval: tuple[float, float] = (0.0, 0.0)  # 95 %, over the examples and seeds of these datasets
    mean_difference: Estimate | None = None  # to the best of each dataset, 0 or negative
    num_best: int = 0  # datasets on which it has the best score
    share_best: float = 0.0  # of the draws in which its mean rank is the best
    p_value: float = 1.0  # of the same expected rank as the first row's (Nemenyi)


@dataclass(frozen=True, repr=False)
class Overview:
    """Everything that the report of several datasets shows."""

    name: str
    metric: str
    datasets: tuple[OverviewDataset, ...]
    rows: tuple[OverviewRow, ...]  # by mean rank, best first; those without one last
    rank_test: RankTest | None  # None for one strategy
    critical_difference: float | None  # of two mean ranks
    summary: tuple[str, ...]

    def __repr__(self) -> str:
        lines = [f"{row.name}: {_rank_text(row)}" for row in self.ranked]
        return "\n".join([f"<Overview {self.name}: {counted(len(self.datasets), 'dataset')}>", *lines, *self.summary])

    @property
    def ranked(self) -> list[OverviewRow]:
        """The rows with a mean rank, best first."""
        return [row for row in self.rows if row.mean_rank is not None]

    @property
    def table(self) -> pd.DataFrame:
        """One row per strategy: its score on each dataset, its mean rank and its mean difference to the best."""
        names = [dataset.name for dataset in self.datasets]
        return pd.DataFrame(
            {
                "strategy": row.label,
                "model": row.model,
                **{name: row.scores[name][0] if name in row.scores else None for name in names},
                "mean_rank": row.mean_rank,
                "rank_low": row.rank_interval[0] if row.mean_rank else None,
                "rank_high": row.rank_interval[1] if row.mean_rank else None,
                "mean_difference": row.mean_difference[0] if row.mean_difference else None,
                "p_value": row.p_value if row.mean_rank else None,
            }
            for row in self.rows
        )

    def to_json(self) -> dict[str, object]:
        """Return everything as plain data."""
        return {**asdict(self), "text": " ".join(self.summary)}


def overview_of(name: str, comparisons: Mapping[str, Comparison]) -> Overview:
    """Compare strategies over several datasets. comparisons: by name of the dataset.

    Raises ConfigError for comparisons that cannot be joined: by other metrics, of the same data, or without a common
    strategy.
    """
    _check(comparisons)
    metric = next(iter(comparisons.values())).metric
    by_dataset = {
        dataset: {(row.label, row.model): (index, row) for index, row in enumerate(comparison.rows)}
        for dataset, comparison in comparisons.items()
    }
    keys = list(dict.fromkeys(key for rows in by_dataset.values() for key in rows))
    encoders = encoder_names(dict.fromkeys(model for _, model in keys if model))
    names = {
        (label, model): f"{label} on {encoders[model]}" if model and len(encoders) > 1 else label
        for label, model in keys
    }
    common = [key for key in keys if all(key in rows and rows[key][1].learns for rows in by_dataset.values())]
    if not common:
        listed = "; ".join(
            f"{dataset} has {join_names([names[key] for key in rows])}" for dataset, rows in by_dataset.items()
        )
        raise ConfigError(f"the studies have no strategy in common that uses the text: {listed}")
    values, draws = _joint(comparisons, by_dataset, common)
    rows = _ranked_rows(list(comparisons), common, names, by_dataset, values, draws)
    rows += [OverviewRow(names[key], key[0], key[1], _scores(key, by_dataset), {}) for key in keys if key not in common]
    datasets = tuple(
        _dataset(dataset, comparison, names, [names[key] for key in common], values[number])
        for number, (dataset, comparison) in enumerate(comparisons.items())
    )
    has_ranks = len(common) > 1
    test = friedman(ranks(values)) if has_ranks else None
    smallest = critical_difference(len(common), len(comparisons)) if has_ranks else None
    made = Overview(name, metric, datasets, tuple(rows), test, smallest, ())
    return Overview(**{**vars(made), "summary": tuple(_sentences(made))})


def _check(comparisons: Mapping[str, Comparison]) -> None:
    if len(comparisons) < 2:
        raise ConfigError(f"an overview is of two datasets or more, and there is {len(comparisons)}")
    metrics = {dataset: comparison.metric for dataset, comparison in comparisons.items()}
    if len(set(metrics.values())) > 1:
        listed = ", ".join(f"{dataset} by {metric}" for dataset, metric in metrics.items())
        raise ConfigError(f"the studies rank by different metrics ({listed}); choose one for all with --metric")
    seen: dict[str, str] = {}
    for dataset, comparison in comparisons.items():
        if not comparison.rows or comparison.joint is None:
            raise ConfigError(f"study {dataset} has no successful run; run it again, or leave it out")
        former = seen.setdefault(comparison.data.fingerprint, dataset)
        if former != dataset:
            raise ConfigError(f"studies {former} and {dataset} have the same data, which counts once; leave one out")


def _joint(
    comparisons: Mapping[str, Comparison],
    by_dataset: Mapping[str, Mapping[_Key, tuple[int, Row]]],
    common: Sequence[_Key],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the common strategies, higher is better, (D, K), and draws of their true scores, (D, R, K).

    The draws of each dataset are shuffled: those of one number come from the same random numbers on every dataset.
    """
    rng, values, draws = np.random.default_rng(0), [], []
    for dataset, comparison in comparisons.items():
        assert comparison.joint is not None
        columns = [by_dataset[dataset][key][0] for key in common]
        values.append(comparison.joint.values[columns])
        draws.append(rng.permutation(comparison.joint.draws[:, columns], axis=0))
    fewest = min(map(len, draws))
    return np.array(values), np.array([part[:fewest] for part in draws])


def _ranked_rows(
    datasets: Sequence[str],
    common: Sequence[_Key],
    names: Mapping[_Key, str],
    by_dataset: Mapping[str, Mapping[_Key, tuple[int, Row]]],
    values: np.ndarray,
    draws: np.ndarray,
) -> list[OverviewRow]:
    """Return a row for each common strategy, by mean rank. values: (D, K), draws: (D, R, K)."""
    own_ranks = ranks(values)  # (D, K)
    mean_ranks, drawn_ranks = own_ranks.mean(0), ranks(draws).mean(0)  # (K,), (R, K)
    losses = (values - values.max(1, keepdims=True)).mean(0)
    drawn_losses = (draws - draws.max(2, keepdims=True)).mean(0)  # (R, K)
    is_best = drawn_ranks == drawn_ranks.min(1, keepdims=True)
    shares = (is_best / is_best.sum(1, keepdims=True)).mean(0)
    order = np.lexsort((-losses, mean_ranks))
    p_values = nemenyi(mean_ranks, len(datasets))[order[0]] if len(common) > 1 else np.ones(1)
    rank_ends, loss_ends = _interval(drawn_ranks), _interval(drawn_losses)
    return [
        OverviewRow(
            name=names[common[k]],
            label=common[k][0],
            model=common[k][1],
            scores=_scores(common[k], by_dataset),
            ranks=dict(zip(datasets, own_ranks[:, k].tolist(), strict=True)),
            mean_rank=float(mean_ranks[k]),
            # the noise of a draw moves ranks towards the middle: the interval always holds the measured rank
            rank_interval=(min(float(mean_ranks[k]), rank_ends[0][k]), max(float(mean_ranks[k]), rank_ends[1][k])),
            mean_difference=(
                float(losses[k]) + 0.0,
                min(float(losses[k]), loss_ends[0][k]),
                max(float(losses[k]) + 0.0, loss_ends[1][k]),
            ),
            num_best=int((own_ranks[:, k] == own_ranks.min(1)).sum()),
            share_best=float(shares[k]),
            p_value=float(p_values[k]),
        )
        for k in order
    ]


def _interval(draws: np.ndarray) -> tuple[list[float], list[float]]:
    """Return the ends of the 95 % interval of each column. (R, K) -> two lists of K."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return low.tolist(), high.tolist()


def _scores(key: _Key, by_dataset: Mapping[str, Mapping[_Key, tuple[int, Row]]]) -> dict[str, Estimate]:
    rows = {dataset: rows[key][1] for dataset, rows in by_dataset.items() if key in rows}
    return {dataset: (row.score, *row.interval) for dataset, row in rows.items()}


def _dataset(
    name: str, comparison: Comparison, names: Mapping[_Key, str], common: Sequence[str], values: np.ndarray
) -> OverviewDataset:
    picked = comparison.verdict.recommended if comparison.verdict else None
    pick = next((names[row.label, row.model] for row in comparison.rows if row.group == picked), None)
    return OverviewDataset(
        name,
        comparison.folder,
        comparison.data.splits[comparison.data.scored_split].examples,
        len(comparison.label_names),
        common[int(values.argmax())],
        pick,
    )


def _rank_text(row: OverviewRow) -> str:
    assert row.mean_rank is not None
    low, high = (fixed(end, 1) for end in row.rank_interval)
    return f"mean rank {fixed(row.mean_rank, 2)} (95 % interval {low} to {high})"


def _sentences(overview: Overview) -> list[str]:
    """Write which strategy ranks best, how sure that is on these datasets, and what it says about others."""
    rows, datasets = overview.ranked, overview.datasets
    picks = _picks(datasets)
    if len(rows) == 1:
        return [f"The {len(datasets)} datasets have one strategy in common, {rows[0].name}: nothing to rank.", picks]
    first, second = rows[:2]
    assert first.mean_difference
    sentences = [
        f"Over {len(datasets)} datasets {first.name} ranks best of {len(rows)} strategies: {_rank_text(first)}, "
        f"{display_name(overview.metric)} {apart(-first.mean_difference[0], overview.metric)} the best of "
        f"each dataset on average; {second.name} follows with {_rank_text(second)}.",
        f"With other test examples and seeds of these datasets, {first.name} would rank best in "
        f"{100 * first.share_best:.0f} % of draws.",
        _beyond(overview),
        picks,
    ]
    return [sentence for sentence in sentences if sentence]


def _beyond(overview: Overview) -> str:
    """Sentences on what the datasets say about datasets in general."""
    test, rows, count = overview.rank_test, overview.ranked, len(overview.datasets)
    assert test
    value = p_value(test.p_value)
    equals = f"p {value}" if value.startswith("<") else f"p = {value}"
    few = f" {count} datasets are few: they say little about others." if count <= FEW_DATASETS else ""
    if test.smallest_p_value > 1 - LEVEL:
        return (
            f"For datasets in general nothing can be shown: {count} datasets and {len(rows)} strategies give a p of "
            f"{p_value(test.smallest_p_value)} at best, even if all rank the strategies alike."
        )
    if test.p_value >= 1 - LEVEL:
        return f"For datasets in general the order may be chance (Friedman's test: {equals}).{few}"
    worse = [row.name for row in rows[1:] if row.p_value < 1 - LEVEL]
    pairs = f"{rows[0].name} ranks better than {join_names(worse)}" if worse else "no single pair differs"
    return f"Ranks differ by more than chance (Friedman's test: {equals}); by Nemenyi's test {pairs}.{few}"


def _picks(datasets: Sequence[OverviewDataset]) -> str:
    by_pick: dict[str | None, list[str]] = {}
    for dataset in datasets:
        by_pick.setdefault(dataset.pick, []).append(dataset.name)
    if len(by_pick) == 1 and None not in by_pick:
        return f"Every dataset's own verdict picks {next(iter(by_pick))}."
    parts = [f"{pick or 'nothing'} on {join_names(on)}" for pick, on in by_pick.items()]
    return f"The datasets' own verdicts pick {join_names(parts)}."
