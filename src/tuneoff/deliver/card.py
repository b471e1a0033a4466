"""Model card: README.md in the folder of every stored model and export, in the metadata format of the Hugging Face hub.

Names from the data are escaped: in the metadata by YAML, elsewhere as Markdown; code holds none of them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneoff.data.dataset import Dataset
from tuneoff.data.describe import DataDescription
from tuneoff.deliver.saved import SavedModel
from tuneoff.deliver.snippets import LIBRARIES, kind_of, snippet
from tuneoff.encoder.config import hub_name
from tuneoff.engine.recipe import Recipe
from tuneoff.formats import fixed, markdown_text, number
from tuneoff.runs import RunRecord
from tuneoff.scoring.metrics import display_name
from tuneoff.strategies import STRATEGIES
from tuneoff.tables import SCORE, TEXT, Column, Table, markdown

if TYPE_CHECKING:
    from tuneoff.comparison.result import Comparison
    from tuneoff.comparison.rows import Row

# our metrics -> names of the hub's metrics
_HUB_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "micro_f1": "f1", "mcc": "matthews_correlation"}
_MAX_WEAK = 3  # classes with the lowest F1 that are named


@dataclass(frozen=True)
class DataFacts:
    """The data that a model was trained on: its name, and the number of examples of each split."""

    name: str
    sizes: dict[str, int]

    @classmethod
    def of(cls, data: Dataset | DataDescription) -> "DataFacts":
        """Return the facts of a dataset or of its description."""
        if isinstance(data, Dataset):
            return cls(data.name, {split: data.num_examples(split) for split in data.splits})
        return cls(data.name, {split: summary.examples for split, summary in data.splits.items()})

    @property
    def hub_name(self) -> str | None:
        """Name on the hub of data from there."""
        match = re.match(r"hf:([\w.-]+(?:/[\w.-]+)?)", self.name)
        return match[1] if match else None


@dataclass(frozen=True)
class ModelFacts:
    """What a card tells of a model; a model's folder outside a study has no run and no data."""

    saved: SavedModel
    record: RunRecord | None = None
    data: DataFacts | None = None
    comparison: "Comparison | None" = None  # of the study, for an export
    notes: Sequence[str] = ()  # of an export: what was checked, what the format costs
    format: str = ""  # of an export


def write_card(folder: Path, facts: ModelFacts) -> None:
    """Write README.md into a folder that holds a stored model."""
    (folder / "README.md").write_text(card(folder, facts), encoding="utf-8")


def card(folder: Path, facts: ModelFacts) -> str:
    """Return the card of the model in a folder: metadata in YAML, then Markdown."""
    saved = facts.saved
    where = f" on {markdown_text(saved.model)}" if saved.model else ""
    title = markdown_text(saved.run_id) + (f", {facts.format}" if facts.format else "")
    label, repeat = markdown_text(saved.strategy.label), markdown_text(saved.repeat)
    blocks = [
        f"---\n{metadata(folder, facts)}\n---\n\n# {title}",
        f"A text classifier trained by Tuneoff: strategy {label}{where}, {repeat}.",
        *_use(folder, facts),
        *_export(facts),
        *_model(facts),
        *_scores(facts),
        *_limits(facts),
    ]
    return "\n\n".join(blocks) + "\n"


def metadata(folder: Path, facts: ModelFacts) -> str:
    """Return the metadata as YAML, by the hub's own classes."""
    from huggingface_hub import EvalResult, ModelCardData

    saved, data, record = facts.saved, facts.data, facts.record
    scores = record.metrics.get("test", {}) if record else {}
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=(data.hub_name if data else None) or "local",
            dataset_name=data.name if data else "local",
            dataset_split="test",
            metric_type=_HUB_METRICS[name],
            metric_name=display_name(name),
            metric_value=value,
        )
        for name, value in scores.items()
        if name in _HUB_METRICS and value is not None
    ]
    fields: dict[str, Any] = {
        "library_name": LIBRARIES[kind_of(folder, saved)],
        "pipeline_tag": "text-classification",
        "tags": ["tuneoff", "text-classification", saved.strategy.name],
        "base_model": hub_name(saved.model) if saved.model else None,
        "datasets": [data.hub_name] if data and data.hub_name else None,
        "metrics": list(dict.fromkeys(_HUB_METRICS[name] for name in scores if name in _HUB_METRICS)) or None,
    }
    if results:
        fields |= {"model_name": saved.run_id, "eval_results": results}
    return ModelCardData(**fields).to_yaml()


def _use(folder: Path, facts: ModelFacts) -> Iterator[str]:
    saved = facts.saved
    kind, policy = kind_of(folder, saved), saved.truncation
    yield "## Use"
    yield f"```python\n{snippet(folder, saved)}\n```"
    num_labels = len(saved.label_names)
    if kind == "peft":
        yield (
            f'`AutoPeftModelForSequenceClassification.from_pretrained(".", num_labels={num_labels})` and '
            f'`pipeline("text-classification", ".", model_kwargs={{"num_labels": {num_labels}}})` load it too: '
            "the number of labels is not that of the base model's own head."
        )
    if kind == "adapters":
        yield (
            'AdapterHub\'s library reads it with `model.load_adapter(".", use_safetensors=True)`, after '
            "`adapters.init(model)` on a sequence classification model of the encoder."
        )
    if kind not in ("texts", "onnx", "adapters"):
        yield "With Tuneoff: `tuneoff.load(folder).predict(texts)`."
    if saved.model and kind != "adapters" and policy.long_texts in ("head_tail", "windows"):
        yield (
            f"The model was trained on {policy.describe()}. The code above reads the first {policy.max_length} tokens "
            "of a text; `tuneoff.load` reads as in training."
        )


def _export(facts: ModelFacts) -> Iterator[str]:
    if facts.notes:
        yield "## Export"
        yield "\n".join(f"- {markdown_text(note)}" for note in facts.notes)


def _model(facts: ModelFacts) -> Iterator[str]:
    saved, record = facts.saved, facts.record
    labels = ", ".join(map(markdown_text, saved.label_names))
    lines = []
    if facts.data:
        sizes = ", ".join(f"{count:,} {split}" for split, count in facts.data.sizes.items())
        lines.append(f"Data: {markdown_text(facts.data.name)} ({sizes} examples)")
    lines += [f"Labels, in the order of their ids: {labels}", *_thresholds(saved)]
    lines.append(f"Strategy: {STRATEGIES[saved.strategy.name].summary}; {_options(saved.strategy.to_json())}")
    if saved.model:
        lines.append(f"Tokens of a text that it reads: {saved.truncation.describe()}")
    if record:
        parameters = ", ".join(f"{number(count)} {kind}" for kind, count in record.parameters.items())
        lines += [f"Parameters: {parameters}", *_recipe(record)]
    yield "## Data, strategy and recipe"
    yield "\n".join(f"- {line}" for line in lines)


def _recipe(record: RunRecord) -> Iterator[str]:
    """Lines on the settings of training that this strategy uses."""
    used = STRATEGIES[record.strategy].recipe_fields
    recipe = Recipe.model_validate(record.spec["recipe"]).model_dump() if "recipe" in record.spec else {}
    kept = {key: value for key, value in recipe.items() if value is not None and (used is None or key in used)}
    if kept:
        yield f"Recipe: {_options(kept)}"
    versions = ", ".join(f"{markdown_text(name)} {markdown_text(value)}" for name, value in record.versions.items())
    if versions:
        yield f"Versions: {versions}"


def _options(options: dict[str, Any]) -> str:
    return ", ".join(markdown_text(f"{key} {value}") for key, value in options.items()) or "no options"


def _thresholds(saved: SavedModel) -> Iterator[str]:
    """Line on the decision threshold of each label, for a multi-label model, or of the second of two classes."""
    if saved.thresholds and not saved.is_multilabel:
        yield (
            f"{markdown_text(saved.label_names[1])} is predicted if its probability is at least "
            f"{saved.thresholds[0]:.3f}, chosen on validation. Tuneoff and the code above predict so; the model itself "
            "gives probabilities, and a library that reads it alone (a transformers pipeline) predicts from 0.5"
        )
    elif saved.thresholds is not None:
        each = zip(saved.label_names, saved.thresholds, strict=True)
        thresholds = ", ".join(f"{markdown_text(name)} {threshold:.3f}" for name, threshold in each)
        yield f"Multi-label: a label is predicted if its probability reaches its threshold: {thresholds}"


def _scores(facts: ModelFacts) -> Iterator[str]:
    record = facts.record
    if record is None:
        return
    yield "## Scores"
    splits = list(record.metrics)
    names = list(dict.fromkeys(name for scores in record.metrics.values() for name in scores))
    if names:
        columns = (Column("metric", "metric", TEXT), *[Column(split, split, SCORE) for split in splits])
        rows = [[display_name(name), *[record.metrics[split].get(name) for split in splits]] for name in names]
        yield markdown(Table("scores", columns, rows))
    yield _scores_text(record)
    row = _row(facts)
    if row and facts.comparison:
        metric, (low, high) = display_name(facts.comparison.metric), row.interval
        text = (
            f"The {metric} of the strategy in the study ({row.repeats}): {fixed(row.score)}, 95 % confidence interval "
            f"{fixed(low)} to {fixed(high)}."
        )
        verdict = facts.comparison.verdict
        if verdict and verdict.recommended == row.group and verdict.corrected_score is not None:
            text += f" It was picked for this score; without that optimism: {fixed(verdict.corrected_score)}."
        yield text


def _scores_text(record: RunRecord) -> str:
    """Return what the scores of the card stand for."""
    if not record.spec.get("final"):
        return "These are the scores of one run. How they vary with other data and seeds is in the study's report."
    of_folds = (
        "It was trained on every labelled example. What to expect of it is the score of its strategy in the study's "
        "report: there each labelled example was predicted by models that were trained without it."
    )
    return of_folds + (" The score above is on a test split of its own." if record.metrics else "")


def _row(facts: ModelFacts) -> "Row | None":
    """Return the row of the model's strategy on the study's leaderboard."""
    if facts.comparison is None or facts.record is None:
        return None
    own = (facts.record.label, facts.record.model)
    return next((row for row in facts.comparison.rows if (row.label, row.model) == own), None)


def _limits(facts: ModelFacts) -> Iterator[str]:
    """Weaknesses that the study's error analysis shows, on the examples that strategies are scored on."""
    row, comparison = _row(facts), facts.comparison
    if row is None or comparison is None or not row.learns:
        return
    lines = []
    classes = sorted(comparison.classes[row.group], key=lambda scores: scores.f1)
    weakest = [f"{markdown_text(c.label)} {fixed(c.f1)} ({c.examples:,} examples)" for c in classes[:_MAX_WEAK]]
    lines.append(f"Lowest F1 of a label: {', '.join(weakest)}")
    matrix = np.array(comparison.confusion[row.group])
    if matrix.ndim == 2:
        errors = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
        true, predicted = np.unravel_index(int(errors.argmax()), errors.shape)
        if errors[true, predicted]:
            share = errors[true, predicted] / matrix[true].sum()
            names = [markdown_text(comparison.label_names[index]) for index in (true, predicted)]
            lines.append(f"Most frequent confusion: {names[0]} taken for {names[1]}, in {100 * share:.1f} % of it")
    slices = comparison.slices
    own = slices[slices["group"] == row.group] if len(slices) else slices
    if len(own):
        worst = own.sort_values("score").iloc[0]
        lines.append(
            f"Lowest {display_name(comparison.metric)} on a slice: {markdown_text(worst['slice'])} "
            f"{markdown_text(str(worst['value']))}, {fixed(worst['score'])} ({fixed(worst['low'])} to "
            f"{fixed(worst['high'])}, {worst['examples']:,} examples)"
        )
    lines.append("Other limits of the data, and every wrong prediction, are in the study's report")
    yield "## Limits"
    yield "\n".join(f"- {line}" for line in lines)
