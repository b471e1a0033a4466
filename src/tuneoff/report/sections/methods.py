"""Methods: data, encoders, training and statistics of the study in paragraphs that can stand in a paper."""

from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import Row
from tuneoff.costs import COSTS
from tuneoff.formats import counted, encoder_names, join_names
from tuneoff.report.section import Bullets, Details, Section, Text
from tuneoff.scoring.decision import MAX_RISK, RISK_MARGINS
from tuneoff.scoring.metrics import display_name
from tuneoff.strategies import STRATEGIES, GradientConfig

_SCHEDULES = {"linear": "falls linearly to 0", "cosine": "falls to 0 along a cosine", "constant": "stays constant"}
_SPLITS = {"train": "training"}


def section(comparison: Comparison) -> Section:
    """Return what was done, in sentences that can be pasted into a paper, and the sources of the methods."""
    paragraphs = [data(comparison), models(comparison), training(comparison), statistics(comparison)]
    blocks = [Text(text) for text in paragraphs if text]
    return Section("methods", "Methods", [*blocks, Details("References", [Bullets(references(comparison))])])


def data(comparison: Comparison) -> str:
    """Return the paragraph on the data: sizes, classes, splits and truncation."""
    described, lines = comparison.data, []
    sizes = [f"{split.examples:,} {_SPLITS.get(name, name)}" for name, split in described.splits.items()]
    kind = "pairs of texts" if described.is_pair else "texts"
    labels = "labels, of which an example may have several" if described.is_multilabel else "classes"
    lines.append(
        f"{described.name} has {join_names(sizes)} examples, {kind} with {len(described.label_names)} {labels}."
    )
    lines += [f"{note[0].upper()}{note[1:]}." for note in described.notes]
    if described.lengths:
        shares = [
            splits[described.scored_split].truncated
            for splits in described.lengths.values()
            if described.scored_split in splits
        ]
        cut = f"; {100 * max(shares):.1f} % of the {described.scored_split} examples are longer" if shares else ""
        lines.append(f"The encoder reads {comparison.study.recipe.truncation.describe()} of each text{cut}.")
    return " ".join(lines)


def models(comparison: Comparison) -> str:
    """Return the paragraph on the encoders and strategies."""
    rows = [row for row in comparison.rows if not row.is_external]
    sizes = {
        row.model: max(r.parameters.get("total", 0) for r in rows if r.model == row.model) for row in rows if row.model
    }
    names = encoder_names(sizes)
    encoders = [
        f"{names[model]} ({size / 1e6:.1f} million parameters)" if size else names[model]
        for model, size in sizes.items()
    ]
    labels = list(dict.fromkeys(_description(row) for row in rows))
    were = "strategy was" if len(labels) == 1 else "strategies were"
    lines = [f"{len(labels)} {were} compared: {join_names(labels)}."] if labels else ["No run succeeded."]
    if encoders:
        lines.insert(0, f"The pretrained encoder{'s were' if len(encoders) > 1 else ' was'} {join_names(encoders)}.")
    if comparison.study.predictions:
        files = join_names([entry.name for entry in comparison.study.predictions])
        lines.append(f"The predictions of {files} were read from files.")
    return " ".join(lines)


def _description(row: Row) -> str:
    trainable = row.parameters.get("trainable")
    return f"{row.label} ({trainable:,} trainable parameters)" if trainable and row.model else row.label


def training(comparison: Comparison) -> str:
    """Return the paragraph on training; empty if no strategy trains by gradient."""
    rows = [row for row in comparison.rows if not row.is_external]
    if not any(issubclass(STRATEGIES[row.strategy].config, GradientConfig) for row in rows):
        return ""
    recipe, metric = comparison.study.recipe, display_name(comparison.selection_metric or comparison.metric)
    warmup = f" rises over the first {100 * recipe.warmup:g} % of the steps and then" if recipe.warmup else ""
    note = comparison.recipe_note
    conditions = "with the recipe of the study where they have none of their own" if note else "under equal conditions"
    steps = f" and after every {counted(recipe.evaluate_every, 'step')}" if recipe.evaluate_every else ""
    lines = [
        f"All strategies that train by gradient were trained {conditions}: AdamW with weight decay "
        f"{recipe.weight_decay:g} and gradients clipped at a norm of {recipe.clip:g}, batches of "
        f"{counted(recipe.batch_size, 'example')}, {counted(recipe.epochs, 'epoch')}, and a learning rate that{warmup} "
        f"{_SCHEDULES[recipe.schedule]}. After each epoch{steps} the model was scored on validation "
        f"examples, and the weights with the best {metric} were kept."
    ]
    lines += [note] if note else []
    dropouts = {"the encoder and the head": recipe.dropout, "the head": recipe.head_dropout}
    lines += [f"Dropout of {part} was {rate:g}." for part, rate in dropouts.items() if rate is not None]
    if recipe.loss == "focal":
        lines.append(f"The loss was focal, with gamma {recipe.focal_gamma:g}.")
    if recipe.label_smoothing:
        lines.append(f"Labels were smoothed by {recipe.label_smoothing:g}.")
    if recipe.class_weights == "balanced":
        lines.append("Classes had equal total weight in the loss.")
    if recipe.sampling == "balanced":
        lines.append("Every class was drawn equally often.")
    if comparison.searches:
        trials = sorted({len(search.trials) for search in comparison.searches})
        spans = f"{trials[0]}" if len(trials) == 1 else f"{trials[0]} to {trials[-1]}"
        lines.append(
            f"Hyperparameters were searched on validation examples, {spans} trials for each strategy: its defaults, a "
            "factor higher and lower, then a tree-structured Parzen estimator. Test examples were not read."
        )
    else:
        rate_of_each = "the default learning rate of its kind, unless its name states another"
        lines.append(f"Each strategy had {rate_of_each}; no hyperparameters were searched.")
    return " ".join(lines)


def statistics(comparison: Comparison) -> str:
    """Return the paragraph on scores, intervals, tests and the pick."""
    metric, examples = display_name(comparison.metric), comparison.data.splits[comparison.data.scored_split].examples
    if folds := comparison.data.folds:
        scored = (
            f"Strategies were scored by {metric} on {folds} folds: each of the {examples:,} labelled examples was "
            "predicted once, by a model that was not trained on it. Intervals are wider than those of independent "
            "examples by a measured factor, because models share training examples"
        )
    else:
        repeats = max((len(row.seeds) for row in comparison.rows), default=1)
        runs = f"the mean over {repeats} random seeds" if repeats > 1 else "one random seed"
        scored = f"Strategies were scored by {metric} on {examples:,} test examples, {runs}"
    margin = comparison.verdict.margin if comparison.verdict else comparison.study.margin
    of_runs = "that over seeds, with what both have in common counted once"
    if comparison.data.folds:
        of_runs = "a typical one between random initializations"
    return (
        f"{scored}. The variance of a score is that over test examples ({comparison.num_resamples:,} bootstrap "
        f"resamples) plus {of_runs}; 95 % confidence intervals are Student's t with "
        "Satterthwaite's degrees of freedom. Differences are paired: the same resamples of examples for both "
        "strategies. p values are corrected for all pairs (Holm), and limits of the loss against the best strategy "
        f"are simultaneous (Hsu). A strategy is equivalent to the best if that limit is below {margin:g}. The pick is "
        f"{_pick_rule(comparison)}."
    )


def _pick_rule(comparison: Comparison) -> str:
    if comparison.verdict and comparison.verdict.thin:
        return "the best measured strategy, because there is little evidence"
    return (
        f"the strategy with the least {COSTS[comparison.study.cost].name} whose measured difference to the best is "
        f"within the margin and whose probability of losing {RISK_MARGINS:g} margins or more is at most "
        f"{100 * MAX_RISK:g} %"
    )


def references(comparison: Comparison) -> list[str]:
    """Return the sources of the methods that the study used."""
    sources = [
        "Bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.",
        f"Variance over examples and {comparison.repeat}s: Cameron, Gelbach and Miller, Robust inference with multiway "
        "clustering, 2011.",
        "Degrees of freedom: Satterthwaite, An approximate distribution of estimates of variance components, 1946.",
        "Correction for several comparisons: Holm, A simple sequentially rejective multiple test procedure, 1979.",
        "Comparison with the best: Hsu, Constrained simultaneous confidence intervals for multiple comparisons with "
        "the best, 1984.",
    ]
    names = {row.strategy for row in comparison.rows}
    of_strategies = {
        "lora": "LoRA: Hu et al., LoRA: Low-rank adaptation of large language models, ICLR 2022.",
        "adapter": "Bottleneck adapters: Houlsby et al., Parameter-efficient transfer learning for NLP, ICML 2019.",
        "bitfit": "BitFit: Ben Zaken et al., BitFit: Simple parameter-efficient fine-tuning, ACL 2022.",
    }
    sources += [text for name, text in of_strategies.items() if name in names]
    if comparison.searches:
        sources.append("Search: Bergstra et al., Algorithms for hyper-parameter optimization, NeurIPS 2011.")
    if comparison.data.folds:
        sources.append(
            "Folds: Bengio and Grandvalet, No unbiased estimator of the variance of k-fold cross-validation, 2004."
        )
    return sources
