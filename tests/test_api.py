"""The package at a Python prompt and in a notebook: names, help, errors, short text and HTML, progress."""

import inspect
import pydoc

import pytest

import tuneoff
from tests.stored import stored_study
from tests.studies import toy_spec
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.spec.study import StudySpec
from tuneoff.strategies import STRATEGIES

EVIL = "<b>\x1b[31mred</b>"


@pytest.fixture
def comparison(tmp_path):
    rows = [("lora", "lora rank=16", 0.95), ("head", f"head {EVIL}", 0.8), ("majority", "majority", 0.5)]
    return stored_study(tmp_path / "made", rows).comparison()


def test_only_public_names_are_listed():
    assert dir(tuneoff) == sorted([*tuneoff.__all__, "__version__"])
    assert all(hasattr(tuneoff, name) for name in dir(tuneoff))


def test_the_text_of_a_comparison_is_short(comparison):
    text = repr(comparison)
    lines = text.splitlines()
    assert lines[0] == "made: 3 strategies, accuracy on 80 examples"
    assert lines[1].startswith("  lora rank=16")
    assert lines[-1] == comparison.verdict.summary[-1]
    assert len(text) < 1500
    assert "\x1b" not in text
    assert repr(comparison.rows[0]).startswith("<Row lora rank=16 on m: 0.9")
    assert repr(comparison.verdict).startswith("<Verdict: Only 80 test examples")


def test_html_is_escaped_and_has_no_colours(comparison):
    for html in (comparison._repr_html_(), comparison.verdict._repr_html_()):
        assert "<b>\x1b" not in html
        assert "\x1b" not in html
        assert "color" not in html
    assert "&lt;b&gt;" in comparison._repr_html_()
    assert comparison._repr_html_().count("<tr>") == 4


def test_results_are_found_by_the_names_of_strategies(comparison):
    row = comparison["lora rank=16"]
    assert row is comparison.rows[0]
    assert comparison[row.group] is row
    assert next(iter(comparison)) == "lora rank=16"
    assert "lora rank=16" in comparison
    assert (comparison.confusion["lora rank=16"] == comparison.confusion[row.group]).all()
    assert comparison.calibration["lora rank=16"] is comparison.calibration[row.group]
    with pytest.raises(ConfigError, match="row 'lora' is unknown"):
        comparison["lora"]
    with pytest.raises(KeyError):
        comparison.classes["lora"]


@pytest.mark.parametrize("name", [name for name, row in STRATEGIES.items() if row.config.model_fields])
def test_an_unknown_option_of_a_strategy_is_one_line(name):
    option = next(iter(STRATEGIES[name].config.model_fields))
    with pytest.raises(ConfigError, match=f"key '{option}x' is unknown; did you mean '{option}'") as caught:
        STRATEGIES[name].config(**{option + "x": 1, **({"type": "vera"} if name == "peft" else {})})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tuneoff.LoRA(rank=0), "strategy lora: rank: should be greater than or equal to 1, not 0"),
        (lambda: Recipe(**{"epoch": 3}), "recipe: key 'epoch' is unknown; did you mean 'epochs'"),
        (
            lambda: StudySpec(**{"data": {"source": "a"}, "metrics": "f1"}),
            "study: key 'metrics' is unknown; did you mean",
        ),
        (lambda: tuneoff.compare("a.csv", strategis=["lora"]), "'strategis' is unknown; did you mean 'strategies'"),
        (lambda: tuneoff.compare("a.csv", recipe={"epoch": 3}), "key 'epoch' is unknown; did you mean 'epochs'"),
        (lambda: tuneoff.compare("a.csv", limits={"tst": 3}), "limits: key 'tst'"),
    ],
)
def test_a_wrong_option_is_one_line(call, message):
    with pytest.raises(ConfigError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_help_lists_every_option_with_its_default():
    text = pydoc.plain(pydoc.render_doc(tuneoff.compare))
    for shown in ("model=['packaged:minilm']", "search=4", "epochs=3", "test_fraction=0.1", "margin=0.005", "keep="):
        assert f"\n        {shown}" in text, shown
    parameters = inspect.signature(tuneoff.compare).parameters
    assert {"seeds", "limits", "strategies", "progress"} <= set(parameters)
    assert "options" not in parameters


@pytest.mark.slow
@pytest.mark.parametrize(("progress", "is_shown"), [(True, True), (None, False)])
def test_progress_is_shown_if_asked_for(progress, is_shown, encoder, toy_csv, tmp_path, capsys):
    options = toy_spec(encoder, toy_csv, strategies=["tfidf"]).model_dump(mode="json")
    del options["data"]["source"], options["evaluate"], options["recipe"], options["name"]
    data = options.pop("data")
    tuneoff.compare(str(toy_csv), folder=tmp_path / "study", progress=progress, **options, **data)
    printed = capsys.readouterr()
    assert ("tfidf seed 0: validation accuracy" in printed.err) == is_shown
    assert printed.out == ""
