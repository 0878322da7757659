"""Estimation: the parts that one role played in a batch, each credited by the role's own `Credit`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_hub.backend import Row, Scoring
from lightning_hub.credit import estimators
from lightning_hub.credit.estimators import Floats
from lightning_hub.trajectories.role_rollout import Part
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_sdk.settings.groups import Credit
from lightning_sdk.settings.ranges import GROUPED

Arrays = list[NDArray[np.float32]]
_WHITENED = {"reinforce++", "reinforce++_baseline", "gae"}


@dataclass(slots=True)
class Credited:
    """A part with what its sampled tokens are credited with: [T] for each of its trajectories, 0 elsewhere."""

    part: Part
    advantages: Arrays
    returns: Arrays | None = None
    """What the value head learns; of 'gae' only."""
    values: Arrays | None = None
    """What it predicted."""


def credited(
    of_role: list[Part], settings: Settings, means: MutableMapping[str, float], scoring: Scoring | None
) -> list[Credited]:
    """The parts of one role, in their order. `means` moves on by what they earned. SettingError without scores."""
    role, credit = of_role[0].role, of_role[0].credit
    if settings.divergence.place == "reward" and settings.divergence.coefficient:
        _charge(of_role, settings, scoring)
    if credit.advantage == "gae":
        values = _scores(of_role, scoring, "values", "credit.advantage='gae'")
        made = [_estimated(part, each, settings.value.gae_lambda) for part, each in zip(of_role, values, strict=True)]
    else:
        made = [Credited(part, part.spread(own)) for part, own in zip(of_role, _own(of_role, means), strict=True)]
    if credit.advantage in _WHITENED:
        _whiten(made)
    mean = float(np.mean([part.reward for part in of_role if part.reward is not None]))
    means[role] = credit.momentum * means[role] + (1 - credit.momentum) * mean if role in means else mean
    return made


def groups(parts: Iterable[Part]) -> list[list[Part]]:
    """Parts of one role in rollouts of one task: those that are compared with each other. In each one of them spoke."""
    found: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        found.setdefault((part.rollout.group, part.role), []).append(part)
    return [group for group in found.values() if not all(part.silent for part in group)]


def tells(group: Sequence[Part]) -> bool:
    """Whether a part that spoke earned something else than its group: there is something to learn."""
    return any(own.any() for own in _less_baseline(group, estimators.dr_grpo))


def is_frozen(credit: Credit) -> bool:
    """Whether a role is never trained, whatever it earns."""
    return credit.schedule == "never" or not credit.weight


def has_signal(of_role: Sequence[Part], means: Mapping[str, float]) -> bool:
    """Whether the rewards of one role say that some of what it may be trained on was better than the rest.

    `means`: role -> running mean of its rewards before.
    """
    trained = {id(part) for part in of_role if any(mask.any() for mask in part.trained)}
    if any(tells(group) and any(id(part) in trained for part in group) for group in groups(of_role)):
        return True
    credit, role = of_role[0].credit, of_role[0].role
    if credit.advantage in GROUPED:
        return False
    values = [part.reward for part in of_role if part.reward is not None and id(part) in trained]
    # Tasks are compared with each other too, and with what was earned before.
    before = [means[role]] if credit.advantage == "running_mean" and role in means else []
    return bool(values) and any(not math.isclose(each, values[0], rel_tol=1e-5) for each in [*values, *before])


def _own(of_role: list[Part], means: Mapping[str, float]) -> list[Floats]:
    """[S] for each part: what its steps returned, less the baseline."""
    role, credit = of_role[0].role, of_role[0].credit
    if estimator := estimators.COMPARED.get(credit.advantage):
        own = {
            id(part): each
            for group in groups(of_role)
            for part, each in zip(group, _less_baseline(group, estimator), strict=True)
        }
        return [own.get(id(part), np.zeros(0)) for part in of_role]
    if credit.advantage != "running_mean":
        return [_returns(part) for part in of_role]
    if role in means:
        return [_returns(part) - means[role] for part in of_role]
    # No step came before: the mean of this batch's other rollouts depends on none of a rollout's own actions either.
    return _less_baseline(of_role, estimators.rloo)


def _less_baseline(parts: Sequence[Part], estimator: Callable[[Floats], Floats]) -> list[Floats]:
    """[S] for each part: its returns compared with those of the other parts, whole or step by step."""
    if parts[0].credit.returns == "to_go":
        # Where a role made no call, or none that can be used, its rollout stands with what it earned.
        returns = [_returns(part) if part.steps else np.array([part.before]) for part in parts]
        own = estimators.by_step(returns, estimator)
        return [each[: part.steps] for part, each in zip(parts, own, strict=True)]
    whole = estimator(np.array([_whole(part) for part in parts]))
    return [np.full(part.steps, value) for part, value in zip(parts, whole, strict=True)]


def _returns(part: Part) -> Floats:
    """[S] what each step is credited with before a baseline is taken off."""
    if part.credit.returns == "to_go":
        return estimators.to_go(part.net(), part.credit.discount)
    return np.full(part.steps, _whole(part))


def _whole(part: Part) -> float:
    return part.before + float(part.net().sum())


def _whiten(made: list[Credited]) -> None:
    masks = [row.mask for each in made for row in each.part.trajectories]
    white = iter(estimators.whiten([array for each in made for array in each.advantages], masks))
    for each in made:
        each.advantages = [next(white) for _ in each.advantages]


def _estimated(part: Part, values: Arrays, decay: float) -> Credited:
    """Estimates along the tokens of a part in the order of its steps; every choice of a call goes on to the next."""
    estimates = [np.zeros(len(each), np.float32) for each in values]
    pieces = list(part.pieces())
    after = following = (0.0, 0.0)
    for place in reversed(range(len(pieces))):
        step, row, piece = pieces[place]
        tokens = slice(piece.start, piece.end)
        ends = np.arange(piece.start, piece.end) == piece.end - 1
        earned = np.where(ends, part.earned[step], 0.0)
        if part.charges:
            earned = earned - part.charges[row][tokens]
        before = values[row][tokens].astype(np.float64)
        estimates[row][tokens] = estimators.gae(earned, before, ends, part.credit.discount, decay, after)
        following = float(values[row][piece.start]), float(estimates[row][piece.start])
        if place and pieces[place - 1][0] != step:
            after = following
    returns = [estimate + value for estimate, value in zip(estimates, values, strict=True)]
    return Credited(part, estimates, returns, values)


def _charge(of_role: list[Part], settings: Settings, scoring: Scoring | None) -> None:
    """What each sampled token costs for leaving the reference (InstructGPT, arXiv:2203.02155, eq. 2)."""
    references = _scores(of_role, scoring, "reference", "divergence.place='reward'")
    estimate = _ESTIMATES[settings.divergence.estimator]
    for part, found in zip(of_role, references, strict=True):
        part.charges = [
            np.where(row.mask, settings.divergence.coefficient * estimate(reference - row.logprobs), 0).astype("f4")
            for row, reference in zip(part.trajectories, found, strict=True)
        ]


def _k3(difference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bounded as in `lightning_losses.divergence`: it grows exponentially, and one token would decide a whole batch."""
    bounded = np.clip(difference, -20, 20)
    return np.minimum(np.expm1(bounded) - bounded, np.float32(10))


_ESTIMATES: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    # Of the reference's log-probability minus the sampler's (Schulman, "Approximating KL divergence", 2020).
    "k1": lambda d: -d,
    "k2": lambda d: 0.5 * d * d,
    "k3": _k3,
}


def _scores(of_role: list[Part], scoring: Scoring | None, what: str, setting: str) -> list[Arrays]:
    """For each part [T] for each of its trajectories."""
    if scoring is None:
        raise SettingError(f"setting {setting} needs a backend that scores tokens, such as the embedded one")
    rows = [_plain_row(part, place) for part in of_role for place in range(len(part.trajectories))]
    found = iter(scoring.score(rows, what))
    return [[next(found) for _ in part.trajectories] for part in of_role]


def _plain_row(part: Part, place: int) -> Row:
    row = part.trajectories[place]
    sampled = row.mask.astype(np.float32)
    return Row(
        row.tokens, sampled, np.zeros_like(sampled), row.logprobs, row.temperature, -1, row.role, row.rollout,
        constraints=row.constraints(len(row.tokens)),
    )  # fmt: skip
