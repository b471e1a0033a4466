"""Learning rate schedules: warm-up, then linear decay, cosine decay or constant. Pure functions of the step."""

import math


def rate_share(schedule: str, step: int, num_steps: int, warmup: float) -> float:
    """Learning rate at a step, as a share of the peak rate. step: counted from 0.

    It rises linearly over the first share `warmup` of the steps, then falls to 0 linearly or along a cosine, or stays
    constant. The same as transformers' get_scheduler.

    >>> [rate_share("linear", step, 4, 0.5) for step in range(4)]
    [0.0, 0.5, 1.0, 0.5]
    """
    num_warmup = math.ceil(num_steps * warmup)
    if step < num_warmup:
        return step / max(1, num_warmup)
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    if schedule == "linear":
        return max(0.0, 1.0 - progress)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
