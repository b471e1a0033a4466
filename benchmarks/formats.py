"""Table of docs/formats.md: every strategy of a study exported to every format, reloaded in a new process and compared.

python benchmarks/formats.py STUDY > table.md    STUDY: a finished study's folder. Exports go to a temporary folder.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from tuneoff.deliver.export import FORMATS, export
from tuneoff.errors import ConfigError, TuneoffError
from tuneoff.files import read_json
from tuneoff.formats import size


def cell(study: str, label: str, to: str, folder: Path) -> str:
    """Export one strategy to one format, and return what the check measured."""
    try:
        exported = export(study, to, strategy=label, out=folder / f"{label}-{to}".replace("/", "-"))
    except ConfigError:  # this format is not for such a model
        return "–"
    except TuneoffError as error:
        print(f"{label} {to}: {error}", file=sys.stderr)
        return "fails"
    for note in exported.notes:
        print(f"{label} {to}: {note}", file=sys.stderr)
    text = " ".join(exported.notes)
    difference = re.search(r"difference is ([\d.e-]+)", text)
    assert difference is not None
    change = re.search(r"accuracy by (\S+) points \(95 % interval (\S+) to (\S+),", text)
    if change:
        return f"{change[1]} points ({change[2]} to {change[3]}), {size(exported.size_bytes)}"
    by = " (by Tuneoff)" if "as Tuneoff reloads it" in text else ""
    return f"{difference[1].rstrip('.')}{by}, {size(exported.size_bytes)}"


def main(study: str) -> None:
    """Print the table in Markdown."""
    labels = [row["label"] for row in read_json(Path(study) / "comparison.json")["leaderboard"]]
    print("| strategy | " + " | ".join(f"`{name}`" for name in FORMATS) + " |")
    print("| --- |" + " ---: |" * len(FORMATS))
    with tempfile.TemporaryDirectory() as folder:
        for label in labels:
            cells = [cell(study, label, to, Path(folder)) for to in FORMATS]
            print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
