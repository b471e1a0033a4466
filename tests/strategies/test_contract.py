"""One table of checks for every strategy that trains by gradient: adding a strategy adds a row."""

import copy

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from tests.tiny import CONFIGS, WORDS, random_batch, tiny_model, toy_texts, word_tokenizer
from tuneoff.data.encode import encode_split
from tuneoff.encoder.anatomy import anatomy, blocks, is_head, layers
from tuneoff.encoder.load import initialise_head
from tuneoff.encoder.packed import forward
from tuneoff.engine.feed import Feed, predict, with_prefix
from tuneoff.engine.loop import train
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ModelError
from tuneoff.metrics import evaluate
from tuneoff.spec import parse_strategy
from tuneoff.strategies import STRATEGIES
from tuneoff.strategies.adapter import Bottleneck
from tuneoff.strategies.peft import METHODS

# strategy, the rate at which a tiny random model learns the toy set, the first block that trains (None: does not apply)
# options and rates that suit the tiny model
SMALL = {
    "oft": ":oft_block_size=4",
    "fourierft": ":n_frequency=20",
    "waveft": ":n_frequency=20",
    "road": ":group_size=4",
    "gralora": ":r=4",
}
PEFT_RATES = {"ia3": 1e-1, "oft": 1e-1, "boft": 1e-1, "ln_tuning": 1e-1}
ROWS = [
    ("head", 1e-1, 2),
    ("partial:layers=1", 1e-2, 1),
    ("bitfit", 1e-1, 0),
    ("lora:targets=query+value+up+down", 3e-2, 0),
    ("lora:layers=[1]:dropout=0.1", 3e-2, 1),
    ("adapter:reduction=2", 3e-2, 0),
    ("adapter:reduction=2:placement=houlsby", 3e-2, 0),
    ("adapter:reduction=2:placement=parallel", 1e-2, 0),
    ("adapter:layers=[1]:reduction=2:placement=parallel:scale=1", 1e-2, 1),
    *[(f"peft:type={kind}{SMALL.get(kind, '')}", PEFT_RATES.get(kind, 3e-2), 0) for kind in METHODS],
    ("peft:type=dora:layers=[1]", 3e-2, 1),
    ("full", 1e-2, 0),
    ("full:layer_decay=0.8", 1e-2, 0),
]
NAMES = [row[0] for row in ROWS]


def adapted_model(strategy, model_type="bert", seed=0, **changes):
    model = tiny_model(model_type, **changes)
    config = parse_strategy(strategy)
    torch.manual_seed(seed)
    initialise_head(model, seed)
    return STRATEGIES[config.name].apply(model, config)


def toy_table(count=64, seed=0):
    texts, labels = toy_texts(count, np.random.default_rng(seed))
    return encode_split(pa.table({"text": texts, "label": labels}), word_tokenizer(), 32)


def train_on_toy(adapted, rate, epochs=4, seed=0, feed=None, **changes):
    table = toy_table()

    def validate():
        answers = predict(adapted.model, Feed(table))
        chances = torch.from_numpy(answers).softmax(-1).numpy()
        return evaluate(table.labels, chances.argmax(1), chances)

    recipe = Recipe(epochs=epochs, batch_size=8, **changes)
    return train(adapted, feed or Feed(table), recipe, rate, seed, torch.float32, validate, "accuracy")


def toy_model(strategy, seed=0):
    # large random weights, so that even a frozen encoder tells words apart
    return adapted_model(strategy, seed=seed, num_labels=2, vocab_size=len(WORDS) + 5, initializer_range=0.3)


@pytest.mark.parametrize(("strategy", "rate", "first"), ROWS)
def test_declared_parameters_move_and_all_others_stay(strategy, rate, first):
    adapted = toy_model(strategy)
    before = {name: value.clone() for name, value in adapted.model.state_dict().items()}
    assert adapted.first_trained_block == first
    train_on_toy(adapted, rate, epochs=1)
    used = set(adapted.trainable)
    for name, value in adapted.model.state_dict().items():
        if name not in used:
            assert torch.equal(value, before[name]), name
    # the rows of embeddings and positions that no text uses have no gradient, but some rows always do
    still = [name for name in used if torch.equal(adapted.model.state_dict()[name], before[name])]
    assert not still


@pytest.mark.parametrize("strategy", NAMES)
def test_the_head_trains_and_is_declared(strategy):
    adapted = toy_model(strategy)
    assert all(
        name in adapted.trainable for name, _ in adapted.model.named_parameters() if is_head(adapted.model, name)
    )


@pytest.mark.parametrize(("strategy", "rate", "first"), ROWS)
def test_loss_falls_on_separable_examples(strategy, rate, first):
    trained = train_on_toy(toy_model(strategy), rate, epochs=12)
    assert trained.epochs[-1]["train_loss"] < 0.85 * trained.epochs[0]["train_loss"]


@pytest.mark.parametrize(("strategy", "rate", "first"), ROWS)
def test_same_seed_same_bits(strategy, rate, first):
    one, two, other = toy_model(strategy), toy_model(strategy), toy_model(strategy, seed=1)
    for adapted, seed in ((one, 0), (two, 0), (other, 1)):
        train_on_toy(adapted, rate, epochs=1, seed=seed)
    states = [adapted.model.state_dict() for adapted in (one, two, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())


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
def test_what_is_added_starts_equal_to_the_plain_model(strategy, model_type):
    batch = random_batch([5, 9, 3])
    plain = tiny_model(model_type)
    initialise_head(plain, 0)
    adapted = adapted_model(strategy, model_type)
    assert adapted.added
    torch.testing.assert_close(forward(adapted.model.eval(), batch), forward(plain, batch), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("model_type", CONFIGS)
@pytest.mark.parametrize("strategy", NAMES)
def test_gradients_reach_exactly_what_is_declared_in_every_architecture(strategy, model_type):
    if (strategy, model_type) == ("bitfit", "modernbert"):  # it has no biases
        with pytest.raises(ModelError, match="choose lora or adapter"):
            adapted_model(strategy, model_type)
        return
    adapted = adapted_model(strategy, model_type)
    for parameter in adapted.trainable.values():  # updates start at zero, which would stop the gradient behind them
        parameter.data += 0.01
    F.cross_entropy(forward(adapted.model, random_batch([5, 9, 3])), torch.tensor([0, 1, 2])).backward()
    reached = {name for name, parameter in adapted.model.named_parameters() if parameter.grad is not None}
    # MPNet's and DeBERTa's encoders hold parameters that a classifier does not use
    unused = {name for name in adapted.trainable if name not in reached}
    assert reached <= set(adapted.trainable)
    assert unused <= {name for name, p in _plain_unreached(model_type)}


def _plain_unreached(model_type):
    model = tiny_model(model_type).requires_grad_(True)
    F.cross_entropy(forward(model, random_batch([5, 9, 3])), torch.tensor([0, 1, 2])).backward()
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta", "albert", "modernbert", "nomic_bert"])
@pytest.mark.parametrize("strategy", ["head", "partial:layers=1"])
def test_a_cached_prefix_gives_the_same_logits(strategy, model_type):
    adapted = adapted_model(strategy, model_type, num_labels=2, vocab_size=len(WORDS) + 5)
    table, first = toy_table(), adapted.first_trained_block
    feed = with_prefix(adapted.model, table, first, f"{model_type}-{strategy}", torch.float32)
    if first > 0:
        assert feed.states is not None
    whole, behind = (predict(adapted.model, f) for f in (Feed(table), feed))
    np.testing.assert_allclose(behind, whole, atol=1e-5)


def test_a_prefix_beyond_its_budget_is_recomputed_with_the_same_result():
    cached, recomputed = toy_model("partial:layers=1"), toy_model("partial:layers=1")
    table = toy_table()
    within = with_prefix(cached.model, table, 1, "budget", torch.float32)
    beyond = with_prefix(recomputed.model, table, 1, "budget", torch.float32, budget=10)
    assert within.states is not None
    assert beyond.states is None
    losses = [
        [step["loss"] for step in train_on_toy(adapted, 1e-2, epochs=2, feed=feed).steps]
        for adapted, feed in ((cached, within), (recomputed, beyond))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_partial_shares_albert_blocks():
    adapted = adapted_model("partial:layers=1", "albert")
    assert len(set(blocks(adapted.model))) == 1
    assert adapted.first_trained_block == 0


def test_layer_decay_slows_lower_blocks():
    from tuneoff.engine.optim import parameter_groups

    adapted = toy_model("full:layer_decay=0.5")
    masters = dict(zip(adapted.model.parameters(), adapted.model.parameters(), strict=True))
    groups = parameter_groups(adapted, masters, 1.0, 0.01)
    assert sorted({group["lr"] for group in groups}) == [0.125, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_parallel_adapter_adds_what_it_makes_of_the_feed_forwards_input(model_type):
    model = adapted_model("adapter:layers=[0]:reduction=2:placement=parallel:scale=3", model_type).model.eval()
    parts, layer, batch, seen = anatomy(model.config), layers(model, blocks(model)[0])[0], random_batch([5, 3]), {}
    bottleneck = next(module for module in layer.modules() if isinstance(module, Bottleneck))
    entrance, exit_ = (layer.get_submodule(name) for name in (parts.projections["up"][0], parts.feed_forward_output))
    # the first time: ALBERT passes a layer several times
    entrance.register_forward_hook(lambda module, given, output: seen.update({"read": given[0], **seen}))
    exit_.register_forward_hook(lambda module, given, output: seen.update({"gave": output, **seen}))
    with torch.no_grad():
        forward(model, batch)
        plain = seen["gave"]  # an adapter starts at zero
        seen.clear()
        torch.nn.init.normal_(bottleneck.adapter_up.weight)
        forward(model, batch)
        torch.testing.assert_close(seen["gave"], plain + 3 * bottleneck(seen["read"]))
        assert not torch.allclose(seen["gave"], plain)


def test_adapted_model_can_be_copied():
    adapted = toy_model("adapter:reduction=2")
    batch = random_batch([4, 6])
    copied = copy.deepcopy(adapted.model)
    assert forward(copied.eval(), batch.__class__(**{**vars(batch), "ids": batch.ids % 20})).shape == (2, 2)
