"""Preparing a study: lengths are checked against every encoder before any of them tokenizes."""

import json
import shutil
from pathlib import Path

import pytest

from tests.studies import toy_spec
from tuneoff.errors import ConfigError
from tuneoff.grid import prepare


def with_positions(encoder, folder, positions):
    """A copy of an encoder whose config states another number of positions."""
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"max_position_embeddings": positions}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def test_a_length_beyond_any_encoder_is_an_error_before_texts_are_tokenized(encoder, toy_csv, tmp_path, monkeypatch):
    short = with_positions(encoder, tmp_path / "short", 32)
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path / "cache"))
    spec = toy_spec(encoder, toy_csv, model=[encoder, short], recipe={"max_length": 48})
    with pytest.raises(ConfigError, match=r"max_length 48 is above the limit of .*short; use at most 32"):
        prepare(spec)
    assert not list(Path(tmp_path / "cache").glob("tokens-*"))


def test_an_encoder_without_a_limit_takes_any_length(encoder, toy_csv, tmp_path):
    unlimited = with_positions(encoder, tmp_path / "unlimited", -1)
    prepared = prepare(toy_spec(encoder, toy_csv, model=unlimited, recipe={"max_length": 5000}))
    assert list(prepared.tokens) == [unlimited]
