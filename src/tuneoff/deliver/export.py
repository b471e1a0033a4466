"""Export a stored model to the format of another library, and check there that it gives the same probabilities."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuneoff.comparison.assemble import compare
from tuneoff.deliver import check, hub
from tuneoff.deliver.card import DataFacts, ModelFacts, write_card
from tuneoff.deliver.classifier import load_classifier, verified_encoder
from tuneoff.deliver.find import Found, find
from tuneoff.deliver.layouts import (
    BOTTLENECK,
    PEFT,
    PROBE,
    TEXTS,
    WHOLE,
    Source,
    write_adapterhub,
    write_merged,
    write_skops,
    write_stored,
)
from tuneoff.deliver.onnx import write_onnx
from tuneoff.deliver.quantize import FP32, costs_of_int8, write_int8
from tuneoff.deliver.saved import DESCRIPTION, SavedModel
from tuneoff.encoder.config import resolve
from tuneoff.errors import ConfigError, StoreError, unknown
from tuneoff.scoring.metrics import without_own
from tuneoff.spec.file import read_study

_MAX_MEASURED = 5000  # examples on which the costs of a format are measured


@dataclass(frozen=True)
class Reader:
    """The libraries that read an export, and the script in checks/ that reloads it with them alone."""

    libraries: str
    script: str | None  # None: no library of this environment reads it


_TRANSFORMERS = Reader("transformers", "reload_transformers.py")
_ONNX = Reader("onnxruntime and tokenizers", "reload_onnx.py")
_PEFT = Reader("transformers and peft", "reload_peft.py")


@dataclass(frozen=True)
class Format:
    """One row of FORMATS."""

    summary: str  # for the command line
    write: Callable[[Source, Path], None]
    readers: dict[str, Reader]  # layout of the stored model -> reader of its export; without those that have none
    # (source, folder, examples) -> sentences on what the format costs; its exact version is in the folder FP32
    costs: Callable[[Source, Path, check.Reference], tuple[str, ...]] | None = None


FORMATS = {
    "merged": Format(
        "one transformers model; LoRA and other methods of peft are merged into the encoder's weights",
        write_merged,
        {WHOLE: _TRANSFORMERS, PEFT: _TRANSFORMERS},
    ),
    "safetensors": Format(
        "the weights as stored: a transformers model, or an adapter of peft",
        write_stored,
        {WHOLE: _TRANSFORMERS, PEFT: _PEFT},
    ),
    "onnx": Format(
        "one ONNX graph for onnxruntime, adapters and pooling included",
        write_onnx,
        dict.fromkeys((WHOLE, PEFT, BOTTLENECK, PROBE), _ONNX),
    ),
    "onnx-int8": Format(
        "the ONNX graph with 8-bit weights, and what they cost",
        write_int8,
        dict.fromkeys((WHOLE, PEFT, BOTTLENECK, PROBE), _ONNX),
        costs_of_int8,
    ),
    "adapterhub": Format(
        "a bottleneck adapter as AdapterHub's library reads it",
        write_adapterhub,
        {BOTTLENECK: Reader("adapters", None)},  # which needs an older transformers
    ),
    "skops": Format(
        "a scikit-learn classifier that predicts names; of a probe, with its encoder",
        write_skops,
        {TEXTS: Reader("skops", "reload_skops.py"), PROBE: Reader("transformers and skops", "reload_probe.py")},
    ),
}


# layout of the stored model -> the format that most libraries load
_ON_HUB = {WHOLE: "merged", PEFT: "merged", BOTTLENECK: "adapterhub", TEXTS: "skops", PROBE: "skops"}


@dataclass(frozen=True)
class Exported:
    """An export."""

    folder: Path
    label: str  # of the strategy
    format: str
    notes: tuple[str, ...]  # sentences: what was checked, what the format costs

    @property
    def size_bytes(self) -> int:
        """Size of all its files."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


def export(
    name: str | Path,
    to: str,
    *,
    strategy: str | None = None,
    encoder: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    is_checked: bool = True,
    hub_format: str | None = None,
    is_public: bool = False,
) -> Exported:
    """Export the model of a study (by default the recommended one), of a run's folder or of a model's folder.

    encoder: place of the pretrained encoder, if it is not where it was at training. out: by default a folder in the
    study's exports/. The folder gets its final name once the export is complete and checked.
    to: a key of FORMATS, or hub:OWNER/NAME to upload an export to the Hugging Face hub with your credentials, as a
    private repository unless is_public; hub_format is then its format, by default the one that most libraries load.
    Raises ConfigError, StoreError, ModelError or ExportError, in one line.
    """
    run = find(name, strategy)
    source = _source(run, encoder)
    if to.startswith(hub.PREFIX):
        repository = to.removeprefix(hub.PREFIX)
        hub.check_upload(repository)
        options = {"strategy": strategy, "encoder": encoder, "out": out, "overwrite": overwrite}
        exported = export(name, hub_format or _ON_HUB[source.layout], **options, is_checked=is_checked)  # type: ignore[arg-type]
        address = hub.upload(exported.folder, repository, is_public)
        return replace(exported, notes=(*exported.notes, f"Uploaded to {address}"))
    chosen = format_of(to)
    _require_layout(source, to)
    target = Path(out).expanduser() if out else _default_folder(run, to)
    _require_replaceable(target, source, overwrite)
    unfinished = target.with_name(f".unfinished-{target.name}-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        chosen.write(source, unfinished)
        source.saved.write(unfinished)
        notes = _checked(chosen, source, run, unfinished) if is_checked else ("Nothing was checked (--no-check).",)
        shutil.rmtree(unfinished / FP32, ignore_errors=True)
        write_card(unfinished, _facts(source, run, to, notes))
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Exported(target, run.label, to, notes)


def _require_replaceable(target: Path, source: Source, overwrite: bool) -> None:
    """Raise StoreError for a folder that may not be replaced: only an empty one and an earlier export may."""
    if not target.exists():
        return
    if not overwrite:
        raise StoreError(f"{target} exists already; give --overwrite, or another folder with --out")
    is_empty = target.is_dir() and not any(target.iterdir())
    is_export = (target / DESCRIPTION).is_file() and not (target.parent / "run.json").is_file()
    if not (is_empty or is_export) or target.resolve() == source.folder.resolve():
        raise StoreError(f"{target} is not an export, so that --overwrite does not replace it; name another with --out")


def format_of(to: str) -> Format:
    """Return the row of FORMATS. Raises ConfigError."""
    if to not in FORMATS:
        raise ConfigError(f"{unknown('format', to, FORMATS)}, hub:OWNER/NAME")
    return FORMATS[to]


def _source(run: Found, encoder: str | None) -> Source:
    folder = run.folders[0]
    saved = SavedModel.read(folder)
    source = Source(folder, saved, encoder or saved.model)
    return source if source.layout in (WHOLE, TEXTS) else Source(folder, saved, verified_encoder(saved, encoder))


def _require_layout(source: Source, to: str) -> None:
    if source.layout in FORMATS[to].readers:
        return
    is_bottleneck = source.layout == BOTTLENECK and to in ("merged", "safetensors")
    reason = " (bottleneck adapters compute between layers; no weights can hold them)" if is_bottleneck else ""
    fitting = [name for name, row in FORMATS.items() if source.layout in row.readers]
    raise ConfigError(
        f"{source.saved.strategy.label} cannot be exported to {to}{reason}; choose from {', '.join(fitting)}"
    )


def _default_folder(run: Found, to: str) -> Path:
    name = f"{re.sub(r'[^A-Za-z0-9.]+', '-', run.label).strip('-')}-{to}"
    return (run.store.folder / "exports" if run.store else run.folders[0].parent) / name


def _checked(chosen: Format, source: Source, run: Found, folder: Path) -> tuple[str, ...]:
    """Reload an export and compare it with the model. Returns sentences for readers. Raises ExportError."""
    reader, everything = chosen.readers[source.layout], check.reference(source, run)
    expected = check.comparable(source, everything)
    if reader.script:
        exact = folder / FP32 if chosen.costs else folder
        given = check.reloaded(reader.script, exact, expected.texts, _base(source))
        largest = check.compare(given, expected, reader.libraries)
        how = f"with {reader.libraries} alone, a new process gives"
    else:
        given = load_classifier([folder], source.encoder).predict_proba(expected.texts)
        largest = check.compare(given, expected, "Tuneoff")
        how = f"not with the library {reader.libraries}, but as Tuneoff reloads it, it gives"
    what = " (of the fp32 model)" if chosen.costs else ""
    checked = f"Checked: {how} the {expected.origin}; the largest difference is {largest:.1g}{what}."
    costs = chosen.costs(source, folder, check.comparable(source, everything, _MAX_MEASURED)) if chosen.costs else ()
    return (checked, *costs, *_first_tokens(source))


def _facts(source: Source, run: Found, to: str, notes: tuple[str, ...]) -> ModelFacts:
    """Gather what the card tells: of a model in a study, also its run, the data and the comparison."""
    if run.store is None:
        return ModelFacts(source.saved, notes=notes, format=to)
    study = read_study(str(run.store.folder / "study.yaml"))
    record, (data, _, _) = run.store.runs.record(source.saved.run_id), run.store.read_data()
    comparison = compare(study, run.store, without_own(study.metric, data.is_multilabel))
    return ModelFacts(source.saved, record, DataFacts.of(data), comparison, notes, to)


def _base(source: Source) -> Sequence[str]:
    return [resolve(source.encoder)] if source.layout == PEFT and source.encoder else []


def _first_tokens(source: Source) -> tuple[str, ...]:
    """Sentence on long texts, of which other libraries read less than Tuneoff does."""
    policy = source.saved.truncation
    if source.encoder is None or policy.long_texts not in ("head_tail", "windows"):
        return ()
    return (
        f"Of longer texts this format reads the first {policy.max_length} tokens; Tuneoff reads {policy.describe()}.",
    )
