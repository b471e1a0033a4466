"""Damage to stored studies: every flipped bit and cut is found, named with what to do, and repaired by that alone."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.storage import flip_a_bit
from tests.studies import changed
from tuneoff.checksums import MANIFEST, SEALS
from tuneoff.cli.app import app
from tuneoff.damage import check, verify
from tuneoff.deliver.find import load
from tuneoff.errors import StoreError
from tuneoff.study import Study


@pytest.fixture
def study(finished, tmp_path):
    """A copy of a finished study, whose data stays where it was."""
    shutil.copytree(finished[0].folder, tmp_path / "toy")
    return Study.open(tmp_path / "toy")


def stored_files(folder):
    """The files of a study of which there are checksums: the outputs of reports, logs and locks have none."""
    outputs = {"report", "tables", "figures", SEALS}
    files = [path for path in folder.rglob("*") if path.is_file() and not outputs & {*path.relative_to(folder).parts}]
    return sorted(path for path in files if path.name not in ("report.md", "workers.log", ".lock"))


def run_command(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_a_study_as_it_was_stored_is_not_damaged(study):
    verified = verify(study.folder)
    assert (verified.damage, verified.missing_runs, verified.without_checksums) == ((), 0, 0)
    assert verified.runs == len(list((study.folder / "runs").iterdir()))
    check(study.store)


def test_every_corruption_of_every_file_is_found(study, record_property):
    """Four kinds for each stored file: a bit at the start and in the middle, a cut, and no file."""
    files = stored_files(study.folder)
    assert len(files) > 75  # so that there are more than 300 corruptions
    record_property("corruptions", 4 * len(files))
    missed = []
    for file in files:
        content = file.read_bytes()
        for number, damaged in enumerate(
            (_flipped(content, 0), _flipped(content, 0.5), content[: len(content) // 2], None)
        ):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            part = file if file.parent.name != "model" and "runs" not in file.parts else _run_of(file)
            found = {damage.path for damage in verify(study.folder).damage}
            # a run whose list of checksums is gone is one of an earlier version
            is_earlier = file.name == MANIFEST and damaged is None
            if found != ({part} if not is_earlier else set()):
                missed.append((file.relative_to(study.folder).as_posix(), number, found))
            file.write_bytes(content)
    assert missed == []


def test_every_corruption_of_a_checksum_is_found(study):
    for file in (*study.folder.glob(".checksums/*"), *study.folder.glob("runs/*/checksums.json")):
        content = file.read_bytes()
        for damaged in (_flipped(content, 0), _flipped(content, 0.5), content[: len(content) // 2]):
            file.write_bytes(damaged)
            assert len(verify(study.folder).damage) == 1, file
        file.write_bytes(content)


def _flipped(content, share):
    changed = bytearray(content)
    changed[int(share * (len(content) - 1))] ^= 4
    return bytes(changed)


def _run_of(file):
    return next(path for path in file.parents if path.parent.name == "runs")


@pytest.mark.parametrize("name", ["data.json", "sessions.json", "test.parquet", "slots.json", "runs/*/predictions.parquet", "runs/full*/history.parquet", "runs/*/run.json"])  # fmt: skip
def test_a_damaged_file_stops_report_and_run_with_one_line_that_helps(name, study):
    file = sorted(study.folder.glob(name))[0]
    flip_a_bit(file)
    for use in (study.report, study.run):
        with pytest.raises(
            StoreError, match=rf"is damaged: .*; tuneoff verify {study.folder} --repair restores it$"
        ) as e:
            use()
        assert "\n" not in str(e.value)


def test_a_run_of_its_record_alone_is_not_done(study):
    """Of an earlier version too, whose runs have no checksums."""
    run = sorted((study.folder / "runs").glob("full*"))[0]
    for path in run.iterdir():
        if path.name != "run.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (damage,) = verify(study.folder).damage
    assert (damage.path, damage.reason, damage.remedy) == (run, "predictions.parquet is missing", "trained again")
    with pytest.raises(StoreError, match="is damaged: runs/full"):
        study.report()


def test_an_unknown_status_is_an_error(study):
    run = sorted((study.folder / "runs").glob("tfidf*"))[0]
    (run / MANIFEST).unlink()
    (run / "run.json").write_text((run / "run.json").read_text().replace('"status": "ok"', '"status": "okk"'))
    (damage,) = verify(study.folder).damage
    assert "status 'okk' is none of ok, failed, diverged" in damage.reason


def test_a_damaged_model_is_not_used(study):
    model = sorted((study.folder / "runs").glob("full*/model"))[0]
    flip_a_bit(model / "model.safetensors")
    with pytest.raises(StoreError, match=r"model.safetensors has changed since .*; tuneoff verify .* --repair"):
        load(model)
    study.report()  # which reads no model
    (model / "model.safetensors").unlink()
    with pytest.raises(StoreError, match=r"is damaged: runs/full"):
        study.report()


def test_a_model_that_was_removed_on_purpose_is_no_damage(study):
    run = sorted((study.folder / "runs").glob("full*"))[0]
    study.store.runs.remove_model(run.name)
    assert verify(study.folder).damage == ()


def test_a_truncated_study_file_is_named_with_its_line(study, tmp_path):
    path = study.folder / "study.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("full") + 3])
    with pytest.raises(
        StoreError,
        match=r"study.yaml has .* bytes instead of .*, line \d+: strategy 'ful' .*; tuneoff verify .* --repair",
    ):
        Study.open(study.folder)
    own = tmp_path / "own.yaml"
    own.write_text("data: {source: x.csv}\nstrategies:\n- lora\n- ful\n")
    with pytest.raises(Exception, match=r"^study file 'own.yaml', line 4: strategy 'ful' is unknown; did you mean"):
        Study.open(own)


@pytest.mark.parametrize("given", ["../../..", "/etc", "a/b", "..", ".hidden", "", 7])
def test_an_id_that_is_a_path_is_refused(given, study):
    path = study.folder / "data.json"
    for key in ("runs", "searches", "final"):
        stored = json.loads(path.read_text())
        path.write_text(json.dumps({**stored, key: [given]}))
        with pytest.raises(StoreError, match=r"data.json cannot be read .* is no id of a run"):
            study.store.read_data()
        path.write_text(json.dumps(stored))


def test_verify_says_what_is_damaged_and_exits_with_1(study):
    run = sorted((study.folder / "runs").glob("tfidf*"))[0]
    assert run_command("verify", study.folder).exit_code == 0
    flip_a_bit(run / "model" / "classifier.skops")
    flip_a_bit(study.folder / "sessions.json")
    result = run_command("verify", study.folder)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert any(
        line.startswith(f"{run}: model/classifier.skops has changed") and "trained again" in line for line in lines
    )
    assert any(line.startswith(f"{study.folder / 'sessions.json'}: ") for line in lines)
    assert lines[-1] == f"2 parts damaged; tuneoff verify {study.folder} --repair makes again what can be"
    assert len(json.loads(run_command("verify", study.folder, "--json").output)) == 2


@pytest.mark.slow
def test_repair_makes_again_exactly_what_is_damaged(small):
    small = changed(small, keep="all", search=2)
    small.run()
    before = {path: path.read_bytes() for path in stored_files(small.folder)}
    runs = {path.name.partition("-")[0]: path for path in (small.folder / "runs").iterdir()}
    for path in (
        small.folder / "data.json",
        small.folder / "study.yaml",
        small.folder / "sessions.json",
        small.folder / "slots.json",
        small.folder / "test.parquet",
        small.folder / "comparison.json",
        runs["head"] / "model" / "model.safetensors",
        next((small.folder / "searches").glob("*head*")),
    ):
        flip_a_bit(path)
    untouched = {path.stat().st_mtime_ns for path in runs["tfidf"].rglob("*")}
    result = run_command("verify", small.folder, "--repair")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1].startswith("Nothing is damaged")
    after = {path: path.read_bytes() for path in stored_files(small.folder)}
    restored = [path for path in before if path.suffix in (".parquet", ".skops", ".safetensors", ".yaml") and path.name != "history.parquet"]  # fmt: skip
    assert [path for path in restored if after[path] != before[path]] == []
    assert {path.stat().st_mtime_ns for path in runs["tfidf"].rglob("*")} == untouched
    assert (small.folder / "damaged" / "runs" / runs["head"].name / "run.json").is_file()


@pytest.mark.slow
def test_several_datasets_are_verified_together(small, toy_csv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.csv"
    other.write_text("".join(toy_csv.read_text().splitlines(keepends=True)[:-4]))
    Path("two.yaml").write_text(
        f"datasets: {{a: {toy_csv}, b: {other}}}\nstrategies: [majority, tfidf]\nbaselines: false\nsearch: null\n"
    )
    assert run_command("run", "two.yaml", "--quiet").exit_code == 0
    folder = Path("results/two")
    assert run_command("verify", folder).exit_code == 0
    flip_a_bit(next((folder / "b" / "runs").glob("tfidf*/predictions.parquet")))
    flip_a_bit(folder / "datasets.yaml", 0)
    result = run_command("verify", folder)
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 3
    assert run_command("verify", folder, "--repair").exit_code == 0
