"""The report as a LaTeX document, and the methods in sentences."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from tests.report.test_latex import CANDIDATES, FOREIGN, HOSTILE
from tests.stored import stored_study
from tuneoff.engine.recipe import Recipe
from tuneoff.report.section import Text
from tuneoff.report.sections.methods import section


@pytest.fixture
def study(tmp_path):
    """A stored study of three strategies whose name, labels and texts try to be markup."""
    texts = [f"{label} in a text that is long enough to be set as a paragraph" for label in HOSTILE]
    return stored_study(tmp_path / "s", CANDIDATES, HOSTILE, texts=texts, num_test=200)


def test_the_document_has_every_section_table_and_figure_of_the_report(study):
    study.report()
    text = (study.folder / "report" / "report.tex").read_text()
    report = (study.folder / "report.md").read_text()
    headings = re.findall(r"^## (.+)$", report, re.MULTILINE)
    assert [heading for heading in headings if rf"\section{{{heading}}}" not in text] == []
    figures = set(re.findall(r"\.\./(figures/[^}]+\.png)", text))
    assert {"figures/scores.png", "figures/loss.png"} <= figures
    assert [name for name in figures if not (study.folder / name).is_file()] == []
    assert text.startswith("% pdflatex report.tex")
    assert r"\input{/etc" not in text
    assert text.count(r"\begin{table}") >= 8


def test_texts_of_the_dataset_are_not_in_it(study):
    study.report()
    assert "long enough to be set as a paragraph" not in (study.folder / "report" / "report.tex").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "labels"), [("pdflatex", HOSTILE), ("lualatex", [*HOSTILE, *FOREIGN])], ids=["pdflatex", "lualatex"]
)
def test_the_document_compiles(engine, labels, tmp_path):
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed (Debian: texlive-latex-recommended, texlive-luatex)")
    study = stored_study(tmp_path / "s", CANDIDATES, labels, num_test=200)
    study.report()
    assert (study.folder / "report" / "report.tex").read_text().startswith(f"% {engine} ")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "report.tex"]
    done = subprocess.run(
        command, cwd=study.folder / "report", capture_output=True, text=True, errors="replace", timeout=240
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (study.folder / "report" / "report.pdf").stat().st_size > 100_000


def test_methods_state_data_models_training_and_statistics(tmp_path):
    study = stored_study(tmp_path / "s", CANDIDATES, num_test=80, recipe={"warmup": 0.06, "epochs": 4})
    text = " ".join(block.text for block in section(study.comparison()).blocks if isinstance(block, Text))
    for part in (
        "10 training, 20 validation and 80 test examples",
        "The pretrained encoder was m",
        "3 strategies were compared: full",
        "4 epochs",
        "rises over the first 6 % of the steps and then falls linearly to 0",
        "no hyperparameters were searched",
        "by accuracy on 80 test examples, the mean over 2 random seeds",
        "Holm",
    ):
        assert part in text


def test_methods_state_own_recipes_and_dropout_and_claim_no_equal_conditions(tmp_path):
    recipe = {"head_dropout": 0.5, "evaluate_every": 20}
    comparison = stored_study(
        tmp_path / "s", [("full", "full", 0.9), ("head", "head", 0.7)], recipe=recipe
    ).comparison()
    text = " ".join(block.text for block in section(comparison).blocks if isinstance(block, Text))
    assert "under equal conditions: AdamW" in text
    assert "After each epoch and after every 20 steps" in text
    assert "Dropout of the head was 0.5." in text
    own = Recipe(**recipe, batch_size=6).model_dump(mode="json")
    records = tuple(
        replace(record, spec={**record.spec, "recipe": own}) if record.strategy == "head" else record
        for record in comparison.records
    )
    text = " ".join(b.text for b in section(replace(comparison, records=records)).blocks if isinstance(b, Text))
    assert "under equal conditions: AdamW" not in text
    assert "head (batch_size 6). The recipe of the study has batch_size 16." in text


def test_methods_of_baselines_alone_say_nothing_of_training(tmp_path):
    study = stored_study(tmp_path / "s", [("tfidf", "tfidf", 0.8), ("majority", "majority", 0.5)])
    text = " ".join(block.text for block in section(study.comparison()).blocks if isinstance(block, Text))
    assert "AdamW" not in text
    assert "one random seed" in text
