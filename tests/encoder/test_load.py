"""Models as loaded: the head depends on the seed alone, and what is unsafe or incomplete is refused."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tuneoff.encoder.load import empty_model, load_config, load_model, load_tokenizer, model_fingerprint
from tuneoff.errors import ModelError


def head(model):
    return {name: value for name, value in model.state_dict().items() if name.startswith("classifier")}


def test_the_head_depends_on_the_seed_alone(encoder):
    first = load_model(encoder, ("a", "b"), seed=3)
    torch.rand(17)  # another state of the global generator
    again, other = load_model(encoder, ("a", "b"), seed=3), load_model(encoder, ("a", "b"), seed=4)
    assert all(torch.equal(value, head(again)[name]) for name, value in head(first).items())
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.classifier.weight.std().item() == pytest.approx(0.02, rel=0.5)
    assert (first.classifier.bias == 0).all()


def test_loading_leaves_the_global_generator_alone(encoder):
    from tuneoff.encoder.load import initialise_head

    model = load_model(encoder, ("a", "b"), seed=0)
    state = torch.get_rng_state()
    initialise_head(model, 5)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_the_checkpoint_holds_is_kept(encoder):
    stored = load_file(f"{encoder}/model.safetensors")
    model = load_model(encoder, ("a", "b", "c"), seed=0)
    assert torch.equal(model.bert.pooler.dense.weight, stored["pooler.dense.weight"])
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, stored["embeddings.word_embeddings.weight"])
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_weights_that_lack_part_of_the_encoder_are_refused(encoder, tmp_path):
    import shutil

    folder = tmp_path / "partial"
    shutil.copytree(encoder, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lack 1 of the encoder's parameters"):
        load_model(str(folder), ("a", "b"), seed=0)


def test_a_packaged_model_is_checked_and_found():
    config = load_config("packaged:minilm")
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("bert", 384, 6)
    assert load_tokenizer("packaged:minilm").is_fast
    with pytest.raises(ModelError, match="'minlm' is unknown; did you mean 'minilm'"):
        load_config("packaged:minlm")


def test_shipped_configs_need_no_network():
    sizes = {
        name: sum(p.numel() for p in empty_model(name, 2).parameters())
        for name in ("bert-base-uncased", "roberta-base")
    }
    # 109,482,240 and 124,055,040 (no pooler) of the encoders, and the classifier
    assert sizes == {"bert-base-uncased": 109_483_778, "roberta-base": 124_647_170}


def test_the_fingerprint_follows_the_weights(encoder, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(encoder, folder)
    assert model_fingerprint(str(folder)) == model_fingerprint(encoder)
    weights = load_file(folder / "model.safetensors")
    weights["pooler.dense.bias"] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert model_fingerprint(str(folder)) != model_fingerprint(encoder)
