"""The LaTeX tables compile, whatever stands in them."""

import shutil
import subprocess

import pytest

from tests.stored import stored_study

pytestmark = pytest.mark.slow

CANDIDATES = [("full", "full", 0.95), ("lora", "lora", 0.7), ("tfidf", "tfidf", 0.6)]
HOSTILE = [
    "<script>",
    "50 % & more_$#",
    "\\input{/etc/passwd}",
    "a|b~c^d",
    "quotes \" ' `",
    "{open",
    "[spam] mail",
    "*star",
]
FOREIGN = ["مرحبا", "日本語", "😀", "ž"]


@pytest.mark.parametrize(
    ("engine", "labels"), [("pdflatex", HOSTILE), ("lualatex", [*HOSTILE, *FOREIGN])], ids=["pdflatex", "lualatex"]
)
def test_tables_compile(engine, labels, tmp_path):
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed (Debian: texlive-latex-recommended, texlive-luatex)")
    texts = [f"{label} in a text that is long enough to be set as a paragraph" for label in labels]
    reported = [{"strategy": "full", "score": 0.5, "source": HOSTILE[2]}]
    study = stored_study(tmp_path / "s", CANDIDATES, labels, texts=texts, num_test=200, reported=reported)
    study.report()
    names = sorted(path.name for path in (study.folder / "tables").glob("*.tex"))
    assert {"leaderboard.tex", "classes.tex", "label-errors.tex", "reported.tex"} <= set(names)
    body = "\n".join(f"\\input{{{study.folder}/tables/{name}}}\\clearpage" for name in names)
    packages = r"\documentclass{article}\usepackage{booktabs}\usepackage{graphicx}"
    (tmp_path / "all.tex").write_text(f"{packages}\\begin{{document}}\n{body}\n\\end{{document}}\n")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=240)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
