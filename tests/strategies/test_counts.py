"""Published parameter counts come out from a config alone."""

import pytest

from tuneoff.encoder.load import empty_model
from tuneoff.errors import ConfigError, ModelError
from tuneoff.spec import parse_strategy
from tuneoff.strategies import STRATEGIES, count_parameters


def counts(strategy, model="distilbert-base-uncased", num_labels=2):
    config = parse_strategy(strategy)
    return count_parameters(STRATEGIES[config.name].apply(empty_model(model, num_labels), config))


@pytest.mark.parametrize(
    ("strategy", "trainable", "added"),
    [
        ("head", 592_130, 0),
        ("lora", 739_586, 147_456),
        ("lora:rank=16", 887_042, 294_912),
        ({"lora": {"targets": ["query", "key", "value"]}}, 813_314, 221_184),
        ("adapter:reduction=16", 592_130 + 447_264, 447_264),
        ("full", 66_955_010, 0),
    ],
)
def test_published_counts_of_distilbert(strategy, trainable, added):
    found = counts(strategy)
    assert (found.trainable, found.added, found.head) == (trainable, added, 592_130)
    assert found.total == 66_955_010 + added


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
def test_peft_counts_the_head_twice_and_we_do_not():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        empty_model("distilbert-base-uncased", 2),
        LoraConfig(
            task_type="SEQ_CLS",
            r=8,
            target_modules=["q_lin", "v_lin"],
            modules_to_save=["pre_classifier", "classifier"],
        ),
    )
    trainable, total = model.get_nb_trainable_parameters()
    assert (trainable, total) == (739_586, 67_694_596)
    assert counts("lora").total == total - 592_130


def test_layers_choose_blocks():
    assert counts("lora:layers=[4,5]").added == counts("lora").added // 3
    assert counts("partial:layers=6").trainable < counts("full").trainable


def test_layers_that_the_encoder_lacks_are_an_error():
    with pytest.raises(ConfigError, match="6 blocks; give a number from 1 to 6"):
        counts("partial:layers=7")
    with pytest.raises(ConfigError, match="indices from 0 to 5"):
        counts("lora:layers=[6]")


def test_a_reduction_above_the_hidden_size_is_an_error():
    with pytest.raises(ConfigError, match="hidden size 768"):
        counts("adapter:reduction=1000")


def test_an_unsupported_architecture_names_the_supported_ones(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ModelError, match=r"'gpt2' is unknown.*bert, ernie"):
        empty_model(str(tmp_path), 2)
