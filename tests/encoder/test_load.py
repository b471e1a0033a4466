"""Loaded models: the head depends only on the seed, and incomplete models are rejected."""

import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.tiny import CONFIGS, tiny_model
from tuneoff.encoder.anatomy import blocks
from tuneoff.encoder.config import load_config, load_tokenizer, model_fingerprint
from tuneoff.encoder.load import empty_model, initialise_head, load_model, set_head_dropout
from tuneoff.errors import ModelError


def change_weights(folder, change):
    """Apply a function to the stored weights of a model."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_head_depends_only_on_the_seed(encoder):
    first = load_model(encoder, ("a", "b"), seed=3)
    torch.rand(17)  # another state of the global generator
    same_seed, new_seed = (load_model(encoder, ("a", "b"), seed=seed) for seed in (3, 4))
    assert torch.equal(first.classifier.weight, same_seed.classifier.weight)
    assert not torch.equal(first.classifier.weight, new_seed.classifier.weight)
    assert first.classifier.weight.std().item() == pytest.approx(0.02, rel=0.5)
    assert (first.classifier.bias == 0).all()


def test_initialising_a_head_does_not_move_the_global_generator(encoder):
    model = load_model(encoder, ("a", "b"), seed=0)
    state = torch.get_rng_state()
    initialise_head(model, 5)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_of_the_checkpoint_are_kept(encoder):
    stored = load_file(f"{encoder}/model.safetensors")
    model = load_model(encoder, ("a", "b", "c"), seed=0)
    assert torch.equal(model.bert.pooler.dense.weight, stored["pooler.dense.weight"])
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, stored["embeddings.word_embeddings.weight"])
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_weights_without_part_of_the_encoder_are_rejected(encoder, tmp_path):
    folder = tmp_path / "partial"
    shutil.copytree(encoder, folder)
    change_weights(folder, lambda weights: weights.pop("encoder.layer.1.output.dense.weight"))
    with pytest.raises(ModelError, match="lack 1 of the encoder's parameters"):
        load_model(str(folder), ("a", "b"), seed=0)


def test_a_packaged_model_loads_and_a_misspelt_one_is_suggested():
    config = load_config("packaged:minilm")
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("bert", 384, 6)
    assert load_tokenizer("packaged:minilm").is_fast
    with pytest.raises(ModelError, match="'minlm' is unknown; did you mean 'minilm'"):
        load_config("packaged:minlm")


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("gpt2", "architecture 'gpt2' is unknown; choose from bert"),
        ("invented", "has an architecture that transformers does not support; choose a model of bert"),
    ],
)
def test_an_unsupported_architecture_is_an_error_that_lists_the_supported_ones(model_type, message, tmp_path):
    (tmp_path / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    with pytest.raises(ModelError, match=message):
        load_config(str(tmp_path))


def test_packaged_configs_need_no_network():
    sizes = {
        name: sum(p.numel() for p in empty_model(name, 2).parameters())
        for name in ("bert-base-uncased", "roberta-base")
    }
    # the encoders' 109,482,240 and (without a pooler) 124,055,040, and the classifiers
    assert sizes == {"bert-base-uncased": 109_483_778, "roberta-base": 124_647_170}


def test_the_fingerprint_changes_with_the_weights(encoder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(encoder, folder)
    assert model_fingerprint(str(folder)) == model_fingerprint(encoder)
    change_weights(folder, lambda weights: weights["pooler.dense.bias"].add_(1))
    assert model_fingerprint(str(folder)) != model_fingerprint(encoder)


def test_loading_is_quiet_and_leaves_the_settings_of_transformers(encoder, capfd):
    logging = transformers.utils.logging
    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    try:
        load_model(encoder, ("a", "b"), seed=0)
        assert capfd.readouterr().err == ""
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.WARNING, True)
    finally:
        logging.set_verbosity_error()
        logging.disable_progress_bar()


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_head_has_a_dropout_rate_of_its_own_in_every_architecture(model_type):
    model = tiny_model(model_type)
    before = {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    set_head_dropout(model, 0.5)
    rates = {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    changed = {name for name, rate in rates.items() if rate != before[name]}
    inside = {
        name for block in blocks(model) for name, m in model.named_modules() if any(m is own for own in block.modules())
    }
    assert changed
    assert not changed & inside
    assert all(rates[name] == 0.5 for name in changed)


def test_head_dropout_goes_with_the_rate_of_everything_else(encoder):
    model = load_model(encoder, ("a", "b"), 0, dropout=0.2, head_dropout=0.5)
    assert model.dropout.p == 0.5
    assert model.bert.embeddings.dropout.p == 0.2
