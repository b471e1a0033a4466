"""Studies that come with Tuneoff, as YAML files: tuneoff run studies:NAME."""

from pathlib import Path

PACKAGED_STUDIES = Path(__file__).parent


def packaged_studies() -> dict[str, str]:
    """Return the name of each packaged study and the first comment line of its file."""
    files = sorted(PACKAGED_STUDIES.glob("*.yaml"))
    return {path.stem: path.read_text().splitlines()[0].lstrip("# ").strip() for path in files}
