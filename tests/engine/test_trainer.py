"""Losses of fifty steps equal those of HF Trainer, with peft for LoRA: same batches, no dropout, fp32."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from tests.training import NO_DROPOUT, adapted_model, toy_table, train_on_toy
from tuneoff.data.batches import pack, training_batches

EPOCHS, BATCH = 7, 8
CHANGES = {**NO_DROPOUT, "initializer_range": 0.3}


class InOurOrder(Dataset):
    """The examples of all epochs, in the order of our training loop."""

    def __init__(self, table):
        order = [training_batches(table.lengths, BATCH, 0, epoch) for epoch in range(EPOCHS)]
        self.table, self.examples = table, np.concatenate([batch for epoch in order for batch in epoch])

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        batch = pack(self.table, self.examples[index : index + 1])
        return {"input_ids": batch.ids[0, : batch.num_tokens], "labels": batch.labels[0]}


def collate(examples):
    ids = [example["input_ids"] for example in examples]
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones_like(piece) for piece in ids], batch_first=True)
    return {
        "input_ids": pad(ids, batch_first=True),
        "attention_mask": mask,
        "labels": torch.stack([example["labels"] for example in examples]),
    }


class Losses(TrainerCallback):
    def __init__(self):
        self.losses = []

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


def losses_of_trainer(model, learning_rate, folder):
    options = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        train_sampling_strategy="sequential",
        learning_rate=learning_rate,
        weight_decay=0.01,
        warmup_steps=0.1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    callback = Losses()
    Trainer(model, options, collate, InOurOrder(toy_table()), callbacks=[callback]).train()
    return callback.losses


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("strategy", "learning_rate"), [("full", 1e-3), ("lora", 5e-3)])
def test_losses_of_fifty_steps_equal_those_of_trainer(strategy, learning_rate, tmp_path):
    ours, plain = (adapted_model(strategy, **CHANGES) for _ in range(2))
    model = plain.model
    if strategy == "lora":
        # a plain peft model on the same encoder, with the same initial updates and head
        model = adapted_model("full", **CHANGES).model
        model = get_peft_model(
            model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])
        )
        theirs = {name.replace(".default", ""): p for name, p in model.named_parameters()}
        with torch.no_grad():
            for name, parameter in plain.trainable.items():
                their_name = f"base_model.model.{name.replace('.default', '')}"
                if their_name not in theirs:
                    their_name = their_name.replace("classifier.", "classifier.modules_to_save.")
                theirs[their_name].copy_(parameter)
        for name, parameter in model.named_parameters():  # our head includes the pooler
            parameter.requires_grad_(parameter.requires_grad or "pooler" in name)
    model.set_attn_implementation("eager")
    expected = losses_of_trainer(model, learning_rate, tmp_path)
    losses = [step["loss"] for step in train_on_toy(ours, learning_rate, epochs=EPOCHS).steps]
    assert len(losses) == 56
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
