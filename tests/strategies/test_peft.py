"""Every method of peft that we take: saved as PeftModel reads it, in bf16 too; what we do not take is named."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from tests.strategies.test_contract import ROWS, adapted_model, toy_model, toy_table
from tests.tiny import padded, random_batch, tiny_model
from tuneoff.encoder.load import initialise_head
from tuneoff.encoder.packed import forward
from tuneoff.engine.feed import Feed
from tuneoff.engine.loop import train
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.spec import parse_strategy, study_from
from tuneoff.strategies.peft import METHODS, UNSUPPORTED

PEFT_ROWS = [name for name, *_ in ROWS if name.startswith("peft")]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an old name,
@pytest.mark.filterwarnings("ignore::UserWarning")  # and warns of what BOFT and LN tuning lack or do
@pytest.mark.parametrize("strategy", PEFT_ROWS)
def test_peft_loads_what_is_saved_and_gives_the_same_logits(strategy, tmp_path):
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
    adapted.saves(adapted.model, tmp_path / "adapter")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", attn_implementation="eager")
    loaded = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**padded(batch, 0)).logits, ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strategy", PEFT_ROWS)
def test_it_trains_in_bf16(strategy):
    adapted, table = toy_model(strategy), toy_table()
    recipe = Recipe(epochs=1, batch_size=8)
    trained = train(adapted, Feed(table), recipe, 1e-3, 0, torch.bfloat16, lambda: {"accuracy": 0.5}, "accuracy")
    assert len(trained.steps) == 8
    assert all(parameter.dtype == torch.float32 for parameter in adapted.trainable.values())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("peft", "strategy peft needs a type: one of dora"),
        ("peft:type=dorra", "peft type 'dorra' is unknown; did you mean 'dora'?"),
        ("peft:type=prefix", "peft type 'prefix' is not supported: it puts virtual tokens"),
        ("peft:type=dora:rr=3", "key 'rr' is unknown"),
        ("peft:type=dora:target_modules=query", "'target_modules' is set by Tuneoff; choose targets and layers instead"),
        ("peft:type=ln_tuning:targets=query", "trains the norms; leave targets out"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(given, said):
    with pytest.raises(ConfigError) as error:
        study_from({"data": {"source": "x"}, "strategies": [given]})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_options_that_do_not_fit_an_encoder_are_one_line():
    with pytest.raises(ConfigError, match="peft type 'c3a' does not fit this encoder with these options"):
        adapted_model("peft:type=c3a:block_size=7")


def test_labels_say_what_differs():
    assert parse_strategy("peft:type=dora").label == "peft dora"
    assert parse_strategy("peft:type=dora:r=16:learning_rate=0.001").label == "peft dora learning_rate=0.001 r=16"
    stored = study_from({"data": {"source": "x"}, "strategies": ["peft:type=dora:r=16"], "baselines": False})
    assert study_from(stored.model_dump(mode="json")) == stored


def test_every_type_of_the_list_has_an_answer():
    asked = [
        "dora",
        "ia3",
        "adalora",
        "vera",
        "loha",
        "lokr",
        "oft",
        "boft",
        "fourierft",
        "rslora",
        "prefix",
        "ptuning",
        "prompt",
        "ln_tuning",
    ]
    assert all(kind in METHODS or kind in UNSUPPORTED for kind in asked)
