"""The command track, and --track: where a study is stored, and what a failing tracker changes."""

import pytest

from tests.stored import stored_study


def test_the_command_stores_a_finished_study(tuneoff, tmp_path):
    pytest.importorskip("tensorboard")
    study = stored_study(tmp_path / "made", [("majority", "majority", 0.5), ("full", "full", 0.9)])
    code, _, err = tuneoff("track", study.folder, "--to", "tensorboard")
    assert (code, "has no report" in err) == (2, True)
    study.report()
    code, out, _ = tuneoff("track", study.folder, "--to", "tensorboard")
    assert code == 0
    assert out.startswith("tensorboard: stored in ")
    assert (study.folder / "tensorboard" / "study-made").is_dir()
    (tmp_path / "file").touch()
    code, out, _ = tuneoff("track", study.folder, "--to", f"tensorboard:folder={tmp_path / 'file'}")
    assert code == 1
    assert out.startswith("Warning: tensorboard: the study is not stored there")
    code, _, err = tuneoff("track", study.folder)
    assert (code, "no tracker given" in err) == (2, True)
    code, _, err = tuneoff("track", "nowhere", "--to", "mlflow")
    assert (code, "does not exist" in err) == (2, True)


@pytest.mark.slow
def test_a_study_is_stored_after_its_run_and_a_failing_tracker_changes_no_exit_code(
    tuneoff, toy_csv, encoder, tmp_path
):
    pytest.importorskip("tensorboard")
    options = [
        "--model",
        encoder,
        "--strategies",
        "head",
        "--epochs",
        "1",
        "--max-length",
        "16",
        "--seeds",
        "1",
        "--search",
        "none",
    ]
    code, out, err = tuneoff("compare", toy_csv, *options, "--track", f"tensorboard:folder={tmp_path / 'logs'}")
    assert code == 0, err
    assert "tensorboard: stored in " in out
    assert (tmp_path / "logs" / "toy" / "study-toy").is_dir()
    (tmp_path / "file").touch()
    code, out, err = tuneoff("run", "results/toy", "--track", f"tensorboard:folder={tmp_path / 'file'}", "--quiet")
    assert (code, out) == (0, "")
    assert "Warning: tensorboard: the study is not stored there" in err
