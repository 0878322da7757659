"""Flatness: groups in which all rollouts did equally well, so that nothing can be learned from them.

All texts about 'no signal' are here: `check`, the first step of a training, its report and `check RUN` use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from lightning_hub.credit.advantages import groups, is_frozen, role_has_signal
from lightning_hub.credit.batch import rewarded_role_rollouts, rollouts_to_train
from lightning_hub.diagnosis import examples, sameness
from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.rewards import total_reward
from lightning_hub.trajectories.role_rollout import RoleRollout, role_rollouts
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.settings import Settings
from lightning_sdk.settings.combinations import GROUPED
from lightning_sdk.settings.provider import PROVIDER

KIND = "no signal"
#: How the text begins, also in the error of a training that stopped because of it.
OPENING = "no group has a signal"
#: Texts about models without a name to look up: the one that ships with the package, and the agent's own.
_SHIPPED = {
    "spark": "spark, the small model that ships with the package, knows small sums, words, labels, tools and SQL, "
    "and little else",
    PROVIDER: "The model at the agent's provider may not be able to do these tasks",
}


class FlatReason(StrEnum):
    """What the rewards have in common."""

    CUT = "cut"
    """Length limits exclude everything that was sampled."""
    LONE = "lone"
    """No task has two rollouts in which the role spoke."""
    ALIKE = "alike"
    """All rollouts of a task sampled the same tokens."""
    WRONG = "wrong"
    """Each earned the lowest reward."""
    RIGHT = "right"
    """Each earned the highest reward."""
    EQUAL = "equal"
    """Each earned the same, and whether that is high or low is not known."""
    SPLIT = "split"
    """Rewards differ between tasks but never within one."""


#: What equal rewards mean where no range is known.
_USUAL = {0.0: FlatReason.WRONG, -1.0: FlatReason.WRONG, 1.0: FlatReason.RIGHT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatness:
    """Why rollouts have no signal."""

    why: FlatReason
    role_rollouts: Sequence[RoleRollout]
    """Those in which a role with a reward spoke."""
    settings: Settings
    tasks: Mapping[int, Mapping[str, Any]]
    rollouts: int
    """How many there were, failed ones included."""
    reward: float | None = None
    """What each of them earned; None if they differ or it is not known."""

    @property
    def group_count(self) -> int:
        """The number of groups with at least two rollouts."""
        return sum(len(group) > 1 for group in groups(self.role_rollouts))

    def finding(self, severity: Severity = Severity.FATAL, what: str = "") -> Finding:
        """The finding. `what`: what was seen, if more is known than these rollouts show."""
        shown = examples.format_examples([each.rollout for each in self.role_rollouts], self.settings, self.tasks)
        what = f"{what or self._what()} {shown}"
        cause, remedy = _cause_and_remedy(self)
        return Finding(kind=KIND, severity=severity, what=what.rstrip(" "), cause=cause, remedy=remedy, passing=True)

    def _what(self) -> str:
        if self.why == FlatReason.CUT:
            return f"{OPENING}: of {len(self.role_rollouts)} rollouts no token is trained on, because of their length."
        if self.why == FlatReason.LONE:
            return f"{OPENING}: there are no two rollouts of one task that can be compared."
        values = {each.reward for each in self.role_rollouts}
        value = f"every reward is {values.pop():g}" if len(values) == 1 else "rewards differ between tasks only"
        if self.why != FlatReason.SPLIT and len({each.role for each in self.role_rollouts}) > 1 and len(values) > 1:
            value = "each role always earns the same"
        many = self.group_count
        return f"{OPENING}: in each of {many} groups of rollouts of one task the rewards are equal ({value})."


def flatness(
    rollouts: Sequence[Rollout],
    settings: Settings,
    tasks: Mapping[int, Mapping[str, Any]],
    *,
    role: str | None = None,
    seen: Sequence[float] = (),
) -> Flatness | None:
    """Why nothing can be learned from training rollouts; None if something can, or if there are no rewards.

    `role`: consider only this one; `seen`: rewards that it earned at other times, to tell high from low.
    """
    used = rollouts_to_train(rollouts, settings)
    found, _ = role_rollouts(used, settings)
    by_role: dict[str, list[RoleRollout]] = {}
    for role_rollout in rewarded_role_rollouts(used, found, settings):
        if not is_frozen(role_rollout.credit) and role in {None, role_rollout.role}:
            by_role.setdefault(role_rollout.role, []).append(role_rollout)
    spoken = [each for of_role in by_role.values() for each in of_role if each.calls]
    if not spoken or any(role_has_signal(of_role, {}) for of_role in by_role.values()):
        return None
    whys = {_flat_reason([each for each in of_role if each.calls], settings, seen) for of_role in by_role.values()}
    rewards = {each.reward for each in spoken}
    return Flatness(
        why=whys.pop() if len(whys) == 1 else FlatReason.EQUAL,
        role_rollouts=spoken,
        settings=settings,
        tasks=tasks,
        rollouts=len(rollouts),
        reward=rewards.pop() if len(rewards) == 1 else None,
    )


def flatness_of_rewards(
    rollouts: Sequence[Rollout], settings: Settings, tasks: Mapping[int, Mapping[str, Any]]
) -> Flatness | None:
    """Like `flatness`, but from the rewards alone, where nothing is known about the calls except who made them."""
    used = rollouts_to_train(rollouts, settings)
    by_role: dict[str, list[RoleRollout]] = {}
    for rollout in used:
        for role in dict.fromkeys(call.meta.role for call in rollout.calls if call.meta.trainable):
            credit, reward = settings.credit_of(role), total_reward(rollout, role, settings.credit_of(role))
            if reward is not None and not is_frozen(credit):
                role_rollout = RoleRollout(
                    rollout=rollout,
                    role=role,
                    credit=credit,
                    trajectories=[],
                    reward=reward,
                    earned=np.zeros(0),
                    before=reward,
                )
                by_role.setdefault(role, []).append(role_rollout)
    if not by_role or any(map(_differ, by_role.values())):
        return None
    spoken = [each for of_role in by_role.values() for each in of_role]
    values = [each.reward for each in spoken if each.reward is not None]
    lone = not any(len(group) > 1 for group in groups(spoken)) and settings.credit.advantage in GROUPED
    why = FlatReason.LONE if lone else reason_of_equal_rewards(values, (), settings.evaluation.reward_range)
    return Flatness(
        why=why,
        role_rollouts=spoken,
        settings=settings,
        tasks=tasks,
        rollouts=len(rollouts),
        reward=values[0] if min(values) == max(values) else None,
    )


def _differ(of_role: Sequence[RoleRollout]) -> bool:
    """Whether one role earned different rewards where they are compared."""
    compared = groups(of_role) if of_role[0].credit.advantage in GROUPED else [of_role]
    return any(len({each.reward for each in group}) > 1 for group in compared)


def _flat_reason(of_role: Sequence[RoleRollout], settings: Settings, seen: Sequence[float]) -> FlatReason:
    """The reason, from the role rollouts in which one role spoke."""
    values = [each.reward for each in of_role if each.reward is not None]
    compared = [group for group in groups(of_role) if len(group) > 1]
    if not any(mask.any() for each in of_role for mask in each.trained):
        return FlatReason.CUT
    if not compared and of_role[0].credit.advantage in GROUPED:
        return FlatReason.LONE
    level = reason_of_equal_rewards(values, seen, settings.evaluation.reward_range)
    if (
        compared
        and all(map(sameness.is_alike, compared))
        and (level != FlatReason.RIGHT or sameness.find_causes(compared))
    ):
        return FlatReason.ALIKE
    return level


def reason_of_equal_rewards(
    values: Sequence[float], seen: Sequence[float], given: tuple[float, float] | None = None
) -> FlatReason:
    """What equal rewards mean, by the range that is `given`, or by what was `seen` at other times.

    If neither tells, 0 and -1 count as wrong, 1 as right, and any other value as equal.
    """
    value = values[0]
    if min(values) != max(values):
        return FlatReason.SPLIT
    low, high = given or (min([value, *seen]), max([value, *seen]))
    if low == high:
        return _USUAL.get(value, FlatReason.EQUAL)
    return {low: FlatReason.WRONG, high: FlatReason.RIGHT}.get(value, FlatReason.EQUAL)


# --- texts


def _cause_and_remedy(flat: Flatness) -> tuple[str, str]:
    """Cause and remedy."""
    compared = [group for group in groups(flat.role_rollouts) if len(group) > 1]
    return {
        FlatReason.CUT: lambda: _cut(flat),
        FlatReason.LONE: lambda: _lone(flat),
        FlatReason.ALIKE: lambda: sameness.cause_and_remedy(compared),
        FlatReason.WRONG: lambda: _wrong(flat),
        FlatReason.RIGHT: lambda: _right(flat),
        FlatReason.SPLIT: lambda: _split(flat.settings),
        FlatReason.EQUAL: lambda: _equal(flat.settings),
    }[flat.why]()


def _right(flat: Flatness) -> tuple[str, str]:
    what = "Every answer was right, or the reward counts all as right."
    if not _is_end(flat):
        what = f"Every answer earned {flat.reward:g}, the highest reward of this run."
    return (
        f"{what} Tasks that are solved have nothing more to teach.",
        "If these answers are right, use harder tasks. If not, fix the reward.",
    )


def _wrong(flat: Flatness) -> tuple[str, str]:
    model = flat.settings.model
    known = _SHIPPED.get(model, f"The model {model} may not be able to do these tasks")
    what = "Every answer was wrong, or the reward counts none as right."
    if not _is_end(flat):
        what = f"Every answer earned {flat.reward:g}, the lowest reward of this run."
    return (
        f"{what} {known}.",
        "If one of these answers is right, fix the reward. If none is, use a model that can do these tasks (--model, "
        "with a folder or a name on the Hugging Face hub), easier tasks, or a reward that gives partial credit.",
    )


def _is_end(flat: Flatness) -> bool:
    """Whether what each earned is an end of the reward's range, set or usual, and not only of the values seen."""
    return flat.reward is None or flat.reward in (flat.settings.evaluation.reward_range or _USUAL)


def _split(settings: Settings) -> tuple[str, str]:
    return (
        "Each task was either always solved or never, and a role learns from the difference between rollouts of one "
        "task.",
        f"Use {_more(settings)}, or tasks that are solved some of the time.",
    )


def _equal(settings: Settings) -> tuple[str, str]:
    return (
        "The reward gave the same number to all these answers, so it does not tell them apart.",
        f"Print the reward of a right and of a wrong answer; if they differ, use {_more(settings)}.",
    )


def _more(settings: Settings) -> str:
    return f"more rollouts of each task (--set rollouts.group_size={2 * settings.rollouts.group_size})"


def _cut(flat: Flatness) -> tuple[str, str]:
    length, limit = flat.settings.length, flat.settings.sampling.max_tokens
    truncated = any(each.is_truncated() for each in flat.role_rollouts) or not length.max_row
    if length.truncated != "train" and truncated:
        return (
            f"Every completion ended at the token limit, and length.truncated={length.truncated} leaves those out.",
            f"Raise max_tokens in the agent's calls (where they set none, --set sampling.max_tokens={2 * limit}), or "
            "train on them anyway: --set length.truncated=train.",
        )
    return (
        f"Every row is longer than length.max_row={length.max_row}, and length.long_rows={length.long_rows} leaves out "
        "what exceeds it.",
        f"Raise it: --set length.max_row={2 * length.max_row}; 0 means no limit.",
    )


def _lone(flat: Flatness) -> tuple[str, str]:
    failed = flat.rollouts - len({each.rollout.id for each in flat.role_rollouts})
    return (
        "A role learns from the difference between rollouts of the same task"
        + (
            f"; {failed} of {flat.rollouts} rollouts failed or made no call, for example because of a cache."
            if failed
            else "."
        ),
        "Look at the failures first, and turn off caches of model calls; or use more rollouts of each task: "
        f"--set rollouts.group_size={2 * flat.settings.rollouts.group_size}.",
    )
