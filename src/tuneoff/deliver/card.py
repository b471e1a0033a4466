"""The model card that lies beside every saved model: what it is, what it scored, how to load it."""

from pathlib import Path

from tuneoff.data.dataset import Dataset
from tuneoff.engine.recipe import Recipe
from tuneoff.formats import Table, markdown, markdown_text, number
from tuneoff.runs import RunRecord

# the first file of these that a model folder has says how it loads
_LOADING = {
    "classifier.skops": "skops.io.load(file, trusted=...)  # scikit-learn; a probe reads the encoder's embeddings",
    "adapter_model.safetensors": "peft.PeftModel.from_pretrained(base_model, folder)",
    "adapter.safetensors": "base_model.load_adapter(folder, use_safetensors=True)  # after adapters.init(base_model)",
    "model.safetensors": "transformers.AutoModelForSequenceClassification.from_pretrained(folder)",
}


def write_card(folder: Path, record: RunRecord, dataset: Dataset) -> None:
    """Write README.md into a folder that holds a saved model."""
    (folder / "README.md").write_text(card(record, dataset, _how_to_load(folder)), encoding="utf-8")


def _how_to_load(folder: Path) -> str:
    return next(
        (line for file, line in _LOADING.items() if (folder / file).is_file()), "see the files beside this card"
    )


def card(record: RunRecord, dataset: Dataset, loading: str) -> str:
    """The card's text. Names from data are escaped."""
    sizes = ", ".join(f"{dataset.num_examples(split):,} {split}" for split in dataset.splits)
    names = [name for name in ("accuracy", "macro_f1", "mcc", "log_loss") if name in record.metrics["test"]]
    scores: Table = (
        ["split", *[name.replace("_", " ") for name in names]],
        [[split, *[f"{found[name]:.3f}" for name in names]] for split, found in record.metrics.items()],
    )
    parameters = ", ".join(f"{number(count)} {what}" for what, count in record.parameters.items())
    return "\n\n".join(
        [
            f"# {markdown_text(record.run_id)}",
            f"A text classifier made by Tuneoff: strategy {markdown_text(record.label)}"
            + (f" on {markdown_text(record.model)}" if record.model else "")
            + f", seed {record.seed}.",
            f"- Data: {markdown_text(dataset.name)} ({sizes} examples)\n"
            f"- Labels, in the order of their ids: {', '.join(map(markdown_text, dataset.label_names))}\n"
            f"- Parameters: {parameters}\n"
            f"{_reading(record)}{_thresholds(record, dataset)}"
            f"- Load it with: `{loading}`",
            markdown(scores),
            "One run on this data says little of other data and other seeds; the study's report says how sure it is.",
        ]
    )


def _thresholds(record: RunRecord, dataset: Dataset) -> str:
    """From which probability on each label is predicted, where an example may have several."""
    if record.thresholds is None:
        return ""
    each = zip(dataset.label_names, record.thresholds, strict=True)
    said = ", ".join(f"{markdown_text(name)} {threshold:.3f}" for name, threshold in each)
    return f"- An example may have several labels, or none. Predicted is what reaches its threshold: {said}\n"


def _reading(record: RunRecord) -> str:
    """What of a text the model was trained to read."""
    if record.model is None:
        return ""
    return f"- It reads {Recipe.model_validate(record.spec['recipe']).reading.spoken()}\n"
