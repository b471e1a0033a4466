"""A full disk: whole files or none, a message that names the disk, and a study that goes on when there is space again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.storage import small_disk
from tests.studies import toy_spec
from tuneoff.damage import verify
from tuneoff.errors import StoreError
from tuneoff.files import write_json, write_text
from tuneoff.runs import FAILED, StudyStore
from tuneoff.spec.file import write_study


def test_a_file_on_a_full_disk_stays_as_it_was(tmp_path):
    with small_disk(tmp_path / "disk", "256k") as disk:
        write_text(disk / "a.json", "before")
        with pytest.raises(StoreError, match=r"the disk is full \(.*disk, 0\.\d MB free\)"):
            write_json(disk / "a.json", "x" * 2**20)
        assert (disk / "a.json").read_text() == "before"
        assert [path.name for path in disk.iterdir()] == ["a.json"]


def test_a_study_file_on_a_full_disk_is_whole_or_absent(encoder, toy_csv, tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        with pytest.raises(OSError, match="No space left"):
            (disk / "ballast").write_bytes(bytes(2**20))
        with pytest.raises(StoreError, match=r"the disk is full"):
            write_study(toy_spec(encoder, toy_csv), disk / "study.yaml")
        assert not (disk / "study.yaml").exists()


MOMENTS = (0, 20, 60, 100, 150, 250, 400, 600, 900, 1500)  # free kilobytes: from the start to the last runs


@pytest.mark.slow
@pytest.mark.parametrize("full", ["results", "cache"])
@pytest.mark.parametrize(
    "free_kilobytes",
    [moment if moment in (0, 150) else pytest.param(moment, marks=pytest.mark.soak) for moment in MOMENTS],
)
def test_a_study_on_a_full_disk_says_so_and_goes_on_later(full, free_kilobytes, encoder, toy_csv, tmp_path):
    """At several moments: at the start, while data and tokens are stored, and while runs are."""
    spec = toy_spec(encoder, toy_csv, strategies=["tfidf", "lora", "full"], seeds=[0], keep="all", workers=1)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    with small_disk(tmp_path / "disk", "16m") as disk:
        (disk / "ballast").write_bytes(bytes(2**24 - 8192 - 1024 * free_kilobytes))
        places = {"results": tmp_path, "cache": tmp_path / "cache", full: disk}
        command = [sys.executable, "-m", "tuneoff", "run", str(tmp_path / "toy.yaml"), "--quiet"]
        environment = {**os.environ, "TUNEOFF_CACHE": str(places["cache"])}
        first = subprocess.run(command, cwd=places["results"], env=environment, capture_output=True, text=True)
        assert "Traceback" not in first.stdout + first.stderr
        folder = places["results"] / "results" / "toy"
        assert not list(Path(places["cache"]).glob(".unfinished-*"))
        reasons = _reasons(folder)
        if first.returncode:
            assert "the disk is full" in first.stderr + " ".join(reasons), first.stderr
        assert all("the disk is full" in reason for reason in reasons), reasons
        assert not (folder / "study.yaml").exists() or (folder / "study.yaml").stat().st_size > 500
        if folder.is_dir():
            assert verify(folder).damage == ()
        (disk / "ballast").unlink()
        second = subprocess.run(command, cwd=places["results"], env=environment, capture_output=True, text=True)
        assert second.returncode == 0, second.stderr
        assert _reasons(folder) == []
        assert verify(folder).damage == ()


def _reasons(folder):
    runs = StudyStore(folder).runs
    records = [runs.record(path.name) for path in (folder / "runs").glob("[!.]*")]
    return [record.reason for record in records if record.status == FAILED]
