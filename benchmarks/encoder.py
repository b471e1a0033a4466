"""Full fine-tuning of one encoder beside HF Trainer tuned: tokens per second of training, and processor seconds.

Each measurement trains one epoch in a new process on all cores, in turns: Tuneoff, Tuneoff of another source tree
(`--before FOLDER`, its src), and HF Trainer at its best setting (bf16, dynamic padding, batches grouped by length).
Batches are the same in each repeat, so that the sum of each step's fastest time is that of an epoch which nothing else
on the machine disturbs. Tokens are those of the texts, without padding. A folder with a config.json alone gets random
weights, and the tokens of `--tokenizer`.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

BATCH, LENGTH, RATE = 16, 128, 2e-5
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}  # as our workers have


@dataclass
class Measured:
    """An epoch of training."""

    tokens: int
    processor_seconds: float
    steps: list[float]  # seconds of each step
    loss: float


def main() -> None:
    """Measure in turns, and print each figure and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of an encoder, or packaged:NAME")
    parser.add_argument("--tokenizer", help="of another encoder, for a folder that has none")
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--strategy", default="full")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="1: processor seconds without waiting")
    parser.add_argument("--before", help="src folder of an earlier version")
    parser.add_argument("--only", help="one of ours, before, trainer: measure in this process")
    args = parser.parse_args()
    if args.only:
        import torch

        torch.set_num_threads(args.threads)
        measure = with_trainer if args.only == "trainer" else with_tuneoff
        print(json.dumps(asdict(measure(args))))
        return
    names = ["ours", *(["before"] if args.before else []), *(["trainer"] if args.strategy == "full" else [])]
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for _ in range(args.repeats):
        for name in names:
            environment = {**os.environ, **(MALLOC if name != "trainer" else {})}
            if name == "before":
                environment["PYTHONPATH"] = args.before
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
            printed = subprocess.check_output(command, env=environment, stderr=subprocess.DEVNULL)
            measured = Measured(**json.loads(printed.splitlines()[-1]))
            found[name].append(measured)
            speed = measured.tokens / sum(measured.steps)
            print(f"{name}: {speed:.0f} tokens/s, {measured.processor_seconds:.1f} processor seconds", flush=True)
    for name in names:
        fastest = sum(map(min, zip(*(row.steps for row in found[name]), strict=True)))
        tokens, processor = found[name][0].tokens, median(row.processor_seconds for row in found[name])
        whole = median(sum(row.steps) for row in found[name])
        print(
            f"{name}: {tokens / fastest:.0f} tokens/s by each step's fastest time, {tokens / whole:.0f} in the median "
            f"run; {tokens / processor:.0f} per processor second"
        )


def tables(args: argparse.Namespace) -> Any:
    """Tokenize the first texts of Rotten Tomatoes."""
    from tuneoff.data.load import load_dataset
    from tuneoff.data.spec import DataSpec
    from tuneoff.data.tokens import tokenize
    from tuneoff.encoder.config import load_tokenizer

    limits = {"train": args.examples, "validation": 40, "test": 40}
    dataset = load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits=limits))
    return tokenize(dataset, load_tokenizer(args.tokenizer or args.model), LENGTH)["train"]


def folder_of(args: argparse.Namespace) -> str:
    """Return the encoder's folder; of a config without weights, one with random weights and a tokenizer."""
    from tuneoff.encoder.config import load_tokenizer, resolve

    path = Path(resolve(args.model))
    if not path.is_dir() or list(path.glob("*.safetensors")):
        return str(path)
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    folder = tempfile.mkdtemp()
    AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(path)).base_model.save_pretrained(folder)
    load_tokenizer(args.tokenizer).save_pretrained(folder)
    return folder


def with_tuneoff(args: argparse.Namespace) -> Measured:
    """Train by our loop."""
    import torch

    from tuneoff.encoder.load import load_model
    from tuneoff.engine.inputs import SplitInputs
    from tuneoff.engine.loop import TrainingSettings, train
    from tuneoff.engine.precision import resolve
    from tuneoff.engine.recipe import Recipe
    from tuneoff.spec import parse_strategy
    from tuneoff.strategies import STRATEGIES

    table, config = tables(args), parse_strategy(args.strategy)
    adapted = STRATEGIES[config.name].apply(load_model(folder_of(args), ("0", "1"), seed=0), config)
    settings = TrainingSettings(Recipe(epochs=1, batch_size=BATCH), RATE, 0, resolve("auto", torch.device("cpu")))
    processor, ends = time.process_time(), [time.perf_counter()]
    trained = train(adapted, SplitInputs(table), settings, None, lambda share: ends.append(time.perf_counter()))
    return measured(trained.tokens, processor, ends, trained.epochs[-1]["train_loss"])


def with_trainer(args: argparse.Namespace) -> Measured:
    """Train by HF Trainer with bf16, dynamic padding and batches grouped by length."""
    import datasets
    import numpy as np
    import transformers
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments

    from tuneoff.encoder.config import load_tokenizer

    table = tables(args)
    transformers.set_seed(0)
    ids = [part.tolist() for part in np.split(np.asarray(table.ids), table.offsets[1:-1])]
    data = datasets.Dataset.from_dict({"input_ids": ids, "label": table.labels.tolist()})
    options = TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, learning_rate=RATE, warmup_steps=0.1, weight_decay=0.01,
        per_device_train_batch_size=BATCH, train_sampling_strategy="group_by_length", bf16=True, use_cpu=True,
        save_strategy="no", eval_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(folder_of(args), num_labels=2)
    ends: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    collate = DataCollatorWithPadding(load_tokenizer(args.tokenizer or args.model))
    trainer = Trainer(model, options, collate, data, callbacks=[Clock()])
    processor = time.process_time()
    result = trainer.train()
    return measured(sum(map(len, ids)), processor, ends, result.training_loss)


def measured(tokens: int, processor: float, ends: list[float], loss: float) -> Measured:
    """Return the costs of an epoch. processor: seconds at its start; ends: its start, and the end of each step."""
    steps = [after - before for before, after in itertools.pairwise(ends)]
    return Measured(tokens, time.process_time() - processor, steps, loss)


if __name__ == "__main__":
    main()
