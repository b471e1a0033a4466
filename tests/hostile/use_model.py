"""Everything that a study does with an encoder before and while it trains, on a tiny dataset."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tests.studies import toy_spec
from tests.tiny import WORDS, tiny_model, toy_texts, word_tokenizer
from tuneoff.deliver.embed import Embedder
from tuneoff.execute.profile import profile
from tuneoff.grid import prepare
from tuneoff.strategies import STRATEGIES


def tiny_folder(folder: Path) -> str:
    """Write the folder of a tiny BERT that is as it should be."""
    model = tiny_model("bert", vocab_size=len(WORDS) + 5)
    model.set_attn_implementation("eager")
    model.base_model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def use_model(folder: Path, data: Path) -> None:
    """Prepare a study with a model, count its parameters, load it and embed a few texts."""
    texts, labels = toy_texts(40, np.random.default_rng(0))
    pd.DataFrame({"text": texts, "label": np.where(labels == 1, "positive", "negative")}).to_csv(data, index=False)
    prepare(toy_spec(str(folder), data, strategies=["full"], baselines=False, recipe={"epochs": 1, "max_length": 16}))
    profile(STRATEGIES["full"].config.model_validate({}), str(folder), 2)
    Embedder(str(folder)).vectors(pa.table({"text": texts}))
