"""Studies that come with Tuneoff, as YAML files: tuneoff run studies:NAME."""

from pathlib import Path

PACKAGED_STUDIES = Path(__file__).parent


def packaged_studies() -> dict[str, str]:
    """Return the name of each packaged study and the first comment line of its file."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(PACKAGED_STUDIES.glob("*.yaml"))}
    return {name: text.splitlines()[0].lstrip("# ").strip() for name, text in texts.items()}
