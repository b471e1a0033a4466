"""The notebook of examples/ runs from its first cell to its last, and is stored without outputs, so that it stays as written."""

from pathlib import Path

import pytest

from tuneoff import packaged
from tuneoff.errors import TuneoffError

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"


def is_installed():
    try:
        return bool(packaged.model_folder("minilm") and packaged.reviews_file("rotten-tomatoes"))
    except TuneoffError:
        return False


def outputs(cell):
    """The text and the HTML of a cell's outputs."""
    data = [output.get("data", {"text/plain": output.get("text", "")}) for output in cell.outputs]
    return "\n".join(value for each in data for kind, value in each.items() if kind in ("text/plain", "text/html"))


def test_the_notebook_is_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
@pytest.mark.skipif(not is_installed(), reason="the packaged encoder and reviews are not installed")
@pytest.mark.filterwarnings("default")  # of the libraries of notebooks
def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = {cell.source.splitlines()[-1]: outputs(cell) for cell in code}
    assert "<table" in shown["comparison.leaderboard"]
    assert "Pick " in shown["print(comparison.verdict.text)"]
    assert "tuneoff.Classifier" in shown["classifier"]
    assert "positive" in next(
        text for line, text in shown.items() if line.startswith("pd.DataFrame(classifier.predict_proba")
    )
    assert "array([" in next(text for line, text in shown.items() if line.startswith("cross_val_score"))
    assert (tmp_path / "results" / "notebook" / "report" / "index.html").is_file()
    for cell in code:
        # tqdm asks for ipywidgets, which nothing here needs
        errors = [output.text for output in cell.outputs if output.get("name") == "stderr"]
        assert [text for text in errors if "IProgress" not in text] == []
