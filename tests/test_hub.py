"""Data and encoders by hub name, and uploads, with a local server, through the real clients."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.hub import TOKEN, hub
from tests.tiny import toy_texts

pytestmark = pytest.mark.slow


@pytest.fixture
def tuneoff(tmp_path, encoder):
    """Run a command in an empty folder while the hub has someone/reviews (two configs) and someone/tiny."""
    reviews = tmp_path / "hub" / "datasets" / "someone" / "reviews"
    features, data_files = [], []
    for config, count in (("plain", 60), ("small", 30)):
        (reviews / config).mkdir(parents=True)
        for split in ("train", "test"):
            texts, labels = toy_texts(count, np.random.default_rng(len(split)))
            pd.DataFrame({"sentence": texts, "label": labels}).to_parquet(reviews / config / f"{split}.parquet")
        label = {"name": "label", "dtype": {"class_label": {"names": {"0": "worse", "1": "better"}}}}
        columns = [{"name": "sentence", "dtype": "string"}, label]
        files = [{"split": split, "path": f"{config}/{split}.parquet"} for split in ("train", "test")]
        features.append({"config_name": config, "features": columns})
        data_files.append({"config_name": config, "data_files": files})
    card = yaml.safe_dump({"dataset_info": features, "configs": data_files})
    (reviews / "README.md").write_text(f"---\n{card}---\n")
    shutil.copytree(encoder, tmp_path / "hub" / "models" / "someone" / "tiny")

    with hub(tmp_path / "hub") as address:
        environment = {
            **os.environ,
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }

        def run(*arguments, **changes):
            return subprocess.run(
                [sys.executable, "-m", "tuneoff", *arguments],
                cwd=tmp_path,
                env={**environment, **changes},
                capture_output=True,
                text=True,
                check=False,
            )

        yield run


def test_a_hub_dataset_and_encoder_need_no_network_after_the_first_study(tuneoff, tmp_path):
    def stored_runs():
        folder = tmp_path / "results" / "someone-reviews-small" / "runs"
        return {file: file.stat().st_mtime_ns for file in folder.glob("*/run.json")}

    options = [
        "--model",
        "someone/tiny",
        "--strategies",
        "tfidf,head",
        "--seeds",
        "1",
        "--max-length",
        "16",
        "--epochs",
        "1",
    ]
    online = tuneoff("compare", "hf:someone/reviews/small", *options)
    assert online.returncode == 0, online.stderr
    assert "results/someone-reviews-small/report/index.html" in online.stdout
    runs = stored_runs()
    assert {file.parent.name.split("-")[0] for file in runs} == {"majority", "tfidf", "head"}
    offline = tuneoff("compare", "hf:someone/reviews/small", *options, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert stored_runs() == runs  # the same fingerprints of data and encoder: no run is new


def test_label_names_and_configs_come_from_the_hub(tuneoff):
    inspected = tuneoff("inspect", "hf:someone/reviews/plain", "--model", "someone/tiny")
    assert inspected.returncode == 0, inspected.stderr
    assert "better" in inspected.stdout


def test_hub_datasets_that_cannot_be_loaded_are_one_line(tuneoff):
    for name, message in (("hf:someone/reviews", "Config name is missing"), ("hf:someone/reviewz", "cannot be loaded")):
        failed = tuneoff("inspect", name)
        assert failed.returncode == 2
        assert message in failed.stderr
        assert failed.stderr.count("\n") == 1


def test_an_export_is_uploaded_with_the_users_credentials(tuneoff, finished, tmp_path):
    study, remote = str(finished[0].folder), tmp_path / "hub" / "models" / "me" / "reviews"
    options = ["export", study, "--strategy", "lora", "--to", "hub:me/reviews", "--out", "exported"]
    failed = tuneoff(*options)
    assert failed.stderr == (
        "tuneoff: there are no credentials for the hub; log in with: hf auth login, or set HF_TOKEN\n"
    )
    assert not (tmp_path / "exported").exists()
    failed = tuneoff(*options, HF_TOKEN="hf_wrong")
    assert failed.returncode == 2
    assert "tuneoff: the upload to hub:me/reviews failed (" in failed.stderr
    assert "the export is in exported, and the same command with --overwrite tries again" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert (tmp_path / "exported" / "README.md").is_file()
    assert not remote.exists()  # nothing was sent
    uploaded = tuneoff(*options, "--overwrite", HF_TOKEN=TOKEN)
    assert uploaded.returncode == 0, uploaded.stderr
    assert "Uploaded to http://127.0.0.1:" in uploaded.stdout
    local = {file.name: file.read_bytes() for file in (tmp_path / "exported").iterdir()}
    assert {file.name: file.read_bytes() for file in remote.iterdir()} == local
    created = json.loads((tmp_path / "hub" / "created.json").read_text())
    assert created.get("private") is True or created.get("visibility") == "private"
    public = tuneoff(*options, "--overwrite", "--public", "--format", "safetensors", "--no-check", HF_TOKEN=TOKEN)
    assert public.returncode == 0, public.stderr
    created = json.loads((tmp_path / "hub" / "created.json").read_text())
    assert created.get("private") is False or created.get("visibility") == "public"
    assert (remote / "adapter_model.safetensors").is_file()
    assert "hub:a b is no name on the hub" in tuneoff(*options[:5], "hub:a b").stderr
