"""Fine-tuning with HF Trainer, and peft for LoRA: the reference of speed.py and parity.py.

Two recipes: *published* (padded to 128 tokens, fp32, as in student projects) and *tuned* (dynamic padding, batches
grouped by length, larger batches in evaluation, bf16 if it is faster). As a script it makes one run in its own process
and prints the costs as JSON. It trains on the GPU where torch can use one.
"""

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402  importing is part of what a run costs
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import tempfile  # noqa: E402

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from tuneoff.encoder.config import resolve  # noqa: E402
from tuneoff.spec.strategy import parse_strategy  # noqa: E402
from tuneoff.strategies import STRATEGIES  # noqa: E402

BATCH, LENGTH = 16, 128


def main() -> None:
    """Make one run and print its seconds, with those of imports among them, and its peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("strategy")
    parser.add_argument("data", help="folder with train.parquet, validation.parquet and test.parquet")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--model", default="packaged:minilm")
    args = parser.parse_args()
    imported = time.perf_counter()
    finetune(args.strategy, args.data, args.epochs, args.tuned, args.bf16, model=args.model)
    costs = {
        "seconds": time.perf_counter() - STARTED,
        "import_seconds": imported - STARTED,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(costs))


def finetune(
    strategy: str,
    folder: str,
    epochs: int,
    tuned: bool,
    bf16: bool,
    seed: int = 0,
    keep_best: bool = False,
    split: str = "test",
    model: str = "packaged:minilm",
) -> np.ndarray:
    """Fine-tune on raw texts and predict the classes of a split, on all cores or the GPU. -> (N,)."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    transformers.set_seed(seed)
    path = resolve(model)
    tokenizer = AutoTokenizer.from_pretrained(path)
    padding = False if tuned else "max_length"
    files = {split: f"{folder}/{split}.parquet" for split in ("train", "validation", "test")}
    encoded = datasets.load_dataset("parquet", data_files=files, cache_dir=tempfile.mkdtemp()).map(
        lambda rows: tokenizer(rows["text"], truncation=True, max_length=LENGTH, padding=padding),
        batched=True,
        remove_columns=["text"],
    )
    encoder = AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(set(encoded["train"]["label"])))
    if strategy == "probe":
        return probe(encoder, encoded, tokenizer)
    config = parse_strategy(strategy)
    options = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        num_train_epochs=epochs,
        learning_rate=config.learning_rate,
        warmup_steps=0.1,
        weight_decay=0.01,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=64 if tuned else BATCH,
        train_sampling_strategy="group_by_length" if tuned else "random",
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        eval_strategy="epoch",
        save_strategy="epoch" if keep_best else "no",
        load_best_model_at_end=keep_best,
        metric_for_best_model="accuracy" if keep_best else None,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        log_level="error",
    )
    trainer = Trainer(
        adapted(encoder, config),
        options,
        DataCollatorWithPadding(tokenizer) if tuned else None,
        encoded["train"],
        encoded["validation"],
        compute_metrics=lambda result: {"accuracy": float((result.predictions.argmax(1) == result.label_ids).mean())},
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    # sorted by length here, because with group_by_length Trainer returns predictions in an unknown order (docs/log.md)
    trainer.args.train_sampling_strategy = "random"
    order = np.argsort([len(ids) for ids in encoded[split]["input_ids"]])
    result = trainer.predict(encoded[split].select(order))
    assert result.label_ids.tolist() == np.array(encoded[split]["label"])[order].tolist()
    predicted = np.empty(len(order), np.int64)
    predicted[order] = result.predictions.argmax(1)
    return predicted


def adapted(model, config):
    """Adapt a model: by peft for LoRA, by our own strategies (modules and frozen parameters) for all others."""
    if config.name == "lora":
        from peft import LoraConfig, get_peft_model

        return get_peft_model(
            model,
            LoraConfig(
                task_type="SEQ_CLS", r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets)
            ),
        )
    return STRATEGIES[config.name].apply(model, config).model


@torch.no_grad()
def probe(model, encoded, tokenizer) -> np.ndarray:
    """Logistic regression on mean-pooled embeddings, computed in padded batches. -> (N,) of the test split."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, collate, vectors = model.to(device), DataCollatorWithPadding(tokenizer), {}
    for split, part in encoded.items():
        pooled = []
        for start in range(0, len(part), 64):
            batch = collate(part.remove_columns("label")[start : start + 64]).to(device)
            states, mask = model.base_model(**batch).last_hidden_state, batch["attention_mask"][..., None]
            pooled.append(((states * mask).sum(1) / mask.sum(1)).cpu().numpy())
        vectors[split] = np.concatenate(pooled)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return classifier.fit(vectors["train"], encoded["train"]["label"]).predict(vectors["test"])


if __name__ == "__main__":
    main()
