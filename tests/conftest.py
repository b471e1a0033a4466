"""Shared fixtures: a cache for the session, a tiny encoder, toy data, and small studies. Every test runs offline."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from tests.studies import toy_spec
from tests.tiny import WORDS, tiny_model, toy_texts, word_tokenizer
from tests.workers import SharedExecutor
from tuneoff.execute.executor import Event
from tuneoff.study import Study

# workers that tests start as processes: importing them, as the search for doctests does, would run them
collect_ignore_glob = ["execute/*_worker.py"]

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    config.addinivalue_line("markers", "soak: one of many cases of a kind; only make soak runs it")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    os.environ["TUNEOFF_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _one_worker():
    shared = SharedExecutor()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuneoff.study.LocalExecutor", shared)
        patch.setattr("tuneoff.execute.local.LocalExecutor", shared)  # of the command line
        yield
    shared.end()


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A folder with a tiny random BERT and a tokenizer that knows the toy words."""
    folder = tmp_path_factory.mktemp("encoder") / "tiny-bert"
    model = tiny_model("bert", vocab_size=len(WORDS) + 5)
    model.set_attn_implementation("eager")
    model.base_model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def toy():
    """Sixty separable examples as a DataFrame: what is good is positive."""
    texts, labels = toy_texts(60, np.random.default_rng(0))
    return pd.DataFrame({"text": texts, "label": np.where(labels == 1, "positive", "negative")})


@pytest.fixture
def toy_csv(toy, tmp_path):
    """The same as a CSV file."""
    path = tmp_path / "toy.csv"
    toy.to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def finished(encoder, tmp_path_factory):
    """A finished study, its comparison and its events; tests read it and do not change it."""
    folder = tmp_path_factory.mktemp("study")
    texts, labels = toy_texts(100, np.random.default_rng(0))
    pd.DataFrame({"text": texts, "label": np.where(labels == 1, "positive", "negative")}).to_csv(
        folder / "toy.csv", index=False
    )
    study = Study(toy_spec(encoder, folder / "toy.csv"), folder / "results")
    events: list[Event] = []
    return study, study.run(events.append), events


@pytest.fixture
def small(encoder, toy_csv, tmp_path):
    """A quick study of two strategies, for tests that change it."""
    return Study(
        toy_spec(encoder, toy_csv, strategies=["tfidf", "head"], seeds=[0], recipe={"epochs": 1, "max_length": 16}),
        tmp_path / "small",
    )
