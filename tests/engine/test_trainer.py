"""Fifty steps beside HF Trainer, and peft for LoRA: with dropout off, in fp32, on the same batches, the same losses."""

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from tests.strategies.test_contract import adapted_model, toy_table, train_on_toy
from tuneoff.data.batches import pack, training_order
from tuneoff.strategies.lora import FastLinear

EPOCHS, BATCH = 7, 8
NO_DROPOUT = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 2,
    "vocab_size": 24,
    "initializer_range": 0.3,
}


class InOurOrder(Dataset):
    """The examples of all epochs one after the other, in the order in which our loop takes them."""

    def __init__(self, table):
        order = [training_order(table.lengths, BATCH, 0, epoch) for epoch in range(EPOCHS)]
        self.table, self.examples = table, np.concatenate([batch for epoch in order for batch in epoch])

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        batch = pack(self.table, self.examples[index : index + 1])
        return {"input_ids": batch.ids[0, : batch.num_tokens], "labels": batch.labels[0]}


def collate(rows):
    ids = [row["input_ids"] for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones_like(row) for row in ids], batch_first=True)
    return {
        "input_ids": pad(ids, batch_first=True),
        "attention_mask": mask,
        "labels": torch.stack([r["labels"] for r in rows]),
    }


class Losses(TrainerCallback):
    def __init__(self):
        self.found = []

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.found.append(float(logs["loss"]))


def with_trainer(model, rate, folder):
    options = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        train_sampling_strategy="sequential",
        learning_rate=rate,
        weight_decay=0.01,
        warmup_steps=0.1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    losses = Losses()
    Trainer(model, options, collate, InOurOrder(toy_table()), callbacks=[losses]).train()
    return losses.found


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("strategy", "rate"), [("full", 1e-3), ("lora", 5e-3)])
def test_fifty_steps_follow_the_trainer(strategy, rate, tmp_path):
    ours, plain = (adapted_model(strategy, **NO_DROPOUT) for _ in range(2))
    model = plain.model
    if strategy == "lora":
        # peft from the start, on the same encoder, with the same first updates
        model = adapted_model("full", **NO_DROPOUT).model
        model = get_peft_model(
            model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])
        )
        theirs = {name.replace(".default", ""): p for name, p in model.named_parameters()}
        with torch.no_grad():
            for name, parameter in plain.trainable.items():
                whole = f"base_model.model.{name.replace('.default', '')}"
                whole = whole if whole in theirs else whole.replace("classifier.", "classifier.modules_to_save.")
                theirs[whole].copy_(parameter)
        for name, parameter in model.named_parameters():  # our head has the pooler
            parameter.requires_grad_(parameter.requires_grad or "pooler" in name)
    model.set_attn_implementation("eager")
    losses = with_trainer(model, rate, tmp_path)
    found = [step["loss"] for step in train_on_toy(ours, rate, epochs=EPOCHS).steps]
    assert len(found) == 56
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:5])
    np.testing.assert_allclose(found, losses, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_fast_lora_layer_is_pefts(dropout):
    model = adapted_model(f"lora:dropout={dropout}").model.train()
    layer = next(module for module in model.modules() if isinstance(module, FastLinear))
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
    plain = copy.deepcopy(layer)
    plain.__class__ = FastLinear.__base__
    gradients = []
    states = torch.randn(1, 7, layer.in_features)
    for one in (layer, plain):
        torch.manual_seed(0)
        given = states.clone().requires_grad_()
        answer = one(given)
        answer.square().sum().backward()
        ours = [p.grad for p in one.parameters() if p.requires_grad]
        gradients.append([answer.detach(), given.grad, *ours])
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
