"""Study files and command lines that somebody prepared to do harm, and random ones: a study or one line, at once."""

import subprocess
import sys

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.hostile.guard import REFUSED, called, guarded
from tests.hostile.profiles import quick
from tuneoff.cli.app import app
from tuneoff.cli.options import parse_folds, parse_limits, parse_recipe, parse_seeds
from tuneoff.data.pieces import parse_rows
from tuneoff.search.space import parse_search
from tuneoff.spec.file import load_yaml, read_study
from tuneoff.spec.study import StudySpec

HEAD = "name: x\ndata: {source: a.csv}\n"
_ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)
BAD = {
    "aliases": _ALIASES + "name: *a11\n",
    "aliases-in-strategies": HEAD + _ALIASES + "strategies: *a11\n",
    "alias-of-itself": "&a [*a]\n",
    "aliases-of-mappings": "a: &a {b: c}\n" + "".join(f"k{i}: &k{i} {{x: *{'a' if not i else f'k{i - 1}'}, y: *{'a' if not i else f'k{i - 1}'}}}\n" for i in range(40)),
    "deep-lists": "[" * 50_000,
    "deep-mappings": "{a: " * 50_000,
    "deep-blocks": "".join(" " * level + "a:\n" for level in range(2000)),
    "null": "null",
    "empty": "",
    "number": "3",
    "list": "[1, 2]",
    "text": "hello",
    "tag": "!!python/object/apply:os.system ['touch x']",
    "binary": "name: !!binary abc",
    "date": "name: 2001-13-45",
    "key-list": "? [a, b]\n: c\n",
    "key-mapping": "? {a: b}\n: c\n",
    "nul": "name: 'a\0b'",
    "seeds-many": HEAD + "seeds: 100000000\n",
    "seeds-more": HEAD + "seeds: 1000000000000000000000000\n",
    "seeds-by-source": HEAD + "seeds: {head: 100000000}\n",
    "seeds-digits": HEAD + "seeds: " + "9" * 5000 + "\n",
    "seeds-mapping": HEAD + "seeds: {head: {}}\n",
    "strategies-many": HEAD + "strategies: [" + ", ".join(f"'lora:rank={rank}'" for rank in range(1, 3001)) + "]\n",
    "strategies-text": HEAD + "strategies: full\n",
    "strategies-mapping": HEAD + "strategies: [{lora: {rank: {}}}]\n",
    "strategies-nested": HEAD + "strategies: [[[]]]\n",
    "fractions-true": HEAD + "fractions: true\n",
    "fractions-mapping": HEAD + "fractions: {}\n",
    "fractions-many": HEAD + f"fractions: [{', '.join(['0.1'] * 1000)}]\n",
    "cost-mapping": HEAD + "cost: {}\n",
    "cost-list": HEAD + "cost: [time]\n",
    "cost-null": HEAD + "cost: null\n",
    "peft-type": HEAD + "strategies: [{peft: {type: {a: b}}}]\n",
    "peft-list": HEAD + "strategies: [{peft: {type: [ia3]}}]\n",
    "peft-no-mapping": HEAD + "strategies: [{peft: 3}]\n",
    "metric-mapping": HEAD + "metric: {a: b}\n",
    "metric-module": HEAD + "metric: 'os:system:x'\n",
    "margin-list": HEAD + "margin: [1]\n",
    "margin-nan": HEAD + "margin: .nan\n",
    "evaluate-folds": HEAD + "evaluate: {folds: 100000000}\n",
    "tags-mapping": HEAD + "tags: {a: {b: c}}\n",
    "tags-pattern": HEAD + "tags: {a: '('}\n",
    "tests-number": HEAD + "tests: 3\n",
    "predictions-text": HEAD + "predictions: a\n",
    "track-list": HEAD + "track: [[]]\n",
    "workers-large": HEAD + "workers: -1\n",
    "data-list": "data: []\n",
    "data-null": "data: null\n",
    "splits-list": "data: {source: a.csv, splits: [a]}\n",
    "limits-text": "data: {source: a.csv, limits: {train: x}}\n",
    "merge-labels": "data: {source: a.csv, merge_labels: [[]]}\n",
    "search-list": HEAD + "search: [1]\n",
    "spaces-text": HEAD + "search: {trials: 2, spaces: x}\n",
    "spaces-mapping": HEAD + "search: {trials: 2, spaces: {lora: {rank: {}}}}\n",
    "name-path": "name: ../../x\ndata: {source: a.csv}\n",
    "name-escapes": 'name: "\\e[2J"\ndata: {source: a.csv}\n',
    "long-key": "a" * 500_000 + ": b\n",
    "long-value": HEAD + "metric: " + "a" * 900_000 + "\n",
    "many-keys": HEAD + "".join(f"k{number}: 1\n" for number in range(20_000)),
    "huge": "# " + "a" * 2**21,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_hostile_study_file_is_refused_in_one_line(name, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(BAD[name])
    outcome = guarded(read_study, str(path))
    assert outcome.is_good, outcome
    assert outcome.kind == REFUSED, outcome


def test_aliases_of_ordinary_size_are_read(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("a: &a {b: [1, 2]}\nc: *a\nd: {<<: *a, e: 3}\n")
    assert load_yaml(path) == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": {"b": [1, 2], "e": 3}}


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["lora", "full", "split", "4", "²", "lora:rank=²", "a=[", "10m"])
)
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["lora", "peft", "type", "rank", "folds", "head", "train", "source", "trials", "spaces", "", "x"]), inner, max_size=3), max_leaves=8)  # fmt: skip


@quick
@given(
    st.dictionaries(st.sampled_from([*StudySpec.model_fields, "save_models", "datasets", "evil"]), _VALUES, max_size=5)
)
def test_any_study_is_a_spec_or_one_line(options):
    from tuneoff.spec.file import study_from

    kind, text = called(study_from, {"data": {"source": "a.csv"}, **options})
    assert kind in ("accepted", "refused"), text
    assert "\n" not in text


ARGUMENTS = [
    ["--limit", "²"],
    ["--limit", "9" * 5000],
    ["--seeds", "²"],
    ["--seeds", "9" * 5000],
    ["--seeds", "head=²"],
    ["--seeds", "100000000"],
    ["--folds", "²"],
    ["--folds", "9" * 5000],
    ["--recipe", "a=["],
    ["--recipe", "epochs={"],
    ["--recipe", "epochs=" + "[" * 3000],
    ["--search", "²"],
    ["--search", "9" * 5000],
    ["--strategies", "lora:rank=["],
    ["--strategies", "lora:rank=" + "9" * 5000],
    ["--strategies", "\x1b[31mevil"],
    ["--fractions", "²"],
    ["--per-class", "²"],
    ["--margin", "²"],
    ["--cost", "{}"],
    ["--metric", "\x1b]0;x\x07"],
    ["--price-per-hour", "²"],
    ["--test-set", "="],
    ["--predictions", "=="],
    ["--tag", "a=("],
    ["--track", "evil:uri=x"],
    ["--search-space", "lora.rank=["],
]


@pytest.mark.parametrize(
    "arguments", ARGUMENTS, ids=lambda arguments: " ".join(arguments)[:30].encode("ascii", "replace").decode()
)
def test_a_hostile_argument_is_refused_in_one_line(arguments, toy_csv):
    kind, text = called(
        lambda: CliRunner().invoke(
            app, ["compare", str(toy_csv), *arguments], standalone_mode=False, catch_exceptions=False
        )
    )
    assert kind == REFUSED, text
    assert "\n" not in text


def test_the_program_shows_no_escape_sequences_of_an_argument(toy_csv):
    done = subprocess.run(
        [sys.executable, "-m", "tuneoff", "compare", str(toy_csv), "--strategies", "\x1b[31mevil\x07"],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert b"\x1b" not in done.stderr + done.stdout


@pytest.mark.parametrize("text", ["²", "9" * 5000, "-1", "٣", "1e3", "", "head=²", "="])
def test_numbers_of_the_command_line_are_digits(text):
    for parse in (parse_limits, parse_folds, parse_seeds, parse_rows, parse_search):
        kind, message = called(parse, text)
        assert kind in ("accepted", "refused"), message
        assert "\n" not in message


@pytest.mark.parametrize("text", ["a=[", "a={", "a=" + "[" * 3000, "a=!!python/name:os.system", "=", "a=2001-13-45"])
def test_values_of_the_recipe_are_read_or_refused_in_one_line(text):
    kind, message = called(parse_recipe, text)
    assert kind in ("accepted", "refused"), message
