"""Data and encoders by hub name, from a stand-in on loopback, through the real clients."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.hub import hub
from tests.tiny import toy_texts

pytestmark = pytest.mark.slow


@pytest.fixture
def tuneoff(tmp_path, encoder):
    """Run a command in an empty folder while a hub has someone/reviews (two configs) and someone/tiny."""
    for config, count in (("plain", 60), ("small", 30)):
        folder = tmp_path / "hub" / "datasets" / "someone" / "reviews" / config
        folder.mkdir(parents=True)
        for split in ("train", "test"):
            texts, labels = toy_texts(count, np.random.default_rng(len(split)))
            pd.DataFrame({"sentence": texts, "label": labels}).to_parquet(folder / f"{split}.parquet")
    listed = "".join(
        f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train.parquet\n  - split: test\n    path: {config}/test.parquet\n"
        for config in ("plain", "small")
    )
    (folder.parent / "README.md").write_text(
        "---\ndataset_info:\n"
        + "".join(
            f"- config_name: {config}\n  features:\n  - name: sentence\n    dtype: string\n  - name: label\n    dtype:\n"
            "      class_label:\n        names:\n          '0': worse\n          '1': better\n"
            for config in ("plain", "small")
        )
        + f"configs:\n{listed}---\n"
    )
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


def test_a_hub_dataset_and_encoder_work_and_then_need_no_network(tuneoff):
    command = [
        "compare",
        "hf:someone/reviews/small",
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
    done = tuneoff(*command)
    assert done.returncode == 0, done.stderr
    assert "results/someone-reviews-small/report/index.html" in done.stdout
    again = tuneoff(*command, HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert "runs to make" not in again.stdout  # everything was stored, and nothing counts as new


def test_label_names_and_configs_come_from_the_hub(tuneoff):
    shown = tuneoff("inspect", "hf:someone/reviews/plain", "--model", "someone/tiny")
    assert shown.returncode == 0, shown.stderr
    assert "better" in shown.stdout
    for name, message in (("hf:someone/reviews", "Config name is missing"), ("hf:someone/reviewz", "cannot be loaded")):
        failed = tuneoff("inspect", name)
        assert failed.returncode == 2
        assert message in failed.stderr
        assert failed.stderr.count("\n") == 1
