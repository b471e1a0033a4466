"""The checkpoint of a run: written while it trains, and before it by the best trial of its search.

A trial of a search trains as the first run with the trial's options does: the same examples, seed and recipe. So the
state at the end of the best trial is kept as the checkpoint of that run, which goes on from it: it takes no step again,
or, where the trial was stopped early, only those that it lacks. Its bits are those of a run that trains by itself.
"""

import math

import torch

from tuneoff.cache import fingerprint
from tuneoff.engine.resume import Checkpoint, checkpoint_seconds
from tuneoff.engine.training_state import State
from tuneoff.machine import device, processor, versions
from tuneoff.runs import RunStore
from tuneoff.spec.run import RunSpec


def checkpoint_of(spec: RunSpec, store: RunStore, num_devices: int = 1) -> Checkpoint:
    """Return the checkpoint of a run, with everything on which its bits depend. num_devices: that train it together."""
    settings = spec.model_dump(mode="json", exclude={"tests", "save_model"})
    key = {
        **versions(),
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "device": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or device().type,
        "settings": fingerprint(settings),
        **({"devices": num_devices} if num_devices > 1 else {}),
    }
    return Checkpoint(store.checkpoint(spec.run_id), key, checkpoint_seconds())


def keep_best_trial(
    trial: RunSpec, state: State, earlier: RunSpec | None, store: RunStore, num_devices: int = 1
) -> None:
    """Keep the state at the end of the best trial so far for its run, in place of that of an earlier best trial.

    Where checkpoints are turned off or the disk is full nothing is kept, and the run trains by itself.
    """
    if earlier:
        checkpoint_of(earlier, store).remove()
    checkpoint = checkpoint_of(trial, store, num_devices)
    if checkpoint.seconds != math.inf:
        checkpoint.write_state(state)
