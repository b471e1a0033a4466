"""What a strategy saves is restored on a fresh encoder, with the same logits, for every method and architecture."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from tests.saved import saved_model
from tests.strategies.rows import STRATEGY_NAMES
from tests.tiny import toy_texts, word_tokenizer
from tuneoff.deliver.classifier import as_texts, load_classifier, restored_model
from tuneoff.errors import ConfigError, DataError, ModelError
from tuneoff.spec.strategy import parse_strategy

TEXTS = toy_texts(6, np.random.default_rng(0))[0]


def same_parameters(first, second):
    stored, restored = first.state_dict(), second.state_dict()
    return stored.keys() == restored.keys() and all(
        torch.equal(value, restored[name]) for name, value in stored.items()
    )


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_every_strategy_is_restored(strategy, tmp_path):
    model, saved = saved_model(strategy, "bert", tmp_path)
    restored = restored_model(tmp_path / "model", saved)
    assert not restored.training
    probabilities = load_classifier([tmp_path / "model"]).predict_proba(TEXTS)
    with torch.no_grad():
        batch = word_tokenizer()(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt")
        model.set_attn_implementation("eager")
        expected = model(**batch).logits.softmax(-1).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("strategy", ["full", "lora", "adapter:reduction=2"])
@pytest.mark.parametrize("model_type", ["distilbert", "roberta", "albert", "modernbert", "mpnet", "deberta-v2"])
def test_other_architectures_are_restored(strategy, model_type, tmp_path):
    model, saved = saved_model(strategy, model_type, tmp_path)
    assert same_parameters(model, restored_model(tmp_path / "model", saved))


def test_an_adapter_of_another_shape_is_refused(tmp_path):
    _, saved = saved_model("lora", "bert", tmp_path)
    fewer = saved.model_copy(update={"strategy": parse_strategy("lora:layers=[1]")})
    with pytest.raises(ModelError, match="holds weights that do not fit the encoder"):
        restored_model(tmp_path / "model", fewer)


def test_texts_are_read_from_lists_pairs_and_tables():
    assert as_texts(["a", "b"], False).to_pydict() == {"text": ["a", "b"]}
    assert as_texts([("a", "b")], True).to_pydict() == {"text": ["a"], "text_pair": ["b"]}
    frame = pd.DataFrame({"text": ["a"], "n": [1], "text_pair": ["b"]})
    assert as_texts(frame, False).to_pydict() == {"text": ["a"]}
    assert as_texts(pa.Table.from_pandas(frame), True).to_pydict() == {"text": ["a"], "text_pair": ["b"]}
    assert as_texts(pd.DataFrame({"body": ["a"]}), False).to_pydict() == {"text": ["a"]}
    for wrong, message in (
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "the table has no column 'text'; it has a, b"),
        (pd.DataFrame({"text": [1]}), "column 'text' holds no texts"),
        (pd.DataFrame({"text": ["a", None]}), "column 'text' holds missing values"),
    ):
        with pytest.raises(DataError, match=message):
            as_texts(wrong, False)
    with pytest.raises(ConfigError, match="texts is a dict"):
        as_texts({"text": ["a"]}, False)


@pytest.mark.filterwarnings("ignore")  # of transformers, about a head that is drawn anew and then loaded
@pytest.mark.parametrize("options", ["bias=all", "bias=lora_only", "init=pissa:rank=4", "init=olora:rank=4:bias=all"])
def test_peft_itself_reads_trained_biases_and_updates_that_started_from_the_weights(options, tmp_path):
    model, _ = saved_model(f"lora:{options}", "bert", tmp_path)
    model.set_attn_implementation("eager")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "encoder", num_labels=3)
    loaded = PeftModel.from_pretrained(plain, str(tmp_path / "model")).eval()
    batch = word_tokenizer()(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-5)
