"""Saved models with random trained parameters: no training, any strategy and architecture."""

import torch

from tests.tiny import WORDS, tiny_model, word_tokenizer
from tuneoff.data.spec import TruncationPolicy
from tuneoff.deliver.saved import SavedModel
from tuneoff.encoder.config import model_fingerprint
from tuneoff.encoder.load import load_model
from tuneoff.spec.strategy import parse_strategy
from tuneoff.strategies import STRATEGIES


def saved_model(strategy, model_type, folder, seed=1, names=("a", "b", "c")):
    """A model whose trainable parameters are random, saved as a run saves it. Returns it with the description."""
    encoder, into = folder / "encoder", folder / "model"
    if not encoder.is_dir():
        tiny_model(model_type, vocab_size=len(WORDS) + 5).base_model.save_pretrained(encoder)
        word_tokenizer().save_pretrained(encoder)
    adapted = STRATEGIES[parse_strategy(strategy).name].apply(
        load_model(str(encoder), names, seed), parse_strategy(strategy)
    )
    torch.manual_seed(seed)
    for parameter in adapted.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    into.mkdir()
    adapted.model.eval()
    (adapted.save or (lambda whole, target: whole.save_pretrained(target)))(adapted.model, into)
    word_tokenizer().save_pretrained(into)
    saved = SavedModel(
        run_id="run", repeat="seed 0", strategy=strategy, model=str(encoder), label_names=names, is_multilabel=False,
        model_fingerprint=model_fingerprint(str(encoder)), is_pair=False, truncation=TruncationPolicy(16),
    )  # fmt: skip
    saved.write(into)
    return adapted.model, saved
