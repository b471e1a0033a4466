"""Soak of untrusted input: every hostile model folder, and many random inputs for every reader. Prints one table.

python benchmarks/soak_inputs.py --examples 10000
"""

import argparse
import os
import subprocess
import sys
import time

SUITES = {
    "model folders": "test_models.py",
    "data files, named": "test_data_files.py -k hostile or huge",
    **{
        f"data files, any {ending}": f"test_data_files.py -k any_file and {ending}]"
        for ending in ("csv", "tsv", "jsonl", "json", "parquet")
    },
    "study specs": "test_specs.py -k any_study",
    "study files and options": "test_specs.py -k not any_study",
    "records": "test_records.py",
}  # fmt: skip


def main() -> None:
    """Run each suite in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000, help="random inputs of each reader")
    environment = {**os.environ, "TUNEOFF_EXAMPLES": str(parser.parse_args().examples), "RUST_BACKTRACE": "0"}
    is_good = True
    for name, suite in SUITES.items():
        file, *selection = suite.split(" ", 2)
        started = time.monotonic()
        command = [sys.executable, "-m", "pytest", f"tests/hostile/{file}", "-q", *selection]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        is_good &= done.returncode == 0
        state = "passed" if done.returncode == 0 else "FAILED"
        print(f"{name:28} {state}  {time.monotonic() - started:7.0f} s", flush=True)
        if done.returncode:
            print(done.stdout[-3000:])
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
