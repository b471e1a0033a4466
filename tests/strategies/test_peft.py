"""Methods of peft: saved models load with PeftModel, training works in bf16, mistakes are clear errors."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from tests.strategies.rows import STRATEGY_NAMES
from tests.tiny import padded, random_batch, tiny_model
from tests.training import adapted_model, toy_model, toy_table
from tuneoff.encoder.load import initialise_head
from tuneoff.encoder.packed import forward
from tuneoff.engine.inputs import SplitInputs
from tuneoff.engine.loop import TrainingSettings, Validation, train
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.spec.file import study_from
from tuneoff.spec.strategy import parse_strategy
from tuneoff.strategies.peft import METHODS, UNSUPPORTED, Peft

PEFT_STRATEGIES = [name for name in STRATEGY_NAMES if name.startswith("peft")]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft reads a deprecated name of transformers,
@pytest.mark.filterwarnings("ignore::UserWarning")  # and warns about BOFT and LN tuning
@pytest.mark.parametrize("strategy", PEFT_STRATEGIES)
def test_a_saved_model_loads_with_peft_and_gives_the_same_logits(strategy, tmp_path):
    base = tiny_model("bert")
    initialise_head(base, 0)
    base.set_attn_implementation("eager")
    base.save_pretrained(tmp_path / "base")
    adapted = adapted_model(strategy)
    with torch.no_grad():
        for parameter in adapted.trainable.values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    batch = random_batch([5, 9, 3])
    ours = forward(adapted.model.eval(), batch)
    (tmp_path / "adapter").mkdir()
    adapted.save(adapted.model, tmp_path / "adapter")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", attn_implementation="eager")
    loaded = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**padded(batch, 0)).logits, ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strategy", PEFT_STRATEGIES)
def test_every_method_trains_in_bf16(strategy):
    adapted = toy_model(strategy)
    settings = TrainingSettings(Recipe(epochs=1, batch_size=8), 1e-3, 0, torch.bfloat16)
    validation = Validation(lambda: {"accuracy": 0.5}, "accuracy")
    trained = train(adapted, SplitInputs(toy_table()), settings, validation)
    assert len(trained.steps) == 8
    assert all(parameter.dtype == torch.float32 for parameter in adapted.trainable.values())


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("peft", "strategy peft needs a type: one of dora"),
        ("peft:type=dorra", "peft type 'dorra' is unknown; did you mean 'dora'?"),
        ("peft:type=prefix", "peft type 'prefix' is not supported: it puts virtual tokens"),
        ("peft:type=dora:rr=3", "key 'rr' is unknown"),
        ("peft:type=dora:target_modules=query", "'target_modules' is set by Tuneoff; choose targets and layers instead"),
        ("peft:type=ln_tuning:targets=query", "peft type 'ln_tuning' trains the norms and has no targets; remove targets"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_an_error_of_one_line(strategy, message):
    with pytest.raises(ConfigError) as error:
        study_from({"data": {"source": "x"}, "strategies": [strategy]})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_options_that_do_not_fit_the_encoder_are_an_error():
    with pytest.raises(ConfigError, match="peft type 'c3a' does not fit this encoder with these options"):
        adapted_model("peft:type=c3a:block_size=7")


def test_the_label_has_the_type_and_the_changed_options():
    assert parse_strategy("peft:type=dora").label == "peft dora"
    assert parse_strategy("peft:type=dora:r=16:learning_rate=0.001").label == "peft dora learning_rate=0.001 r=16"


def test_a_stored_study_with_a_peft_strategy_can_be_read_again():
    study = study_from({"data": {"source": "x"}, "strategies": ["peft:type=dora:r=16"], "baselines": False})
    assert study_from(study.model_dump(mode="json")) == study


# the methods that users know best
@pytest.mark.parametrize("kind", ["dora", "ia3", "adalora", "vera", "loha", "lokr", "oft", "boft", "fourierft", "rslora", "prefix", "ptuning", "prompt", "ln_tuning"])  # fmt: skip
def test_a_well_known_method_is_supported_or_its_error_has_the_reason(kind):
    if kind in METHODS:
        config = parse_strategy(f"peft:type={kind}")
        assert isinstance(config, Peft)
        assert config.learning_rate == METHODS[kind].learning_rate
    else:
        with pytest.raises(ConfigError, match=f"'{kind}' is not supported: {UNSUPPORTED[kind]}"):
            parse_strategy(f"peft:type={kind}")
