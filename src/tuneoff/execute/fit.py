"""Fit a strategy of any kind, and evaluate it: probabilities, costs, and functions that save and classify."""

from collections.abc import Callable, Sequence

import numpy as np

from tuneoff.data.dataset import Dataset
from tuneoff.data.splits import parts_of
from tuneoff.engine.resume import Checkpoint
from tuneoff.engine.training_state import State
from tuneoff.errors import DivergedError
from tuneoff.execute.devices import Devices
from tuneoff.execute.fit_classifier import fit_on_embeddings, fit_on_texts
from tuneoff.execute.fit_model import fit_model
from tuneoff.execute.fitted import FitRequest, Fitted
from tuneoff.execute.inputs import JobInputs
from tuneoff.spec.run import RunSpec

EVAL_SPLITS = ("validation", "test")  # predicted and scored by a run that has them
_FIT: dict[str, Callable[[FitRequest], Fitted]] = {
    "texts": fit_on_texts,
    "embeddings": fit_on_embeddings,
    "model": fit_model,
}


def fit(
    spec: RunSpec,
    dataset: Dataset,
    inputs: JobInputs,
    eval_splits: Sequence[str] = EVAL_SPLITS,
    on_progress: Callable[[float], None] = lambda share: None,
    should_stop: Callable[[float], bool] = lambda score: False,
    checkpoint: Checkpoint | None = None,
    halvings: int = 0,
    on_end: Callable[[State], None] | None = None,
    devices: Devices | None = None,
) -> Fitted:
    """Fit a strategy on train and predict the evaluation splits, as far as the run has them.

    eval_splits: a search passes validation alone, and so never reads test. should_stop: for a strategy that trains in
    epochs, called with the validation score after each; True ends training. checkpoint, halvings: of a training by
    gradient, which goes on from the checkpoint; halvings of the micro-batch, for lack of memory. on_end: of one by
    gradient too, called with its state at the end, from which a run goes on that should_stop does not end. devices:
    that make such a training together; None for one.
    Raises DivergedError if a probability is not finite.
    """
    parts = parts_of(dataset, spec.fold, spec.subset, spec.seed, spec.division)
    present = [purpose for purpose in eval_splits if purpose in parts]
    request = FitRequest(
        spec, dataset, inputs, present, on_progress, should_stop, parts, checkpoint, halvings, on_end, devices
    )
    fitted = _FIT[spec.definition.fits_on](request)
    if not all(np.isfinite(values).all() for values in fitted.probabilities.values()):
        raise DivergedError("the model gives no finite probabilities; lower the learning rate, or check the encoder")
    if spec.final:
        fitted.thresholds = np.array(spec.final.thresholds) if spec.final.thresholds else None
    else:
        fitted.thresholds = request.selection.thresholds(
            request.labels("validation"), fitted.probabilities["validation"]
        )
    return fitted
