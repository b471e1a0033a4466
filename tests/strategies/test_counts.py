"""Parameter counts from a config equal published ones; impossible options are errors."""

import pytest
from peft import LoraConfig, get_peft_model

from tuneoff.encoder.load import empty_model
from tuneoff.errors import ConfigError
from tuneoff.spec.strategy import parse_strategy
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
def test_counts_of_distilbert_equal_published_ones(strategy, trainable, added):
    parameters = counts(strategy)
    assert (parameters.trainable, parameters.added, parameters.head) == (trainable, added, 592_130)
    assert parameters.total == 66_955_010 + added


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
def test_the_total_counts_the_head_once_where_peft_counts_it_twice():
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


def test_layers_select_blocks():
    assert counts("lora:layers=[4,5]").added == counts("lora").added // 3
    assert counts("partial:layers=6").trainable < counts("full").trainable


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("partial:layers=7", "6 blocks; give a number from 1 to 6"),
        ("lora:layers=[6]", "indices from 0 to 5"),
        ("adapter:reduction=1000", "reduction 1000 is above the hidden size 768; use a number from 1 to 768"),
    ],
)
def test_options_that_the_encoder_does_not_allow_are_errors(strategy, message):
    with pytest.raises(ConfigError, match=message):
        counts(strategy)
