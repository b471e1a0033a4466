"""The command check: exit codes, the screen, and the comment."""

import json

import pytest

from tests.stored import stored_study


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("check")
    rows = [("majority", "majority", 0.5)]
    return {
        name: stored_study(place / name, [*rows, ("full", "full", accuracy)], seeds=3, num_test=600).folder
        for name, accuracy in {"good": 0.9, "bad": 0.7}.items()
    }


def test_exit_codes_tell_a_pass_from_a_failure_from_a_mistake(tuneoff, folders):
    code, out, _ = tuneoff("check", folders["good"], "--not-worse-than", folders["bad"], "--margin", "0.01")
    assert (code, out.count("\n")) == (0, 3)
    assert out.startswith("Not worse: full of ")
    code, out, _ = tuneoff("check", folders["bad"], "--not-worse-than", folders["good"], "--margin", "0.01")
    assert code == 1
    assert out.startswith("Worse: full of ")


def test_a_comment_is_written_whatever_the_result(tuneoff, folders, tmp_path):
    code, _, _ = tuneoff("check", folders["bad"], "--not-worse-than", folders["good"], "--comment", "comment.md")
    assert code == 1
    assert (tmp_path / "comment.md").read_text(encoding="utf-8").startswith("❌ **Worse: full of ")


def test_json_holds_the_decision(tuneoff, folders):
    code, out, _ = tuneoff("check", folders["good"], "--not-worse-than", folders["bad"], "--json")
    assert code == 0
    assert json.loads(out)["decision"]["standing"] == "not worse"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--not-worse-than", "nowhere"], "folder 'nowhere' does not exist"),
        (["--not-worse-than", "GOOD", "--margin", "5"], "margin 5 is not from 0 to 0.5"),
        (["--not-worse-than", "GOOD", "--metric", "acuracy"], "did you mean 'accuracy'"),
        (["--not-worse-than", "GOOD", "--strategy", "ful"], "did you mean 'full'"),
        (["--not-worse-than", "GOOD", "--comment", "no/folder.md"], "--comment 'no/folder.md': folder 'no' does not"),
        (["--not-worse-than", "."], "holds neither a study nor runs"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tuneoff, folders, options, message):
    code, out, err = tuneoff("check", folders["bad"], *[folders["good"] if o == "GOOD" else o for o in options])
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
