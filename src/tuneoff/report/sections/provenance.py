"""Provenance: seeds or folds, machine, versions, fingerprints and the resolved study."""

import json
from collections.abc import Mapping

import yaml

from tuneoff.comparison.result import Comparison
from tuneoff.formats import counted
from tuneoff.report.section import Block, Bullets, Code, Details, Section, Text


def section(comparison: Comparison) -> Section:
    """Return everything that is needed to repeat the study."""
    text = (
        "study.yaml holds every option of the study, defaults included: tuneoff run study.yaml repeats it. On the same "
        "machine with the same number of threads it gives the same bits."
    )
    study = yaml.safe_dump(comparison.study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    files = (
        "Tables are in tables/ as CSV, Markdown and LaTeX, charts in figures/ as SVG and PNG, predictions in runs/; "
        "report/report.tex is this report as a LaTeX document."
    )
    blocks: list[Block] = [Text(text), Bullets(_facts(comparison)), Details("The resolved study", [Code(study)])]
    return Section("provenance", "Provenance", [*blocks, Text(files)])


def _facts(comparison: Comparison) -> list[str]:
    records, folds = comparison.records, comparison.data.folds
    seeds = sorted({record.seed for record in records})
    facts = [f"Seeds: {', '.join(map(str, comparison.study.seeds or seeds))}"]
    if grid := comparison.study.seed_grid:
        facts = [f"Seeds of {source}: {', '.join(map(str, values))}" for source, values in grid.items()]
    if folds:
        facts = [f"Folds: {folds}, drawn with seed {comparison.study.data.split_seed}; a run's seed is its fold"]
    machines = {json.dumps(record.machine): record.machine for record in records}
    facts += [f"Machine: {_machine(machine)}" for machine in machines.values()]
    if records:
        facts.append(f"Versions: {', '.join(f'{name} {version}' for name, version in records[0].versions.items())}")
    facts.append(f"Data fingerprint: {comparison.data.fingerprint}")
    fingerprints = {record.model: record.spec.get("model_fingerprint") for record in records if record.model}
    facts += [f"Predictions of {entry.name}: {entry.file}" for entry in comparison.study.predictions]
    facts += [f"Imported training log {log.name}: {log.file}" for log in comparison.imported]
    return facts + [f"Encoder fingerprint: {model} {value}" for model, value in fingerprints.items() if value]


def _machine(machine: Mapping[str, str | int | None]) -> str:
    num_bytes = machine["memory_bytes"]
    assert isinstance(num_bytes, int)
    parts = [f"{machine['processor']}", counted(int(machine["cores"] or 0), "core"), f"{num_bytes / 2**30:.0f} GiB"]
    parts += [f"{machine['gpu']}"] if machine.get("gpu") else []
    if (threads := machine.get("threads")) is not None:
        parts.append(f"{threads} {'thread' if threads == 1 else 'threads'} per run")
    if devices := machine.get("devices"):
        parts[-1] += f", on each of {devices} devices"
    return ", ".join(parts)
