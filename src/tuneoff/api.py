"""The function compare for Python programs and notebooks, with progress on the screen and every option in its help."""

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tuneoff.cli.hub import offline_without_network
from tuneoff.data.sources import from_memory, store_in_cache
from tuneoff.data.spec import DataSpec, OtherTestSpec
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError, unknown
from tuneoff.spec.file import default_name, study_from
from tuneoff.spec.study import StudySpec
from tuneoff.strategies import StrategyConfig
from tuneoff.study import RESULTS, Study

if TYPE_CHECKING:
    from tuneoff.comparison.result import Comparison
    from tuneoff.execute.executor import Event, Executor

_FIELDS: dict[str, tuple[type[BaseModel], tuple[str, ...]]] = {
    "Options of the study": (StudySpec, ("data", "recipe")),
    "Options of the data": (DataSpec, ("source",)),
    "Keys of recipe": (Recipe, ()),
}
# defaults of compare that are not those of StudySpec
_DEFAULTS: dict[str, Any] = {"search": 4, "name": None}


def compare(
    data: Any,
    *,
    folder: str | Path | None = None,
    recipe: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    on_event: "Callable[[Event], None] | None" = None,
    executor: "Executor | None" = None,
    replace: bool = False,
    **options: Any,
) -> "Comparison":
    """Compare strategies on your data: a file, a folder, packaged:NAME, hf:NAME, a DataFrame or a datasets.Dataset.

    A strategy is a name ("lora"), a name with options ("lora:rank=16") or a config (LoRA(rank=16)). search is 4 trials
    of every strategy unless set; None turns it off. folder: by default results/NAME, and NAME is that of the data.
    Running again runs only what is missing, and keeps the stored runs of other strategies, encoders and seeds.
    replace: see Study.run. progress: show it; None shows it in a terminal or notebook, unless on_event is given.
    on_event: called with each event of a job. Raises ConfigError for an unknown option, with the nearest name.
    """
    source, models = str(data) if isinstance(data, (str, Path)) else "", options.get("model") or ()
    with offline_without_network([models] if isinstance(models, str) else models, source):
        is_shown = progress if progress is not None else on_event is None and _has_screen()
        if not is_shown:
            study = _study_of(data, folder, {"recipe": dict(recipe or {}), **options})
            return study.run(on_event or (lambda event: None), executor=executor, replace=replace)
        from rich.console import Console

        from tuneoff.cli.progress import StudyProgress

        name = options.get("name") or (default_name(source) if source else "study")
        with StudyProgress(Console(highlight=False, stderr=True), str(name)) as display:

            def show(event: "Event") -> None:
                display.on_event(event)
                if on_event:
                    on_event(event)

            study = _study_of(data, folder, {"recipe": dict(recipe or {}), **options})
            return study.run(show, display.on_plan, executor, replace)


def _study_of(data: Any, folder: str | Path | None, options: dict[str, Any]) -> Study:
    """Return the study that the options describe: fields of StudySpec and DataSpec. Data in memory is stored."""
    source = data if isinstance(data, (str, Path)) else store_in_cache(from_memory(data))
    fields = [name for name in (*StudySpec.model_fields, *DataSpec.model_fields) if name not in ("data", "source")]
    for key in options:
        if key not in fields:
            raise ConfigError(unknown("option of compare", key, fields))
    of_study = {key: options.pop(key) for key in list(options) if key in StudySpec.model_fields}
    if isinstance(of_study.get("tests"), Mapping):  # a DataFrame, as data may be
        of_study["tests"] = {name: _test_source(test) for name, test in of_study["tests"].items()}
    given = {
        "data": {"source": str(source), **options},
        "name": default_name(str(source)),
        "search": 4,
        **{key: value for key, value in of_study.items() if value is not None or key == "search"},
    }
    spec = study_from(given)
    return Study(spec, Path(folder) if folder else RESULTS / spec.name)


def _test_source(test: Any) -> Any:
    """Return a test set as its options; a DataFrame or Table is stored in the cache."""
    if isinstance(test, (str, Path)):
        return str(test)
    if isinstance(test, (Mapping, OtherTestSpec)):
        return test
    return {"source": store_in_cache(from_memory(test))}


def _has_screen() -> bool:
    """Return True in a terminal or notebook."""
    from rich.console import Console

    screen = Console(stderr=True)
    return screen.is_terminal or screen.is_jupyter


def _document(function: Callable[..., Any]) -> None:
    """Add every option to the signature and the docstring of compare, from the fields that it passes on."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    passed, text = [], [inspect.cleandoc(function.__doc__ or "")]
    for heading, (model, left_out) in _FIELDS.items():
        text += ["", f"{heading}:"]
        for name, field in model.model_fields.items():
            if name in left_out:
                continue
            default = _DEFAULTS.get(name, field.get_default(call_default_factory=True, validated_data={}))
            if model is not Recipe:
                passed.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_Shown(default)))
            line = f"{name}={_Shown(default)!r}" + (f": {field.description}" if field.description else "")
            text += textwrap.wrap(line, 108, initial_indent="    ", subsequent_indent="        ")
    function.__signature__ = signature.replace(parameters=[*own, *passed])  # type: ignore[attr-defined]
    function.__doc__ = "\n".join(text)


class _Shown:
    """A default as help shows it: strategies by their names, and nothing in place of a model's own defaults."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        if isinstance(self.value, StrategyConfig):
            return repr(self.value.label)
        if isinstance(self.value, BaseModel):
            return "{}"
        if isinstance(self.value, Sequence) and not isinstance(self.value, str):
            return f"[{', '.join(repr(_Shown(part)) for part in self.value)}]"
        return repr(self.value)


_document(compare)
