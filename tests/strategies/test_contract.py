"""The same checks for every strategy that trains by gradient descent; the table is in rows.py."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.strategies.rows import ROWS, STRATEGY_NAMES
from tests.tiny import CONFIGS, WORDS, random_batch, tiny_model
from tests.training import adapted_model, toy_model, toy_table, train_on_toy
from tuneoff.encoder.anatomy import anatomy, blocks, is_head, layers
from tuneoff.encoder.load import initialise_head
from tuneoff.encoder.packed import forward
from tuneoff.engine.inputs import SplitInputs, cached_prefix_inputs, predict_logits
from tuneoff.engine.master_weights import MasterWeights
from tuneoff.engine.optim import parameter_groups
from tuneoff.engine.precision import compute_dtype
from tuneoff.errors import ConfigError, ModelError
from tuneoff.strategies.bottleneck import Bottleneck


@pytest.mark.parametrize(("strategy", "learning_rate", "first_block"), ROWS)
def test_only_declared_parameters_change(strategy, learning_rate, first_block):
    adapted = toy_model(strategy)
    before = {name: value.clone() for name, value in adapted.model.state_dict().items()}
    assert adapted.first_trained_block == first_block
    train_on_toy(adapted, learning_rate, epochs=1)
    trainable = set(adapted.trainable)
    for name, value in adapted.model.state_dict().items():
        if name not in trainable:
            assert torch.equal(value, before[name]), name
    # of embeddings, rows that no text uses have no gradient, but some rows always do
    unchanged = [name for name in trainable if torch.equal(adapted.model.state_dict()[name], before[name])]
    assert not unchanged


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_the_head_trains(strategy):
    adapted = toy_model(strategy)
    head = {name for name, _ in adapted.model.named_parameters() if is_head(adapted.model, name)}
    assert head
    assert head <= set(adapted.trainable)


@pytest.mark.parametrize(("strategy", "learning_rate", "first_block"), ROWS)
def test_loss_falls_on_separable_examples(strategy, learning_rate, first_block):
    trained = train_on_toy(toy_model(strategy), learning_rate, epochs=12)
    assert trained.epochs[-1]["train_loss"] < 0.85 * trained.epochs[0]["train_loss"]


@pytest.mark.parametrize(("strategy", "learning_rate", "first_block"), ROWS)
def test_the_same_seed_gives_the_same_bits(strategy, learning_rate, first_block):
    weights = []
    for seed in (0, 0, 1):
        adapted = toy_model(strategy, seed=seed)
        train_on_toy(adapted, learning_rate, epochs=1, seed=seed)
        weights.append(adapted.model.state_dict())
    first, same_seed, new_seed = weights
    assert all(torch.equal(value, same_seed[name]) for name, value in first.items())
    assert not all(torch.equal(value, new_seed[name]) for name, value in first.items())


@pytest.mark.parametrize("model_type", CONFIGS)
@pytest.mark.parametrize(
    "strategy",
    [
        "lora:targets=query+key+value+output+up+down",
        "adapter:reduction=2",
        "adapter:reduction=2:placement=houlsby",
        "adapter:reduction=2:placement=parallel",
    ],
)
def test_added_parameters_do_not_change_the_model_before_training(strategy, model_type):
    batch = random_batch([5, 9, 3])
    plain = tiny_model(model_type)
    initialise_head(plain, 0)
    adapted = adapted_model(strategy, model_type)
    assert adapted.added
    torch.testing.assert_close(forward(adapted.model.eval(), batch), forward(plain, batch), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("model_type", CONFIGS)
@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_gradients_reach_exactly_the_declared_parameters_in_every_architecture(strategy, model_type):
    biased = {"modernbert": ("bitfit", "bias="), "nomic_bert": ("bias=lora_only",)}  # these lack biases
    if any(part in strategy for part in biased.get(model_type, ())):
        with pytest.raises((ModelError, ConfigError), match=r"choose lora or adapter|leave out bias"):
            adapted_model(strategy, model_type)
        return
    adapted = adapted_model(strategy, model_type)
    for parameter in adapted.trainable.values():  # updates start at zero, which would stop gradients
        parameter.data += 0.01
    F.cross_entropy(forward(adapted.model, random_batch([5, 9, 3])), torch.tensor([0, 1, 2])).backward()
    reached = {name for name, parameter in adapted.model.named_parameters() if parameter.grad is not None}
    not_reached = set(adapted.trainable) - reached
    assert reached <= set(adapted.trainable)
    assert not_reached <= parameters_that_a_classifier_does_not_use(model_type)


def parameters_that_a_classifier_does_not_use(model_type):
    """Some parameters of the encoders of MPNet and DeBERTa."""
    model = tiny_model(model_type).requires_grad_(True)
    F.cross_entropy(forward(model, random_batch([5, 9, 3])), torch.tensor([0, 1, 2])).backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is None}


@pytest.mark.parametrize(
    "model_type", ["bert", "distilbert", "roberta", "albert", "modernbert", "nomic_bert", "mpnet", "deberta-v2"]
)
@pytest.mark.parametrize("strategy", ["head", "partial:layers=1"])
def test_cached_outputs_of_frozen_blocks_give_the_same_logits(strategy, model_type):
    adapted = adapted_model(strategy, model_type, num_labels=2, vocab_size=len(WORDS) + 5)
    table, first_block = toy_table(), adapted.first_trained_block
    cached = cached_prefix_inputs(adapted.model, table, first_block, f"{model_type}-{strategy}", torch.float32)
    assert (cached.states is not None) == (first_block > 0)  # ALBERT's shared block trains from the first position on
    expected = predict_logits(adapted.model, SplitInputs(table))
    np.testing.assert_allclose(predict_logits(adapted.model, cached), expected, atol=1e-5)


def test_frozen_blocks_beyond_the_budget_are_recomputed_with_the_same_losses():
    cached, recomputed = toy_model("partial:layers=1"), toy_model("partial:layers=1")
    table = toy_table()
    within = cached_prefix_inputs(cached.model, table, 1, "budget", torch.float32)
    beyond = cached_prefix_inputs(recomputed.model, table, 1, "budget", torch.float32, budget=10)
    assert within.states is not None
    assert beyond.states is None
    losses, expected = (
        [step["loss"] for step in train_on_toy(adapted, 1e-2, epochs=2, inputs=inputs).steps]
        for adapted, inputs in ((cached, within), (recomputed, beyond))
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_partial_trains_the_shared_block_of_albert():
    adapted = adapted_model("partial:layers=1", "albert")
    assert len(set(blocks(adapted.model))) == 1
    assert adapted.first_trained_block == 0


def test_layer_decay_halves_the_learning_rate_from_block_to_block():
    adapted = toy_model("full:layer_decay=0.5")
    with compute_dtype(torch.float32, adapted.model) as fp32_weights:
        master_weights = MasterWeights(adapted.model, fp32_weights, toy_table().ids)
        groups = parameter_groups(adapted, master_weights, 1.0, 0.01)
    assert sorted({group["lr"] for group in groups}) == [0.125, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_parallel_adapter_adds_its_output_for_the_input_of_the_feed_forward(model_type):
    model = adapted_model("adapter:layers=[0]:reduction=2:placement=parallel:scale=3", model_type).model.eval()
    parts, layer, batch = anatomy(model.config), layers(model, blocks(model)[0])[0], random_batch([5, 3])
    bottleneck = next(module for module in layer.modules() if isinstance(module, Bottleneck))
    first, last = (layer.get_submodule(name) for name in (parts.projections["up"][0], parts.feed_forward_output))
    inputs, outputs = [], []  # lists, because ALBERT runs a layer repeatedly; the first pass is compared
    first.register_forward_hook(lambda module, arguments, output: inputs.append(arguments[0]))
    last.register_forward_hook(lambda module, arguments, output: outputs.append(output))
    with torch.no_grad():
        forward(model, batch)
        plain = outputs[0]  # an adapter starts at zero
        inputs.clear()
        outputs.clear()
        torch.nn.init.normal_(bottleneck.adapter_up.weight)
        forward(model, batch)
        torch.testing.assert_close(outputs[0], plain + 3 * bottleneck(inputs[0]))
        assert not torch.allclose(outputs[0], plain)


@pytest.mark.parametrize("strategy", ["adapter:reduction=2", "lora"])
def test_a_copy_of_an_adapted_model_gives_the_same_logits(strategy):
    model = adapted_model(strategy).model.eval()
    batch = random_batch([4, 6])
    assert torch.equal(forward(copy.deepcopy(model), batch), forward(model, batch))
