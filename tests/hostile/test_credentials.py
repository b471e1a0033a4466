"""Credentials of the environment: no file of a study holds their values."""

import os
import subprocess
import sys

PLANTED = {
    name: f"planted-secret-{number}"
    for number, name in enumerate(
        [
            "HF_TOKEN",
            "WANDB_API_KEY",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "OPENAI_API_KEY",
            "MLFLOW_TRACKING_PASSWORD",
        ]
    )
}


def test_no_file_of_a_study_holds_a_credential_of_the_environment(encoder, toy_csv, tmp_path):
    command = [
        sys.executable,
        "-m",
        "tuneoff",
        "compare",
        str(toy_csv),
        "--model",
        encoder,
        "--strategies",
        "head,probe",
    ]
    options = [
        "--epochs",
        "1",
        "--max-length",
        "16",
        "--folds",
        "none",
        "--seeds",
        "1",
        "--search",
        "none",
        "--keep",
        "all",
    ]
    cache = str(tmp_path / "cache")
    done = subprocess.run(
        [*command, *options, "--name", "planted"],
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, **PLANTED, "TUNEOFF_CACHE": cache},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert b"planted-secret" not in done.stdout + done.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "run.json" for file in files)
    assert [file for file in files if b"planted-secret" in file.read_bytes()] == []
