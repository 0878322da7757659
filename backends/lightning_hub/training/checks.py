"""Checks: when a round of rollouts must not be trained on. The texts are in `lightning_hub.findings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_hub.diagnosis.flatness import Flatness
from lightning_hub.findings import findings
from lightning_hub.findings.failed_rollouts import find_failures
from lightning_hub.rollout import Rollout
from lightning_sdk.errors import ModelError, NothingToTrain, RolloutsFailed
from lightning_sdk.results.diagnosis import Diagnosis
from lightning_sdk.results.quantity import quantity


def refuse_failures(rollouts: Sequence[Rollout], name: str, max_failed: float) -> None:
    """RolloutsFailed if more than `max_failed` of the rollouts failed, or all of them."""
    found = find_failures(rollouts, name, max_failed)
    if found is not None and found.is_fatal:
        raise RolloutsFailed(str(found))


def refuse_unlearnable(diagnosis: Diagnosis) -> None:
    """NothingToTrain if nothing can be learned, whatever tasks come next."""
    if found := [each for each in diagnosis.fatal if not each.passing]:
        raise NothingToTrain("\n".join(map(str, found)))


def no_signal(flat: Flatness, steps: int) -> str:
    """What a training says that stops since none of its steps had a signal."""
    many = "The first step was" if steps == 1 else f"All {steps} steps so far were"
    return (
        f"{flat.finding()}\n{many} like that, so nothing was learned and the training stopped. To continue anyway, add "
        "--set failure.flat_steps=0, or a larger number."
    )


def first_without_signal(flat: Flatness, name: str, limit: int) -> str:
    """What a training says after its first step, if that had no signal."""
    ahead = f" The training stops after {quantity(limit, 'step')} like this one." if limit else ""
    return f"NOTHING WAS LEARNED in {name}: {flat.finding()}{ahead}"


def refuse_problems(problems: Sequence[str], trainable: int) -> None:
    """NothingToTrain for calls that went well but whose ids or log-probs cannot be used, of `trainable` calls."""
    if problems:
        raise NothingToTrain(str(findings.unusable_calls(problems, trainable)))


def refuse_other_model(before: Mapping[str, object], facts: Mapping[str, object], model: str) -> None:
    """ModelError where the model is not the one that the run began with, as after its folder was replaced."""
    for name in ("tokenizer", "parameters"):
        if name in before and name in facts and before[name] != facts[name]:
            raise ModelError(
                f"model {model!r} is not the one that this run began with: {name} is "
                f"{facts[name]}, and was {before[name]}. Put that one there again, or begin a new run"
            )
