"""A short real run of HF Trainer on the toy texts, with the files that it leaves: for tests of the import of its logs."""

from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from tests.tiny import WORDS, tiny_model, toy_texts, word_tokenizer


def run_trainer(folder, epochs=3, **arguments):
    """Fine-tune a tiny BERT with evaluation after each epoch, and store its state, checkpoints and results."""
    torch.manual_seed(0)
    texts, labels = toy_texts(64, np.random.default_rng(0))
    encoded = word_tokenizer()(texts, padding=True)
    columns = {**encoded, "labels": labels.tolist()}
    rows = [{key: values[i] for key, values in columns.items()} for i in range(len(texts))]
    options = {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-3,
        "logging_steps": 2,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        **arguments,
    }
    model = tiny_model("bert", num_labels=2, vocab_size=len(WORDS) + 5)
    model.set_attn_implementation("eager")
    trainer: Any = Trainer(
        model, TrainingArguments(str(folder), **options), train_dataset=rows[:40], eval_dataset=rows[40:52], compute_metrics=_metrics
    )  # fmt: skip
    train = trainer.train()
    trainer.save_metrics("train", train.metrics)
    trainer.save_metrics("eval", trainer.evaluate())
    trainer.save_metrics("test", trainer.predict(rows[52:], metric_key_prefix="test").metrics)
    trainer.save_state()
    return folder


def _metrics(predicted):
    is_right = predicted.predictions.argmax(-1) == predicted.label_ids
    positive = predicted.predictions.argmax(-1) == 1
    actual = predicted.label_ids == 1
    f1 = 2 * (positive & actual).sum() / max(1, positive.sum() + actual.sum())
    return {"accuracy": float(is_right.mean()), "f1": float(f1)}
