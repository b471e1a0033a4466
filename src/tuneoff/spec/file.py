"""Study files: YAML in, in which an unknown or a repeated key is an error with one line."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from tuneoff.checksums import copy_of, resealing
from tuneoff.errors import ConfigError, unknown
from tuneoff.files import write_text
from tuneoff.spec.study import StudySpec
from tuneoff.studies import PACKAGED_STUDIES, packaged_studies
from tuneoff.validation import parse_yaml, validated

_MAX_BYTES = 2**20  # of a study file


class _UniqueKeys(yaml.SafeLoader):
    """A loader that refuses a key that is given twice; of two test sets of one name YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping. Raises ConfigError for a repeated key."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        repeated = [key for key, count in Counter(keys).items() if count > 1]
        if repeated:
            line = node.start_mark.line + 1
            raise ConfigError(f"the study file has {repeated[0]!r} twice (from line {line}); give each key once")
        return super().construct_mapping(node, deep)


def read_study(name: str) -> StudySpec:
    """Read a study from a YAML file, or a packaged one: studies:NAME. Raises ConfigError, in one line."""
    if name.startswith("studies:"):
        path = PACKAGED_STUDIES / f"{name.removeprefix('studies:')}.yaml"
        if not path.is_file():
            raise ConfigError(unknown("study", name.removeprefix("studies:"), packaged_studies()))
    else:
        path = Path(name)
        if not path.is_file():
            is_packaged = name in packaged_studies()
            hint = f"; did you mean studies:{name}?" if is_packaged else "; give a YAML file or studies:NAME"
            raise ConfigError(f"study file {name!r} does not exist{hint}")
    given = load_yaml(path)
    if isinstance(given, dict) and "datasets" in given:
        raise ConfigError(
            f"study file {path.name!r} is of several datasets, which only tuneoff run reads; afterwards, give the "
            "folder of one of them"
        )
    if not isinstance(given, dict):
        raise ConfigError(
            f"study file {path.name!r} holds {type(given).__name__}, not keys such as data: and strategies:"
        )
    where = f"study file {path.name!r}"
    try:
        return study_from({"name": path.stem, **given}, where)
    except ConfigError as error:
        message = str(error).removeprefix(f"{where}: ")
        raise ConfigError(f"{where}{_line_of(path, message)}: {message}") from None


def _line_of(path: Path, message: str) -> str:
    """Return the line of a YAML file that an error message quotes, ", line 3"; empty unless it is the only one."""
    quoted = set(re.findall(r"'([^']+)'", message))
    lines = path.read_text(encoding="utf-8").splitlines()
    for name in quoted:
        word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        numbers = [number for number, line in enumerate(lines, 1) if word.search(line)]
        if len(numbers) == 1:
            return f", line {numbers[0]}"
    return ""


def load_yaml(path: Path) -> Any:
    """Read a YAML file. Raises ConfigError, in one line."""
    return parse_yaml(_text_of(path), f"study file {path.name!r}", _UniqueKeys)


def _text_of(path: Path) -> str:
    if path.stat().st_size > _MAX_BYTES:
        raise ConfigError(f"study file {path.name!r} has more than {_MAX_BYTES:,} bytes; give a study, not data")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"study file {path.name!r} is not YAML: {error}") from error


def study_from(given: dict[str, Any], where: str = "study") -> StudySpec:
    """Build a study from plain data. Raises ConfigError, in one line, with the nearest valid name for a wrong one."""
    return validated(StudySpec, given, where)


def default_name(source: str) -> str:
    """Return a study's name from its data: reviews.csv -> reviews, hf:stanfordnlp/imdb -> stanfordnlp-imdb."""
    kind, _, rest = source.rpartition(":")
    stem = rest.replace("/", "-") if kind in ("hf", "packaged", "memory") else Path(source).stem
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in stem).strip("-.")
    return kept or "study"


def write_study(spec: StudySpec, path: Path) -> None:
    """Write a study with every default, and a copy of it next to its checksum."""
    text = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    with resealing(path):
        write_text(path, text)
    write_text(copy_of(path), text)
