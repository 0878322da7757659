"""The learning rate: its default for a model's size, and its schedule over the steps of a run."""

from __future__ import annotations

import math

from lightning_sdk.settings import Optimizer, Settings
from lightning_sdk.settings.provider import PROMPTS

#: Rate times parameters, as was found to work well from 2 million to 1 billion parameters.
_RATE_TIMES_PARAMETERS = 1000.0
#: Above 5e-4 a model of 0.9 million parameters called its tool as often and copied worse (held-out 0.95 against 0.99).
_SMALLEST, _LARGEST = 1e-6, 5e-4


def default_rate(parameters: int) -> float:
    """1000 / parameters within [1e-6, 5e-4], to two digits: 4.5e-4 at 2.2M, 7.4e-6 at 135M, 1e-6 from 1B on.

    A straight line in log-log, of slope -1, through what works for RL of a 2M model and the 1e-6 usual at 1B and more.
    """
    rate = min(max(_RATE_TIMES_PARAMETERS / parameters, _SMALLEST), _LARGEST)
    digits = 1 - math.floor(math.log10(rate))
    return round(rate, digits)


def rate_of_update(settings: Settings, peak: float, *, updates: int, step: int) -> float:
    """Rate of the update that is step `step` of the run, counted from 1, after so many other updates.

    Where weights and prompts are tuned in turns, the steps between updates are rounds of a search: the warm-up counts
    the updates, and the decay the steps, so that it ends with the run, whichever phases there were.
    """
    done = step - 1 if settings.tune == PROMPTS else updates
    return rate_at(done, settings.steps, peak, settings.optimizer, updates=updates)


def rate_at(step: int, steps: int, peak: float, optimizer: Optimizer, *, updates: int | None = None) -> float:
    """Rate of this step, counted from 0: linear warm-up, constant, linear decay to a tenth. `updates`: those before it,
    if not all steps were updates."""
    warm = min(1.0, ((step if updates is None else updates) + 1) / (optimizer.warmup_steps + 1))
    left = (steps - step) / (optimizer.decay * steps) if optimizer.decay else 1.0
    return peak * warm * min(1.0, max(0.1, left))
