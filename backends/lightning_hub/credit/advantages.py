"""Advantages: what each token of a role in a batch is credited with, as the role's `Credit` says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_hub.backend import Row, Scoring
from lightning_hub.credit import estimators
from lightning_hub.credit.estimators import Floats
from lightning_hub.trajectories.role_rollout import RoleRollout
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_sdk.settings.combinations import GROUPED
from lightning_sdk.settings.groups import Credit

Arrays = list[NDArray[np.float32]]
_WHITENED = {"reinforce++", "reinforce++_baseline", "gae"}


@dataclass(slots=True)
class RoleAdvantages:
    """What the sampled tokens of a role rollout are credited with: [T] for each trajectory, 0 elsewhere."""

    role_rollout: RoleRollout
    advantages: Arrays
    returns: Arrays | None = None
    """What the value head learns; with 'gae' only."""
    values: Arrays | None = None
    """What the value head predicted."""


def estimate_advantages(
    of_role: list[RoleRollout], settings: Settings, means: MutableMapping[str, float], scoring: Scoring | None
) -> list[RoleAdvantages]:
    """The advantages of one role, in the order of its rollouts. Updates the role's running mean in `means`.

    Raises SettingError if the settings need scores and `scoring` is None.
    """
    role, credit = of_role[0].role, of_role[0].credit
    if settings.divergence.place == "reward" and settings.divergence.coefficient:
        _charge(of_role, settings, scoring)
    if credit.advantage == "gae":
        values = _scores(of_role, scoring, "values", "credit.advantage='gae'")
        made = [
            _estimate_gae(role_rollout, each, settings.value.gae_lambda)
            for role_rollout, each in zip(of_role, values, strict=True)
        ]
    else:
        made = [
            RoleAdvantages(role_rollout, role_rollout.spread(own))
            for role_rollout, own in zip(of_role, _advantages_by_call(of_role, means), strict=True)
        ]
    if credit.advantage in _WHITENED:
        _whiten(made)
    mean = float(np.mean([each.reward for each in of_role if each.reward is not None]))
    means[role] = credit.momentum * means[role] + (1 - credit.momentum) * mean if role in means else mean
    return made


def groups(role_rollouts: Iterable[RoleRollout]) -> list[list[RoleRollout]]:
    """Role rollouts that are compared with each other: one role, one task. The role spoke in at least one of each."""
    found: dict[tuple[str, str], list[RoleRollout]] = {}
    for role_rollout in role_rollouts:
        found.setdefault((role_rollout.rollout.group, role_rollout.role), []).append(role_rollout)
    return [group for group in found.values() if not all(each.silent for each in group)]


def has_signal(group: Sequence[RoleRollout]) -> bool:
    """Whether one in which the role spoke earned more or less than its group, so that there is something to learn."""
    return any(own.any() for own in _subtract_baseline(group, estimators.dr_grpo))


def needs_whole_batch(settings: Settings, credit: Credit) -> bool:
    """Whether advantages are computed from rollouts of several groups."""
    charged = settings.divergence.place == "reward" and bool(settings.divergence.coefficient)
    return charged or credit.advantage not in estimators.COMPARED or credit.advantage in _WHITENED


def is_frozen(credit: Credit) -> bool:
    """Whether a role is never trained, whatever it earns."""
    return credit.schedule == "never" or not credit.weight


def role_has_signal(of_role: Sequence[RoleRollout], means: Mapping[str, float]) -> bool:
    """Whether the rewards of one role tell apart better and worse among what it may be trained on.

    `means`: role -> running mean of its rewards before.
    """
    trained = {id(each) for each in of_role if any(mask.any() for mask in each.trained)}
    if any(has_signal(group) and any(id(each) in trained for each in group) for group in groups(of_role)):
        return True
    credit, role = of_role[0].credit, of_role[0].role
    if credit.advantage in GROUPED:
        return False
    values = [each.reward for each in of_role if each.reward is not None and id(each) in trained]
    # Tasks are compared with each other too, and with what was earned before.
    before = [means[role]] if credit.advantage == "running_mean" and role in means else []
    return bool(values) and any(not math.isclose(each, values[0], rel_tol=1e-5) for each in [*values, *before])


def _advantages_by_call(of_role: list[RoleRollout], means: Mapping[str, float]) -> list[Floats]:
    """[S] for each role rollout: the returns of its calls, less the baseline."""
    role, credit = of_role[0].role, of_role[0].credit
    if estimator := estimators.COMPARED.get(credit.advantage):
        own = {
            id(role_rollout): each
            for group in groups(of_role)
            for role_rollout, each in zip(group, _subtract_baseline(group, estimator), strict=True)
        }
        return [own.get(id(each), np.zeros(0)) for each in of_role]
    if credit.advantage != "running_mean":
        return [_returns(each) for each in of_role]
    if role in means:
        return [_returns(each) - means[role] for each in of_role]
    # No step came before: the mean of this batch's other rollouts depends on none of a rollout's own actions either.
    return _subtract_baseline(of_role, estimators.rloo)


def _subtract_baseline(role_rollouts: Sequence[RoleRollout], estimator: Callable[[Floats], Floats]) -> list[Floats]:
    """[S] for each role rollout: its returns compared with the others', as a whole or call by call."""
    if role_rollouts[0].credit.returns == "to_go":
        # Where a role made no call, or none that can be used, its rollout stands with what it earned.
        returns = [_returns(each) if each.calls else np.array([each.before]) for each in role_rollouts]
        own = estimators.compare_by_call(returns, estimator)
        return [each[: len(role_rollout.calls)] for role_rollout, each in zip(role_rollouts, own, strict=True)]
    whole = estimator(np.array([_total_return(each) for each in role_rollouts]))
    return [np.full(len(role_rollout.calls), value) for role_rollout, value in zip(role_rollouts, whole, strict=True)]


def _returns(role_rollout: RoleRollout) -> Floats:
    """[S] what each call is credited with before a baseline is subtracted."""
    if role_rollout.credit.returns == "to_go":
        return estimators.returns_to_go(role_rollout.net_rewards(), role_rollout.credit.discount)
    return np.full(len(role_rollout.calls), _total_return(role_rollout))


def _total_return(role_rollout: RoleRollout) -> float:
    return role_rollout.before + float(role_rollout.net_rewards().sum())


def _whiten(made: list[RoleAdvantages]) -> None:
    masks = [row.mask for each in made for row in each.role_rollout.trajectories]
    white = iter(estimators.whiten([array for each in made for array in each.advantages], masks))
    for each in made:
        each.advantages = [next(white) for _ in each.advantages]


def _estimate_gae(role_rollout: RoleRollout, values: Arrays, decay: float) -> RoleAdvantages:
    """Estimates along the sampled tokens, in the order of the calls; every choice of a call leads to the next call."""
    estimates = [np.zeros(len(each), np.float32) for each in values]
    pieces = list(role_rollout.pieces())
    after = following = (0.0, 0.0)
    for place in reversed(range(len(pieces))):
        call, row, piece = pieces[place]
        tokens = slice(piece.start, piece.end)
        ends = np.arange(piece.start, piece.end) == piece.end - 1
        earned = np.where(ends, role_rollout.earned[call], 0.0)
        if role_rollout.charges:
            earned = earned - role_rollout.charges[row][tokens]
        before = values[row][tokens].astype(np.float64)
        estimates[row][tokens] = estimators.gae(earned, before, ends, role_rollout.credit.discount, decay, after)
        following = float(values[row][piece.start]), float(estimates[row][piece.start])
        if place and pieces[place - 1].call != call:
            after = following
    returns = [estimate + value for estimate, value in zip(estimates, values, strict=True)]
    return RoleAdvantages(role_rollout, estimates, returns, values)


def _charge(of_role: list[RoleRollout], settings: Settings, scoring: Scoring | None) -> None:
    """Set what each sampled token costs for leaving the reference (InstructGPT, arXiv:2203.02155, eq. 2)."""
    references = _scores(of_role, scoring, "reference", "divergence.place='reward'")
    estimate = _ESTIMATES[settings.divergence.estimator]
    for role_rollout, found in zip(of_role, references, strict=True):
        role_rollout.charges = [
            np.where(row.mask, settings.divergence.coefficient * estimate(reference - row.logprobs), 0).astype("f4")
            for row, reference in zip(role_rollout.trajectories, found, strict=True)
        ]


def _k3(difference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bounded as in `lightning_losses.divergence`: it grows exponentially, and one token would decide a whole batch."""
    bounded = np.clip(difference, -20, 20)
    return np.minimum(np.expm1(bounded) - bounded, np.float32(10))


_ESTIMATES: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    # `d`: the reference's log-probability minus the sampler's (Schulman, "Approximating KL divergence", 2020).
    "k1": lambda d: -d,
    "k2": lambda d: 0.5 * d * d,
    "k3": _k3,
}


def _scores(of_role: list[RoleRollout], scoring: Scoring | None, what: str, setting: str) -> list[Arrays]:
    """[T] for each trajectory of each role rollout."""
    if scoring is None:
        raise SettingError(f"setting {setting} needs a backend that scores tokens, such as the embedded one")
    rows = [_plain_row(each, place) for each in of_role for place in range(len(each.trajectories))]
    found = iter(scoring.score(rows, what))
    return [[next(found) for _ in each.trajectories] for each in of_role]


def _plain_row(role_rollout: RoleRollout, place: int) -> Row:
    row = role_rollout.trajectories[place]
    sampled = row.mask.astype(np.float32)
    return Row(
        tokens=row.tokens,
        weights=sampled,
        advantages=np.zeros_like(sampled),
        logprobs=row.logprobs,
        temperature=row.temperature,
        version=-1,
        role=row.role,
        rollout=row.rollout,
        constraints=row.constraints(len(row.tokens)),
    )
