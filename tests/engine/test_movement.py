"""How far training moved representations: nothing before training, only what trained after it, on every architecture."""

import numpy as np
import pytest
import torch

from tests.tiny import CONFIGS, tiny_model, toy_texts, word_tokenizer
from tests.training import adapted_model, toy_model, toy_table, train_on_toy
from tuneoff.engine.movement import layer_vectors, movement

ROWS = np.arange(64)


@pytest.mark.parametrize(
    ("model_type", "changes"), [*[(name, {}) for name in CONFIGS], ("deberta-v2", {"conv_kernel_size": 3})], ids=str
)
def test_the_last_layer_is_the_encoders_output(model_type, changes):
    model, table = tiny_model(model_type, **changes), toy_table()
    vectors = layer_vectors(model, table, ROWS[:7])
    ids = torch.from_numpy(np.array(table.ids[table.offsets[3] : table.offsets[4]], np.int64))[None]
    if model.config.model_type not in ("mpnet", "deberta-v2"):
        model.set_attn_implementation("eager")
    with torch.no_grad():
        states = model.base_model(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(torch.from_numpy(vectors[-1, 3]), states.mean(0), atol=2e-5, rtol=1e-4)
    assert len(vectors) == model.config.num_hidden_layers + 1


def test_training_all_moves_layers_and_training_the_head_does_not():
    table = toy_table()
    for strategy, is_moved in (("full", True), ("lora", True), ("head", False)):
        adapted = toy_model(strategy)
        train_on_toy(adapted, 1e-2, epochs=2)
        moved = movement(adapted.model, lambda: toy_model("full").model, table, ROWS, "tiny")
        assert moved["examples"] == 64
        assert (min(moved["cka"]) < 0.999) == is_moved
        if not is_moved:
            assert moved["cka"] == pytest.approx([1, 1, 1], abs=1e-6)


def test_partial_training_moves_the_upper_layers_only():
    adapted = adapted_model("partial:layers=1", num_labels=2, vocab_size=24)
    train_on_toy(adapted, 1e-2, epochs=2)
    pretrained = adapted_model("full", num_labels=2, vocab_size=24).model
    cka = movement(adapted.model, lambda: pretrained, toy_table(), ROWS, "tiny partial")["cka"]
    assert cka[:2] == pytest.approx([1, 1], abs=1e-6)
    assert cka[2] < 0.999


def test_random_generators_and_the_mode_are_left_as_they_were():
    model, table = toy_model("full").model.train(), toy_table()
    torch.manual_seed(3)
    before = torch.get_rng_state()

    def load():
        torch.rand(5)
        return toy_model("full").model

    movement(model, load, table, ROWS, "tiny again")
    assert torch.equal(before, torch.get_rng_state())
    assert model.training


def test_too_few_examples_are_not_compared():
    assert movement(toy_model("full").model, lambda: None, toy_table(), ROWS[:3], "tiny") == {}


def test_windows_of_long_texts_are_averaged():
    import pyarrow as pa

    from tuneoff.data.spec import TruncationPolicy
    from tuneoff.data.tokens import tokenize_split

    texts, labels = toy_texts(8, np.random.default_rng(1))
    table = tokenize_split(
        pa.table({"text": [" ".join([t] * 3) for t in texts], "label": labels}),
        word_tokenizer(),
        TruncationPolicy(12, "windows"),
    )
    vectors = layer_vectors(toy_model("full").model, table, np.arange(8))
    assert vectors.shape[1] == 8
    assert np.isfinite(vectors).all()
