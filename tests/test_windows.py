"""Systems such as Windows: without POSIX-only functions, and with stricter rules for files, names and characters."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.studies import toy_spec
from tests.windows import refused_names
from tuneoff.errors import StoreError
from tuneoff.files import write_json
from tuneoff.study import Study

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "tuneoff"
_TEXT_FILES = {"open", "read_text", "write_text"}


def is_text_without_encoding(call):
    """True for a call that reads or writes text in the system's own encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in ("run", "Popen", "check_output") and ("text" in keywords or "universal_newlines" in keywords):
        return "encoding" not in keywords
    if name not in _TEXT_FILES or "encoding" in keywords:
        return False
    if name == "write_text" and isinstance(call.func, ast.Name):
        return False  # files.write_text, which writes UTF-8
    if name != "open":
        return True
    if isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", None) == "os":
        return False  # descriptors, of bytes
    modes = [argument.value for argument in [*call.args, *keywords.values()] if isinstance(argument, ast.Constant)]
    is_builtin = isinstance(call.func, ast.Name)
    return (is_builtin or bool(modes)) and not any("b" in str(mode) for mode in modes)


def test_every_text_file_is_opened_with_an_encoding():
    calls = [
        f"{file.relative_to(SOURCE)}:{node.lineno}"
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and is_text_without_encoding(node)
    ]
    assert calls == []


def test_a_json_file_replaces_another(tmp_path, monkeypatch):
    """Path.rename raises on Windows where Path.replace does not."""
    monkeypatch.delattr(Path, "rename")
    for value in (1, 2):
        write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text(encoding="utf-8")) == 2


@pytest.mark.parametrize("name", ["con", "AUX.v2", "com1", "study."])
def test_a_new_study_with_a_name_that_windows_refuses_is_an_error(name, encoder, toy_csv, tmp_path):
    study = Study(toy_spec(encoder, toy_csv, name=name), tmp_path / name)
    with pytest.raises(StoreError, match=f"'{name}' cannot be the name of a file on Windows; choose another name"):
        study.run()
    assert not study.folder.exists()


@pytest.fixture
def on_windows(tmp_path):
    """Call the command line as on a Windows machine whose code page is ASCII; return what it prints."""
    (tmp_path / "start").mkdir()
    paths = [str(tmp_path / "start"), str(SOURCE.parent), str(ROOT)]
    (tmp_path / "start" / "sitecustomize.py").write_text("import tests.windows\n", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    windows = {"TUNEOFF_WINDOWS": "1", "PYTHONPATH": os.pathsep.join(paths), "TUNEOFF_CACHE": str(tmp_path / "cache")}

    def call(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "tuneoff", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **ascii_only, **windows, "COLUMNS": "120"},
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.mark.slow
def test_every_command_works_as_on_windows(on_windows, encoder, toy, tmp_path):
    names = {"positive": "schön: 好?", "negative": "négatif"}
    pd.concat([toy, toy.tail(1)]).replace({"label": names}).to_csv(tmp_path / "data.csv", index=False)
    assert "schön: 好?" in on_windows("inspect", "data.csv")
    assert "lora" in on_windows("params", encoder)
    study = ["--model", encoder, "--strategies", "tfidf,probe,head,full", "--folds", "none", "--seeds", "1"]
    study += ["--search", "2", "--epochs", "1", "--max-length", "16", "--slices", "label", "--name", "first"]
    assert "full" in on_windows("compare", "data.csv", *study)
    # again: more strategies, files that are replaced, tokens and frozen blocks from the cache
    assert "lora" in on_windows("compare", "data.csv", *study, "--strategies", "lora,partial:layers=1")
    assert "Nothing is missing" in on_windows("plan", "results/first/study.yaml")
    assert "Report: " in on_windows("report", "results/first", "--cost", "model_bytes")
    assert "schön: 好?" in on_windows("report", "results/first", "--json")
    on_windows("studies", "--prune")
    records = [json.loads(p.read_text(encoding="utf-8")) for p in (tmp_path / "results").glob("*/runs/*/run.json")]
    assert {record["status"] for record in records} == {"ok"}
    assert len(records) == 7
    assert refused_names(tmp_path / "results") == refused_names(tmp_path / "cache") == []
