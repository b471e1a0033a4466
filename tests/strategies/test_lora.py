"""LoRA's bias, start of the update, LoRA+, and merged weights."""

import pytest
import torch

from tests.tiny import random_batch, tiny_model
from tests.training import adapted_model, toy_model, toy_table
from tuneoff.encoder.packed import forward
from tuneoff.engine.master_weights import MasterWeights
from tuneoff.engine.optim import parameter_groups
from tuneoff.engine.precision import compute_dtype
from tuneoff.errors import ConfigError
from tuneoff.spec.strategy import parse_strategy


def biases(adapted):
    names = [name for name in adapted.trainable if name.endswith(".bias") and name.startswith("bert.encoder")]
    return {name.removeprefix("bert.encoder.layer.") for name in names}


def test_bias_says_which_biases_of_the_encoder_train():
    assert biases(adapted_model("lora")) == set()
    own = biases(adapted_model("lora:bias=lora_only:layers=[1]"))
    assert own == {"1.attention.self.query.base_layer.bias", "1.attention.self.value.base_layer.bias"}
    assert "0.output.dense.bias" in biases(adapted_model("lora:bias=all:layers=[1]"))


@pytest.mark.parametrize("init", ["default", "gaussian", "orthogonal", "pissa", "olora"])
def test_no_start_of_the_update_changes_the_outputs_before_training(init):
    batch, plain = random_batch([5, 9, 3]), tiny_model("bert")
    adapted = adapted_model(f"lora:rank=4:init={init}")
    for name, parameter in plain.named_parameters():  # the head is drawn anew
        if name.startswith("classifier"):
            parameter.data = adapted.model.get_parameter(name).data
    plain.bert.pooler.load_state_dict(adapted.model.bert.pooler.state_dict())
    torch.testing.assert_close(forward(adapted.model.eval(), batch), forward(plain, batch), atol=1e-5, rtol=1e-4)


def test_lora_plus_multiplies_the_learning_rate_of_b_alone():
    adapted = toy_model("lora:lora_plus=8")
    with compute_dtype(torch.float32, adapted.model) as fp32_weights:
        masters = MasterWeights(adapted.model, fp32_weights, toy_table().ids)
        groups = parameter_groups(adapted, masters, 1e-3, 0.01)
        rates = {id(p): group["lr"] for group in groups for p in group["params"]}
        by_name = {name: rates[id(masters[p])] for name, p in adapted.trainable.items()}
    assert {rate for name, rate in by_name.items() if ".lora_B." in name} == {8e-3}
    assert {rate for name, rate in by_name.items() if ".lora_B." not in name} == {1e-3}


@pytest.mark.parametrize("strategy", ["lora", "lora:init=pissa:rank=4", "peft:type=dora", "peft:type=ia3"])
def test_merged_weights_give_the_same_logits_and_are_taken_apart_bit_by_bit(strategy):
    adapted, batch = adapted_model(strategy), random_batch([5, 9, 3])
    for parameter in adapted.trainable.values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model = adapted.model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        apart = forward(model, batch)
        with adapted.merged():
            assert not any("lora_" in name or "ia3_" in name for name in model.state_dict())
            torch.testing.assert_close(forward(model, batch), apart, atol=1e-4, rtol=1e-4)
        assert torch.equal(forward(model, batch), apart)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("bias=some", "strategy lora: bias: should be 'none', 'all' or 'lora_only', not 'some'"),
        ("init=loftq", "strategy lora: init: should be 'default'"),
        ("lora_plus=0", "strategy lora: lora_plus: should be greater than 0, not 0"),
    ],
)
def test_an_invalid_option_is_one_line(options, message):
    with pytest.raises(ConfigError, match=message):
        parse_strategy(f"lora:{options}")


def test_an_odd_rank_does_not_go_with_the_orthogonal_start():
    with pytest.raises(ConfigError, match=r"lora init orthogonal does not fit rank 3: .*rank to be even"):
        adapted_model("lora:init=orthogonal:rank=3")
