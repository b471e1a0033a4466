"""Sizes of strategies: cached, but never from other code, a damaged entry, or a cache that cannot be written."""

import json

import pytest

from tuneoff.cache import cache_folder
from tuneoff.execute import profile as module
from tuneoff.execute.profile import profile
from tuneoff.spec.strategy import parse_strategy

HEAD = parse_strategy("head")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_second_call_reads_the_cache(encoder, cache, monkeypatch):
    first = profile(HEAD, encoder, 2)
    monkeypatch.setattr(module, "_profile", None)
    assert profile(HEAD, encoder, 2) == first


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"counts": {}}', '{"counts": 1, "strange": 2}'])
def test_a_damaged_entry_is_computed_again(encoder, cache, content):
    first = profile(HEAD, encoder, 2)
    (entry,) = cache_folder().glob("profile-*/profile.json")
    stored = entry.read_text()
    entry.write_text(content)
    assert profile(HEAD, encoder, 2) == first
    assert profile(HEAD, encoder, 2) == first
    assert json.loads(entry.read_text()) == json.loads(stored)


def test_a_cache_that_cannot_be_written_is_not_used(encoder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path / "file" / "cache"))
    assert profile(HEAD, encoder, 2).counts.trainable > 0


def test_an_edit_of_a_strategy_or_the_encoder_gives_another_key(tmp_path, monkeypatch):
    files = [
        tmp_path / name for name in ("strategies/full.py", "encoder/anatomy.py", "execute/profile.py", "compat.py")
    ]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("x = 1")
    monkeypatch.setattr(module, "__file__", str(files[2]))
    fingerprints = {module._source_fingerprint.__wrapped__()}
    for file in files:
        file.write_text("x = 2")
        fingerprints.add(module._source_fingerprint.__wrapped__())
    assert len(fingerprints) == 1 + len(files)
