"""Tuneoff beside HF Trainer and peft on the same work in one run: from raw text to test predictions.

Two yardsticks: the *published* recipe (padded to 128, fp32: what student studies did) and the *tuned* one
(dynamic padding, length grouping, and bf16 where that is faster, found by trying). Prints seconds and ratios with
the targets beside them. `--examples N --epochs E` sets the size; the default is the short form.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
import numpy as np
import torch
import transformers
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from tuneoff.data.dataset import DataSpec
from tuneoff.data.load import load_dataset
from tuneoff.encoder.load import resolve
from tuneoff.spec import parse_strategy, study_from
from tuneoff.strategies import STRATEGIES
from tuneoff.study import Study

STUDY = ["probe", "head", "partial", "lora", "lora:rank=16", "adapter", "full"]
# what the project set out to reach: over the published recipe, over the tuned recipe
TARGETS = {"study": (20, 3), "full": (10, 2), "lora": (14, 1.8), "head": (40, 6), "partial": (15, 3)}
BATCH, LENGTH = 16, 128


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--examples", type=int, default=320, help="training examples; validation and test get a quarter each"
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given = arguments()
    quarter = max(20, given.examples // 4)
    limits = {"train": given.examples, "validation": quarter, "test": quarter}
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    os.environ["TUNEOFF_CACHE"] = tempfile.mkdtemp()
    dataset = load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits=limits))
    raw = {
        split: datasets.Dataset.from_dict({"text": t["text"].to_pylist(), "label": t["label"].to_pylist()})
        for split, t in dataset.splits.items()
    }
    is_bf16_faster = trial(raw, True) < trial(raw, False)
    seconds: dict[str, dict[str, float]] = {"published": {}, "tuned": {}, "tuneoff": {}}
    for name in STUDY:
        seconds["published"][name] = with_trainer(name, raw, given.epochs, tuned=False, bf16=False)
        seconds["tuned"][name] = with_trainer(name, raw, given.epochs, tuned=True, bf16=is_bf16_faster)
        seconds["tuneoff"][name] = with_tuneoff([name], limits, given.epochs)
        print(f"{name}: " + ", ".join(f"{who} {found[name]:.1f} s" for who, found in seconds.items()), flush=True)
    for who in ("published", "tuned"):
        seconds[who]["study"] = sum(seconds[who].values())
    seconds["tuneoff"]["study"] = with_tuneoff(STUDY, limits, given.epochs)
    show(seconds, given, is_bf16_faster)
    if given.out:
        given.out.write_text(
            json.dumps({"seconds": seconds, "machine": machine(), "bf16": is_bf16_faster, **limits}, indent=1)
        )
    shutil.rmtree(os.environ["TUNEOFF_CACHE"], ignore_errors=True)


def trial(raw: dict[str, datasets.Dataset], bf16: bool) -> float:
    """Seconds of a small full fine-tuning with the tuned recipe."""
    small = {split: part.select(range(min(64, len(part)))) for split, part in raw.items()}
    return with_trainer("full", small, 1, tuned=True, bf16=bf16)


def with_trainer(strategy: str, raw: dict[str, datasets.Dataset], epochs: int, tuned: bool, bf16: bool) -> float:
    """Seconds from raw text to test predictions with HF Trainer, on all cores."""
    started = time.perf_counter()
    path = resolve("packaged:minilm")
    tokenizer = AutoTokenizer.from_pretrained(path)
    padding = False if tuned else "max_length"
    encoded = {
        split: part.map(
            lambda rows: tokenizer(rows["text"], truncation=True, max_length=LENGTH, padding=padding),
            batched=True,
            remove_columns=["text"],
            load_from_cache_file=False,
        )
        for split, part in raw.items()
    }
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2)
    if strategy == "probe":
        probe(model, encoded, tokenizer)
        return time.perf_counter() - started
    config = parse_strategy(strategy)
    model = adapted(model, config)
    options = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        num_train_epochs=epochs,
        learning_rate=config.learning_rate,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=64 if tuned else BATCH,
        train_sampling_strategy="group_by_length" if tuned else "random",
        bf16=bf16,
        use_cpu=True,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_num_workers=0,
    )
    collator = DataCollatorWithPadding(tokenizer) if tuned else None
    trainer = Trainer(model, options, collator, encoded["train"], encoded["validation"])
    trainer.train()
    trainer.predict(encoded["test"])
    return time.perf_counter() - started


def adapted(model, config):
    """The model as anybody would set it up: peft for LoRA, our modules for adapters, freezing for the rest."""
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
def probe(model, encoded, tokenizer) -> None:
    """Mean-pooled embeddings by padded batches, then logistic regression."""
    collate, vectors = DataCollatorWithPadding(tokenizer), {}
    for split, part in encoded.items():
        found = []
        for start in range(0, len(part), 64):
            batch = collate(part.remove_columns("label")[start : start + 64])
            states, mask = model.bert(**batch).last_hidden_state, batch["attention_mask"][..., None]
            found.append(((states * mask).sum(1) / mask.sum(1)).numpy())
        vectors[split] = np.concatenate(found)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(vectors["train"], encoded["train"]["label"]).predict(vectors["test"])


def with_tuneoff(strategies: list[str], limits: dict[str, int], epochs: int) -> float:
    """Seconds of `tuneoff run` from raw text to predictions, comparison and report, with an empty cache."""
    shutil.rmtree(os.environ["TUNEOFF_CACHE"], ignore_errors=True)
    started = time.perf_counter()
    spec = study_from(
        {
            "data": {"source": "packaged:rotten-tomatoes", "limits": limits},
            "strategies": strategies,
            "recipe": {"epochs": epochs, "batch_size": BATCH, "max_length": LENGTH},
            "seeds": 1,
            "save_models": False,
        }
    )
    comparison = Study(spec, Path(tempfile.mkdtemp())).run()
    assert not comparison.failures, comparison.failures[0].error
    return time.perf_counter() - started


def machine() -> dict[str, object]:
    """What was measured on."""
    from tuneoff.execute.one import machine as described
    from tuneoff.execute.one import versions

    return {**described(), **versions(), "platform": platform.platform()}


def show(seconds: dict[str, dict[str, float]], given: argparse.Namespace, bf16: bool) -> None:
    """The table, with the targets beside the ratios."""
    print(f"\n{given.examples} training examples, {given.epochs} epochs, batch {BATCH}, length {LENGTH}", end="; ")
    print(f"tuned recipe in {'bf16' if bf16 else 'fp32'}")
    print(f"{'':14}{'published':>11}{'tuned':>9}{'Tuneoff':>9}{'x published (target)':>24}{'x tuned (target)':>20}")
    for name, ours in seconds["tuneoff"].items():
        published, tuned = seconds["published"][name], seconds["tuned"][name]
        first, second = TARGETS.get(name, ("-", "-"))
        ratios = f"{published / ours:>15.1f} ({first:>4})  {tuned / ours:>13.1f} ({second:>4})"
        print(f"{name:14}{published:>9.1f} s{tuned:>7.1f} s{ours:>7.1f} s{ratios}")


if __name__ == "__main__":
    main()
