"""The table of the published studies in docs/studies.md: its lines, its counts, and the names in it."""

import re
from pathlib import Path

from typer.main import get_command

from tuneoff.cli.app import app
from tuneoff.spec.file import read_study

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "src" / "tuneoff" / "report"
TEXT = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
LINES = [re.findall(r"(?<=\| )[^|]*(?= \|)", line) for line in TEXT.splitlines() if re.match(r"\| [0-4]\.\d", line)]
NAMES = re.findall(r"`(?:tuneoff )?([^`]+)`", " ".join(here for _, _, here, _ in LINES))


def test_every_thing_has_a_line_and_the_counts_are_those_of_the_lines():
    numbers = [f"0.{n}" for n in range(1, 27)] + [f"1.{n}" for n in range(1, 21)] + [f"2.{n}" for n in range(1, 20)]
    numbers += [f"3.{n}" for n in range(1, 15)] + [f"4.{n}" for n in range(1, 9)]
    numbers += [f"4.9{letter}" for letter in "abcde"] + [f"4.{n}" for n in range(10, 31)]
    assert [line[0] for line in LINES] == numbers
    marks = [line[3] for line in LINES]
    counts = [marks.count("yes"), marks.count("in part"), marks.count("no")]
    assert sum(counts) == len(LINES) == 113
    assert "**{} work, {} work in part, {} are missing.**".format(*counts) in TEXT


def test_tables_and_figures_are_those_that_a_report_can_have():
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(REPORT.rglob("*.py")))
    names = [name.partition("/")[2] for name in NAMES if re.fullmatch(r"(figures|tables)/[\w-]+", name)]
    assert len(names) > 80
    # literals of the code, or made from a prefix and a column, a split or a cost
    starts = {name: f'f"{name.partition("-")[0]}-{{' for name in names}
    assert [name for name in names if f'"{name}"' not in code and starts[name] not in code] == []


def test_commands_studies_and_options_exist():
    commands = get_command(app).commands  # type: ignore[attr-defined]
    options = {option for command in commands.values() for param in command.params for option in param.opts}
    mentioned = re.findall(r"`tuneoff (\w+)", TEXT)
    assert set(mentioned) <= set(commands)
    assert {option for name in NAMES for option in re.findall(r"(?<!\S)--[\w-]+", name)} <= options
    for name in re.findall(r"studies:(\w+)", " ".join(NAMES)):
        read_study(f"studies:{name}")
