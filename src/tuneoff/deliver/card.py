"""Model card, written into the folder of every saved model: its data, scores and how to load it."""

from pathlib import Path

from tuneoff.data.dataset import Dataset
from tuneoff.engine.recipe import Recipe
from tuneoff.formats import markdown_text, number
from tuneoff.runs import RunRecord
from tuneoff.scoring.metrics import display_name
from tuneoff.tables import SCORE, TEXT, Column, Table, markdown

# the first of these files that a model folder has decides how it loads
_LOADING = {
    "classifier.skops": "skops.io.load(file, trusted=...)  # scikit-learn; a probe takes the encoder's embeddings",
    "adapter_model.safetensors": "peft.PeftModel.from_pretrained(base_model, folder)",
    "adapter.safetensors": "base_model.load_adapter(folder, use_safetensors=True)  # after adapters.init(base_model)",
    "model.safetensors": "transformers.AutoModelForSequenceClassification.from_pretrained(folder)",
}
_METRICS = ("accuracy", "macro_f1", "mcc", "log_loss")


def write_card(folder: Path, record: RunRecord, dataset: Dataset) -> None:
    """Write README.md into a folder that holds a saved model."""
    (folder / "README.md").write_text(card(record, dataset, _how_to_load(folder)), encoding="utf-8")


def _how_to_load(folder: Path) -> str:
    return next((line for file, line in _LOADING.items() if (folder / file).is_file()), "see the files in this folder")


def card(record: RunRecord, dataset: Dataset, loading: str) -> str:
    """Return the card as Markdown; names from the data are escaped."""
    sizes = ", ".join(f"{dataset.num_examples(split):,} {split}" for split in dataset.splits)
    names = [name for name in _METRICS if all(name in scores for scores in record.metrics.values())]
    columns = (Column("split", "split", TEXT), *[Column(name, display_name(name), SCORE) for name in names])
    scores = [[split, *[values[name] for name in names]] for split, values in record.metrics.items()]
    parameters = ", ".join(f"{number(count)} {kind}" for kind, count in record.parameters.items())
    return "\n\n".join(
        [
            f"# {markdown_text(record.run_id)}",
            f"A text classifier trained by Tuneoff: strategy {markdown_text(record.label)}"
            + (f" on {markdown_text(record.model)}" if record.model else "")
            + f", {record.repeat}.",
            f"- Data: {markdown_text(dataset.name)} ({sizes} examples)\n"
            f"- Labels, in the order of their ids: {', '.join(map(markdown_text, dataset.label_names))}\n"
            f"- Parameters: {parameters}\n"
            f"{_truncation(record)}{_thresholds(record, dataset)}"
            f"- Load it with: `{loading}`",
            *([markdown(Table("scores", columns, scores))] if scores else []),
            _scores_text(record),
        ]
    )


def _scores_text(record: RunRecord) -> str:
    """Return what the scores of the card stand for."""
    if not record.spec.get("final"):
        return "These are the scores of one run. How they vary with other data and seeds is in the study's report."
    of_folds = (
        "It was trained on every labelled example. What to expect of it is the score of its strategy in the study's "
        "report: there each labelled example was predicted by models that were trained without it."
    )
    return of_folds + (" The score above is on a test split of its own." if record.metrics else "")


def _thresholds(record: RunRecord, dataset: Dataset) -> str:
    """Return the decision threshold of each label, for a multi-label model."""
    if record.thresholds is None:
        return ""
    each = zip(dataset.label_names, record.thresholds, strict=True)
    thresholds = ", ".join(f"{markdown_text(name)} {threshold:.3f}" for name, threshold in each)
    return f"- Multi-label: a label is predicted if its probability reaches its threshold: {thresholds}\n"


def _truncation(record: RunRecord) -> str:
    """Return which tokens of a text the model was trained on."""
    if record.model is None:
        return ""
    return f"- Tokens of a text that it reads: {Recipe.model_validate(record.spec['recipe']).truncation.describe()}\n"
