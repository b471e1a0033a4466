"""TensorBoard: a folder with a subfolder for each run, and one for the study."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tuneoff.formats import markdown_text
from tuneoff.track import TensorboardOptions
from tuneoff.trackers.base import TrackedRun, TrackedStudy

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_STAMP = "tuneoff.stamp"  # file that is written last: the folder is complete


def store_in_tensorboard(study: TrackedStudy, options: TensorboardOptions) -> str:
    """Store a study; runs that are stored already are left as they are."""
    folder = Path(options.folder).expanduser() / study.name if options.folder else study.folder / "tensorboard"
    for run in study.runs:
        _store(folder / run.run_id, run.stamp, lambda writer, run=run: _write_run(writer, run))  # type: ignore[misc]
    _store(folder / study.id, study.stamp, lambda writer: _write_study(writer, study))
    return f"{folder} (tensorboard --logdir {folder})"


def _store(folder: Path, stamp: str, write: Callable[["SummaryWriter"], None]) -> None:
    """Write one run's folder anew, unless it is complete and has this stamp."""
    marker = folder / _STAMP
    if marker.is_file() and marker.read_text(encoding="utf-8") == stamp:
        return
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        write(writer)
    marker.write_text(stamp, encoding="utf-8")


def _write_run(writer: "SummaryWriter", run: TrackedRun) -> None:
    from torch.utils.tensorboard.summary import hparams

    for point in run.curves:
        for name, value in point.values.items():
            writer.add_scalar(name, value, point.step, walltime=run.finished_at)
    last_step = run.curves[-1].step if run.curves else 0
    for name, value in run.scores.items():
        writer.add_scalar(name, value, last_step, walltime=run.finished_at)
    # add_hparams() would write them into one more subfolder
    for summary in hparams(run.params, dict.fromkeys(run.scores, 0.0)):
        writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]
    rows = [f"| {markdown_text(name)} | {markdown_text(str(value))} |" for name, value in run.params.items()]
    writer.add_text("params", "\n".join(["| parameter | value |", "| --- | --- |", *rows]))
    if run.error:
        writer.add_text("failed", markdown_text(run.error))


def _write_study(writer: "SummaryWriter", study: TrackedStudy) -> None:
    writer.add_text("verdict", markdown_text(study.verdict))
    writer.add_text("leaderboard", study.leaderboard_markdown)
    writer.add_text("report", study.report)
    places = [study.files["report/index.html"], *([study.model] if study.model else [])]
    writer.add_text("files", "\n".join(f"- {markdown_text(str(place))}" for place in places))
    for name, value in study.scores.items():
        writer.add_scalar(name, value, 0)
    for name, path in study.files.items():
        if path.suffix == ".png":
            _add_png(writer, name.removesuffix(".png"), path.read_bytes())


def _add_png(writer: "SummaryWriter", name: str, data: bytes) -> None:
    """Add an image that is compressed already; add_image() takes pixels only."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = struct.unpack(">II", data[16:24])  # of a PNG's header
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=data)
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), 0)  # type: ignore[attr-defined]
