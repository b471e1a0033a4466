"""ONNX models with 8-bit weights, and what these cost: accuracy, size and latency beside the fp32 model.

# N examples  C classes
"""

import shutil
import time
from pathlib import Path

import numpy as np

from tuneoff.deliver.check import Reference, reloaded
from tuneoff.deliver.classifier import joined_texts
from tuneoff.deliver.layouts import Source
from tuneoff.deliver.onnx import MODEL, quiet, write_onnx
from tuneoff.errors import ExportError
from tuneoff.formats import fixed, signed, size
from tuneoff.scoring import stats
from tuneoff.scoring.thresholds import labels_from_probabilities

FP32 = "fp32"  # folder in the export with the fp32 model, until they are compared
_MAX_LOSS = 0.05  # of accuracy: an interval that is all below it is an error
_WARM_UP, _TIMED = 5, 50  # texts


def write_int8(source: Source, target: Path) -> None:
    """Write model.onnx with 8-bit weights, and the fp32 model in a folder of its own.

    Dynamic quantization: weights are rounded once, activations at each call; it needs no calibration data.
    """
    write_onnx(source, target)
    (target / FP32).mkdir()
    for file in [path for path in target.iterdir() if path.is_file()]:
        shutil.copyfile(file, target / FP32 / file.name)
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(target / FP32 / MODEL, target / MODEL, weight_type=QuantType.QInt8, per_channel=True)
    for file in target.glob(f"{MODEL}.data"):  # weights of a large fp32 model
        file.unlink()


def costs_of_int8(source: Source, target: Path, expected: Reference) -> tuple[str, ...]:
    """Measure both models on the same examples. Returns sentences. Raises ExportError if accuracy is lost."""
    given = reloaded("reload_onnx.py", target, expected.texts)  # (N, C)
    timed = joined_texts(expected.texts.slice(0, _TIMED))
    sizes = [_bytes(folder) for folder in (target, target / FP32)]
    times = [latency(folder, timed) for folder in (target, target / FP32)]
    accuracy = _accuracy(source, given, expected)
    return (
        accuracy,
        f"8-bit weights take {size(sizes[0])} instead of {size(sizes[1])}. A text, with tokenization, takes "
        f"{1000 * times[0]:.1f} ms instead of {1000 * times[1]:.1f} ms (one thread, median of {len(timed)} texts).",
    )


def _accuracy(source: Source, given: np.ndarray, expected: Reference) -> str:
    """Sentence on the accuracy that is lost: a paired difference on the same examples."""
    if expected.labels is None:
        return "What 8-bit weights cost in accuracy was not measured: the examples have no labels."
    saved, by_class = source.saved, [given, expected.probabilities]
    limits = np.array(saved.thresholds) if saved.thresholds else None
    predicted = [labels_from_probabilities(probabilities, limits) for probabilities in by_class]
    resampled = stats.resampled_scores("accuracy", expected.labels, predicted, by_class, seed=0)
    scores = [stats.score_of("accuracy", expected.labels, *run) for run in zip(predicted, by_class, strict=True)]
    runs = [stats.RunScores(np.array(scores[i : i + 1]), resampled[i : i + 1], (0,), is_seeded=False) for i in (0, 1)]
    gap = stats.difference(runs[0], runs[1], len(given))
    low, high = (signed(100 * value, 2) for value in stats.interval(gap))
    count = f"{len(given):,} {'test' if 'test examples' in expected.origin else 'training'} examples"
    text = (
        f"8-bit weights change accuracy by {signed(100 * gap.value, 2)} points (95 % interval {low} to {high}, paired, "
        f"on {count}): {fixed(scores[0])} instead of {fixed(scores[1])}."
    )
    if stats.interval(gap)[1] < -_MAX_LOSS:
        raise ExportError(f"{text} That is more than {100 * _MAX_LOSS:.0f} points; nothing was exported: use onnx")
    return text


def latency(folder: Path, texts: list[str]) -> float:
    """Median seconds to classify one text with an ONNX model on one thread, tokenization included."""
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = [value.name for value in session.get_inputs()]
    times = []
    for text in (*texts[:_WARM_UP], *texts):
        started = time.perf_counter()
        encoding = tokenizer.encode(text)
        columns = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        values = dict(zip(("input_ids", "attention_mask", "token_type_ids"), columns, strict=True))
        session.run(["logits"], {name: np.array([values[name]], np.int64) for name in names})
        times.append(time.perf_counter() - started)
    return float(np.median(times[-len(texts) :]))


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"{MODEL}*"))
