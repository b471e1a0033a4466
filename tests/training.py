"""Helpers that adapt a tiny model and train it on the toy set: 64 examples of two separable classes."""

import numpy as np
import pyarrow as pa
import torch

from tests.tiny import WORDS, tiny_model, toy_texts, word_tokenizer
from tuneoff.data.tokens import tokenize_split
from tuneoff.encoder.load import initialise_head
from tuneoff.engine.inputs import SplitInputs, predict_logits
from tuneoff.engine.loop import TrainingSettings, Validation, train
from tuneoff.engine.recipe import Recipe
from tuneoff.scoring.metrics import evaluate
from tuneoff.spec.strategy import parse_strategy
from tuneoff.strategies import STRATEGIES

# for a loop that is compared with another one, whose random numbers differ
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 2, "vocab_size": 24}


def adapted_model(strategy, model_type="bert", seed=0, **changes):
    """A tiny model adapted by a strategy. changes: of the model's config."""
    model = tiny_model(model_type, **changes)
    config = parse_strategy(strategy)
    torch.manual_seed(seed)
    initialise_head(model, seed)
    return STRATEGIES[config.name].apply(model, config)


def toy_model(strategy, seed=0):
    """A tiny BERT for the toy set, with weights so large that even a frozen encoder tells its words apart."""
    return adapted_model(strategy, seed=seed, num_labels=2, vocab_size=len(WORDS) + 5, initializer_range=0.3)


def toy_table(count=64, seed=0):
    """The tokens of the toy set."""
    texts, labels = toy_texts(count, np.random.default_rng(seed))
    return tokenize_split(pa.table({"text": texts, "label": labels}), word_tokenizer(), 32)


def train_on_toy(
    adapted,
    learning_rate,
    epochs=4,
    seed=0,
    inputs=None,
    dtype=torch.float32,
    on_progress=lambda share: None,
    checkpoint=None,
    should_stop=lambda scores: False,
    on_end=None,
    **changes,
):
    """Train, by default in fp32, on the toy set, which is the validation split too. changes: of the recipe."""
    table = toy_table()

    def validate():
        logits = torch.from_numpy(predict_logits(adapted.model, SplitInputs(table)))
        probabilities = logits.softmax(-1).numpy()
        return evaluate(table.labels, probabilities.argmax(1), probabilities)

    recipe = Recipe(epochs=epochs, batch_size=8, **changes)
    inputs = inputs or SplitInputs(table)
    settings = TrainingSettings(recipe, learning_rate, seed, dtype)
    validation = Validation(validate, "accuracy", should_stop)
    return train(adapted, inputs, settings, validation, on_progress, checkpoint, on_end)


def train_with_scores(adapted, scores, metric="accuracy", **changes):
    """Train on the toy set with invented validation scores, one per epoch. changes: of the recipe."""
    left = iter(scores)
    recipe, inputs = Recipe(epochs=len(scores), **changes), SplitInputs(toy_table())
    settings = TrainingSettings(recipe, 1e-2, 0, torch.float32)
    return train(adapted, inputs, settings, Validation(lambda: {metric: next(left)}, metric))
