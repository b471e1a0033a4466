"""Logs of HF Trainer as data: trainer_state.json, results JSON, or a folder that holds them.

The curves are those of log_history. The scores are stated for a split: "evaluation" (eval_) or "test" (test_ or
predict_). They are kept as they are written, under the names that their author gave them.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneoff.errors import DataError
from tuneoff.validation import whole_number

_SPLITS = {"eval": "evaluation", "validation": "evaluation", "test": "test", "predict": "test"}  # by prefix of a key
_STATE = "trainer_state.json"
# of a folder without all_results.json
_RESULTS = ("eval_results.json", "test_results.json", "predict_results.json", "train_results.json")
# measurements of Trainer that are no scores
_NO_SCORE = re.compile(r"(runtime|.*_per_second|samples|.*_time|mem_.*|epoch|step|total_flos)")


@dataclass(frozen=True)
class TrainerLog:
    """Curves, scores and settings of one training. Everything here is JSON."""

    steps: list[dict[str, float]] = field(default_factory=list)  # step, epoch, loss, perhaps learning_rate
    evaluations: list[dict[str, float]] = field(default_factory=list)  # step, epoch, and scores such as loss, accuracy
    scores: dict[str, dict[str, float]] = field(default_factory=dict)  # split -> metric -> score
    scored_at: str = ""  # which weights the scores of the evaluation split are of
    facts: dict[str, float] = field(default_factory=dict)  # epochs, steps, batch_size, train_seconds


def read_trainer_log(name: str, file: str) -> TrainerLog:
    """Read a log. name: of its row, for messages. Raises DataError, in one line, for a file that is no log."""
    path = Path(file).expanduser()
    try:
        return _of_folder(path) if path.is_dir() else _of_content(_read(path), path)
    except DataError as error:
        raise DataError(f"imported {name}: {error}") from error


def _of_folder(folder: Path) -> TrainerLog:
    """Read the output folder of a training: its state, or that of the last checkpoint, and its results."""
    checkpoints = sorted(folder.glob(f"checkpoint-*/{_STATE}"), key=lambda path: _number(path.parent.name))
    states = [folder / _STATE] if (folder / _STATE).is_file() else checkpoints[-1:]
    results = [folder / "all_results.json"]
    results = results if results[0].is_file() else [folder / name for name in _RESULTS if (folder / name).is_file()]
    if not states and not results:
        raise DataError(f"folder {str(folder)!r} holds no {_STATE} and no results JSON; give Trainer's output folder")
    log = _of_content(_read(states[0]), states[0]) if states else TrainerLog()
    scores, facts = dict(log.scores), dict(log.facts)
    for path in results:
        stated = _of_results(_read(path), path)
        scores |= stated.scores
        facts = stated.facts | facts
    if not states and not scores:
        raise DataError(f"folder {str(folder)!r} states no score and holds no {_STATE}")
    return TrainerLog(log.steps, log.evaluations, scores, log.scored_at, facts)


def _number(name: str) -> int:
    digits = name.rpartition("-")[2]
    return -1 if (number := whole_number(digits)) is None else number


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"file {str(path)!r} does not exist; give a {_STATE}, a results JSON, or their folder"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); give a {_STATE} or a results JSON of HF Trainer") from None


def _of_content(content: Any, path: Path) -> TrainerLog:
    if isinstance(content, dict) and "log_history" in content:
        return _of_state(content, path)
    log = _of_results(content, path)
    if not log.scores:
        raise DataError(f"{path} holds neither a log_history nor a score such as eval_accuracy; give a {_STATE}")
    return log


def _of_state(state: Mapping[str, Any], path: Path) -> TrainerLog:
    entries = state["log_history"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: log_history is not a list of entries; give the file as Trainer wrote it")
    steps, evaluations, final = [], [], {}
    facts = _facts(state, {"epoch": "epochs", "global_step": "steps", "train_batch_size": "batch_size"}, path)
    is_over = False  # after the summary of the training, an evaluation is of the kept weights, not of the last epoch's
    for number, entry in enumerate(entries, start=1):
        place = f"{path}: entry {number} of log_history"
        if "train_runtime" in entry:
            facts |= _facts(entry, {"train_runtime": "train_seconds"}, path)
            is_over = True
        elif "loss" in entry:
            steps.append(_numbers(entry, ("step", "epoch", "loss"), ("learning_rate",), place))
            is_over = False
        elif scores := _scores(entry, place).get("evaluation"):
            evaluations.append({**_numbers(entry, ("step", "epoch"), (), place), **scores})
            if is_over:
                final = evaluations.pop()
    if not steps and not any("loss" in evaluation for evaluation in evaluations):
        raise DataError(
            f"{path} has no losses in its log_history; train with logging_steps or eval_strategy, so that Trainer logs "
            "them"
        )
    kept, scored_at = (final, "the kept weights") if final else _kept(state, evaluations)
    stated = {name: score for name, score in kept.items() if name not in ("step", "epoch")}
    return TrainerLog(steps, evaluations, {"evaluation": stated} if stated else {}, scored_at, facts)


def _kept(state: Mapping[str, Any], evaluations: list[dict[str, float]]) -> tuple[dict[str, float], str]:
    """Return the evaluation of the checkpoint that Trainer calls the best, else the last one; empty without any."""
    best = state.get("best_global_step") or _number(str(state.get("best_model_checkpoint") or ""))
    chosen = next((evaluation for evaluation in evaluations if evaluation["step"] == best), None)
    if chosen is not None:
        return chosen, f"the best checkpoint, step {best}"
    return (evaluations[-1], f"step {evaluations[-1]['step']:g}, the last") if evaluations else ({}, "")


def _of_results(content: Any, path: Path) -> TrainerLog:
    """Read the JSON of save_metrics: eval_accuracy, test_f1, train_runtime, ...; without a prefix, any other scores."""
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object; give a {_STATE} or a results JSON of HF Trainer")
    facts = _facts(content, {"epoch": "epochs", "train_runtime": "train_seconds"}, path)
    return TrainerLog(scores=_scores(content, str(path)), facts=facts)


def _scores(entry: Mapping[str, Any], place: str) -> dict[str, dict[str, float]]:
    """Return the scores of an entry by split; what is no number is left out."""
    scores: dict[str, dict[str, float]] = {}
    for key, value in entry.items():
        prefix, _, name = str(key).partition("_")
        split, name = (_SPLITS[prefix], name) if name and prefix in _SPLITS else ("evaluation", str(key))
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and prefix != "train" and not _NO_SCORE.fullmatch(name):
            scores.setdefault(split, {})[name] = _finite(value, key, place)
    return scores


def _facts(entry: Mapping[str, Any], names: Mapping[str, str], path: Path) -> dict[str, float]:
    present = {key: name for key, name in names.items() if isinstance(entry.get(key), (int, float))}
    return {name: _finite(entry[key], key, str(path)) for key, name in present.items()}


def _numbers(
    entry: Mapping[str, Any], required: Iterable[str], optional: Iterable[str], place: str
) -> dict[str, float]:
    missing = [key for key in required if key not in entry]
    if missing:
        raise DataError(f"{place} has no {missing[0]}; give the file as Trainer wrote it")
    keys = [*required, *[key for key in optional if entry.get(key) is not None]]
    return {key: _finite(entry[key], key, place) for key in keys}


def _finite(value: Any, key: str, place: str) -> float:
    """Return a number. Raises DataError for anything else, and for NaN, which a diverged training logs."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise DataError(f"{place}: {key} is {value!r}, not a number; give the file as Trainer wrote it")
    if not math.isfinite(value):
        raise DataError(f"{place}: {key} is {value}; the training diverged, so import one that did not")
    return float(value)
