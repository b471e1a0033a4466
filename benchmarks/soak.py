"""What hurts, in great numbers and within an hour: kills, damage, full disks, hostile models, random input, many runs.

python benchmarks/soak.py [--minutes 60] [--kills 200] [--examples 10000] [--runs 500] [--only kills runs ...]

Two parts go on at once, one a core. Prints one table, and exits with 1 if anything in it is wrong or not done.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
READERS = {
    **{
        f"data files, {ending}": ("tests/hostile/test_data_files.py", f"any_file and {ending}]")
        for ending in ("csv", "tsv", "jsonl", "json", "parquet")
    },
    **{
        f"predictions, {ending}": ("tests/hostile/test_records.py", f"any_predictions and {ending}]")
        for ending in ("csv", "tsv", "jsonl", "json", "parquet")
    },
    "corrections": ("tests/hostile/test_records.py", "any_corrections"),
    "training logs": ("tests/hostile/test_records.py", "any_trainer_log"),
    "records of runs": ("tests/hostile/test_records.py", "any_run_record"),
    "records of studies": ("tests/hostile/test_records.py", "any_record_of_a_study"),
    "study specs": ("tests/hostile/test_specs.py", "any_study"),
    "bodies of requests": ("tests/serve/test_app.py", "any_body"),
}  # fmt: skip
NAMED = {
    "hostile model folders": ("tests/hostile/test_models.py", "another or runs_nothing"),
    "hostile models of runs": ("tests/hostile/test_saved_models.py", "runs_nothing"),
    "hostile data files": ("tests/hostile/test_data_files.py", "a_hostile_data_file or a_huge_data_file"),
    "hostile study files and options": ("tests/hostile/test_specs.py", "a_hostile_study_file or a_hostile_argument"),
    "moments of a full disk": ("tests/test_full_disk.py", "goes_on_later"),
}
COUNTED = {
    "corruptions of a study": ("tests/test_damage.py", "every_corruption_of_every_file"),
    "corruptions of its cache": ("tests/test_cache_damage.py", "every_corruption"),
    "damaged models without checksums": ("tests/hostile/test_saved_models.py", "damaged_model"),
}


@dataclass(frozen=True)
class Part:
    """A line of the table."""

    name: str
    done: int
    wrong: int
    seconds: float
    details: str = ""


def main() -> None:
    """Run both lanes, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="after this time nothing new is begun")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--examples", type=int, default=10_000, help="random inputs of each reader")
    parser.add_argument("--runs", type=int, default=500, help="runs of one study")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="parts, by their names in the table, or kills, runs")
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as lanes:
        os.environ.update(TUNEOFF_EXAMPLES=str(args.examples), TUNEOFF_CACHE=f"{place}/cache", HF_HUB_OFFLINE="1")
        model = f"{place}/tiny"
        subprocess.run(
            [sys.executable, "-c", f"from tests.hostile.use_model import tiny_folder; tiny_folder({model!r})"],
            cwd=ROOT,
            check=True,
        )
        steps: dict[str, Callable[[], list[Part]]] = {  # the longest first
            "kills": lambda: script("soak_kills.py", [model, "--kills", str(args.kills)], deadline),
            "runs": lambda: script("soak_runs.py", [model, "--runs", str(args.runs)], deadline),
            **{
                name: lambda name=name, suite=suite: [tests(name, *suite, deadline)]  # type: ignore[misc]
                for name, suite in {**NAMED, **COUNTED, **READERS}.items()
            },
        }
        if unknown := set(args.only or steps) - set(steps):
            parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(steps)}")
        parts = [part for done in lanes.map(run, [steps[name] for name in args.only or steps]) for part in done]
    libraries = " ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "hypothesis", "pyarrow"))
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}\n")
    print(table(parts))
    sys.exit(any(part.wrong or not part.done for part in parts))


def run(step: "Callable[[], list[Part]]") -> list[Part]:
    """Run a step, and say how it ended."""
    parts = step()
    for part in parts:
        print(f"{part.name}: {part.done:,} done, {part.wrong} wrong, {part.seconds:.0f} s", flush=True)
    return parts


def tests(name: str, file: str, selection: str, deadline: float) -> Part:
    """Run tests, and count what they tried: cases, or what they counted themselves, or examples of hypothesis."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        results, count = f"{place}/results.xml", Path(place, "count")
        command = [sys.executable, "-m", "pytest", file, "-m", "soak or not soak", "-k", selection]
        command += [f"--junitxml={results}", "-o", "junit_family=xunit1", f"--basetemp={place}/base"]
        left = max(1.0, deadline - time.monotonic())
        environment = {**os.environ, "TUNEOFF_COUNT": str(count)}
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left, env=environment)
        except subprocess.TimeoutExpired:
            return Part(name, 0, 0, time.monotonic() - started, "not done in time")
        cases = list(ElementTree.parse(results).iter("testcase"))
        examples = int(count.read_text()) if count.is_file() else 0
    wrong = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    if done.returncode:
        print(done.stdout[-3000:], file=sys.stderr)
    counted = sum(int(entry.attrib["value"]) for case in cases for entry in case.iter("property"))
    number = examples if name in READERS else counted if name in COUNTED else len(cases) - skipped
    details = f"{skipped} skipped" if skipped else ""
    return Part(name, number, max(wrong, int(done.returncode != 0)), time.monotonic() - started, details)


def script(name: str, arguments: list[str], deadline: float) -> list[Part]:
    """Run another soak, which prints its parts as JSON in its last line."""
    started = time.monotonic()
    minutes = f"--minutes={max(0.1, (deadline - started) / 60):.1f}"
    command = [sys.executable, str(Path(__file__).with_name(name)), *arguments, minutes]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        parts = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        print(done.stdout[-1000:], done.stderr[-3000:], file=sys.stderr)
        parts = [{"name": name, "done": 0, "wrong": 1, "details": "it ended early"}]
    return [Part(seconds=time.monotonic() - started, **part) for part in parts]


def table(parts: list[Part]) -> str:
    """Write the parts as a table in Markdown."""
    lines = ["| what | done | wrong | seconds | |", "| --- | ---: | ---: | ---: | --- |"]
    lines += [f"| {p.name} | {p.done:,} | {p.wrong} | {p.seconds:.0f} | {p.details} |" for p in parts]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
