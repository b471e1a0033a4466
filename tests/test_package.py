"""The package as it is installed: its declared dependencies, the files of the wheel, and a study outside a checkout."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "tuneoff"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# of their many major releases each has the few functions that are used; transformers bounds tokenizers, datasets fsspec
WITHOUT_UPPER_BOUND = {"tokenizers", "pyarrow", "psutil", "platformdirs", "filelock", "regex", "nvidia-ml-py", "fsspec"}
# packages of modules of extras, which need not be installed
_PACKAGE_OF = {"mlflow": "mlflow-skinny"}


def names(requirements):
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


def imported_packages():
    """The packages that hold the modules that src imports, from the metadata of what is installed."""
    distributions = packages_distributions()
    modules = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    modules -= sys.stdlib_module_names | {"tuneoff"}
    return {canonicalize_name(distributions.get(module, [_PACKAGE_OF.get(module, module)])[0]) for module in modules}


def test_every_imported_package_is_a_declared_dependency():
    extras = {name for extra, listed in PROJECT["optional-dependencies"].items() if extra != "dev" for name in listed}
    assert imported_packages() <= names(PROJECT["dependencies"]) | names(extras)


def test_every_declared_dependency_is_imported():
    assert not names(PROJECT["dependencies"]) - imported_packages()


def test_the_next_major_release_of_a_dependency_is_excluded():
    requirements = map(Requirement, PROJECT["dependencies"])
    unbounded = {r.name for r in requirements if not any(bound.operator == "<" for bound in r.specifier)}
    assert unbounded == WITHOUT_UPPER_BOUND


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the source distribution. hatchling of this environment builds them, offline."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_distribution_holds_every_file_of_the_package_and_no_others(built, kind):
    if kind == "wheel":
        files = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
        prefix, around = "", r"tuneoff-[^/]*\.dist-info/.*"
    else:
        with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
            files = {name.partition("/")[2] for name in archive.getnames()}
        prefix, around = "src/", r"(PKG-INFO|pyproject\.toml|README\.md|LICENSE|CHANGELOG\.md|\.gitignore)"
    tracked = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, check=True, capture_output=True, text=True)
    expected = {f"{prefix}{name.removeprefix('src/')}" for name in tracked.stdout.splitlines()}
    for name in ("py.typed", "report/page.css", "report/page.js", "report/page.html.j2", "studies/quickstart.yaml"):
        assert f"{prefix}tuneoff/{name}" in files
    assert any(name.startswith(f"{prefix}tuneoff/encoder/configs/") for name in files)
    assert {name for name in files if not re.fullmatch(around, name)} == expected


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A new environment with the wheel, and the dependencies of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = next(folder.glob("[bS]*/python*"))
    wheel = next(built.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", wheel], check=True)
    # a line of a .pth file adds the folder without the .pth files in it, so that the checkout, which is installed
    # there as editable, is not on the path
    site = next(folder.rglob("site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    # without an index: fails for a declared dependency that is not there or has another version
    subprocess.run([*pip, "tuneoff[demo]"], check=True)
    return folder


@pytest.mark.slow
def test_the_wheel_runs_the_quickstart_outside_a_checkout(installed, tmp_path):
    """Proves that the wheel is complete, its command starts, its workers run from it, and the metadata fits.

    The dependencies are those of the tests: whether an index still serves them together is not proved here.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"TUNEOFF_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    (tmp_path / "empty").mkdir()

    def call(*command):
        done = subprocess.run(
            [installed / "bin" / command[0], *command[1:]],
            cwd=tmp_path / "empty",
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    place = Path(call("python", "-c", "import tuneoff.execute.worker as worker; print(worker.__file__)").strip())
    assert place.is_relative_to(installed)
    limits = "train=200,validation=60,test=80"
    screen = call("tuneoff", "run", "studies:quickstart", "--limit", limits, "--seeds", "1", "--epochs", "1")
    assert "Report: results/quickstart/report/index.html" in screen
    assert "<title>" in (tmp_path / "empty/results/quickstart/report/index.html").read_text(encoding="utf-8")
    assert len(list((tmp_path / "empty/results/quickstart/runs").glob("*/run.json"))) == 7


def test_the_hashed_requirements_are_the_constraints_without_torch():
    def pins(name):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        found = [re.match(r"([\w.-]+)==([\w.]+)", line) for line in lines]
        return {canonicalize_name(match[1]): match[2] for match in found if match}

    constraints = pins("constraints.txt")
    assert constraints.pop("torch")
    assert pins("requirements-hashed.txt") == constraints
