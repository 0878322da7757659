"""Sameness: rollouts of one task that sampled the same tokens, and what in their requests made sampling
deterministic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from lightning_hub.trajectories.role_rollout import RoleRollout
from lightning_sdk.trace.call import Call

#: Temperature up to which a model nearly always says its first choice.
_COLD = 0.2
#: Log of a chance below which rollouts do not agree by chance.
_LEAST = math.log(1e-6)


class _Request(msgspec.Struct):
    seed: int | None = None
    temperature: float | None = None


_requests = msgspec.json.Decoder(_Request)


def is_alike(group: Sequence[RoleRollout]) -> bool:
    """Whether a group has at least two rollouts and all sampled the same tokens."""
    said = {tuple(row.tokens[row.mask].tobytes() for row in each.trajectories) for each in group}
    return len(group) > 1 and len(said) == 1


def find_causes(groups: Sequence[Sequence[RoleRollout]]) -> list[tuple[str, str]]:
    """What made the rollouts of these groups alike, as cause and remedy; empty if it is the model itself."""
    asked = [[_read_request(call) for call in _first_calls(group)] for group in groups]
    everything = [each for group in asked for each in group]
    replies = [[call.response_id for call in _first_calls(group) if call.response_id] for group in groups]
    found = []
    if everything and all(_is_one_seed([each.seed for each in group]) for group in asked):
        found.append(
            (
                f"the agent sends the same seed ({everything[0].seed}) with the calls of all of them",
                "Leave the seed out of the agent's calls.",
            )
        )
    if any(len(set(ids)) < len(ids) for ids in replies):
        found.append(
            (
                "several calls got the same reply, as from a cache between the agent and the engine",
                "Turn off the cache of the framework or the proxy.",
            )
        )
    if everything and all(each.temperature is not None and each.temperature <= _COLD for each in everything):
        found.append(
            (
                f"they were sampled at temperature {everything[0].temperature:g}",
                "Raise it: --set sampling.temperature=1.",
            )
        )
    if not found and (chance := _log_chance(groups)) < _LEAST:
        found.append(
            (
                f"by the model's own probabilities this happens once in 10^{-chance / math.log(10):.0f} times, so the "
                "engine does not sample freely",
                "Remove a fixed seed, temperature or cache from the configuration of the server or of a proxy.",
            )
        )
    return found


def _log_chance(groups: Sequence[Sequence[RoleRollout]]) -> float:
    """Log of the chance that all rollouts of these groups say what the first of each group said."""
    return sum(
        (len(group) - 1) * float(row.logprobs[row.mask].sum()) for group in groups for row in group[0].trajectories
    )


def cause_and_remedy(groups: Sequence[Sequence[RoleRollout]]) -> tuple[str, str]:
    """Cause and remedy of groups that are all alike."""
    head = "All rollouts of a task said the same, token for token, so there is nothing to compare: "
    found = find_causes(groups)
    if not found:
        return (
            f"{head}the model is this certain of its answers.",
            "Use other tasks or another model (--model), or raise sampling.temperature above 1.",
        )
    return f"{head}{', and '.join(cause for cause, _ in found)}.", " ".join(remedy for _, remedy in found)


def _is_one_seed(seeds: Sequence[int | None]) -> bool:
    return len(seeds) > 1 and None not in seeds and len(set(seeds)) == 1


def _first_calls(group: Sequence[RoleRollout]) -> list[Call]:
    """The first call of each role rollout: later ones may differ in what they ask."""
    found = []
    for role_rollout in group:
        mine = (
            call for call in role_rollout.rollout.calls if call.meta.trainable and call.meta.role == role_rollout.role
        )
        found.extend([call for call in [next(mine, None)] if call is not None])
    return found


def _read_request(call: Call) -> _Request:
    try:
        return _requests.decode(call.request)
    except (msgspec.MsgspecError, RecursionError):
        return _Request()
