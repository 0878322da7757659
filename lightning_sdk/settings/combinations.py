"""Combinations: which settings need each other, and which exclude each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_sdk.errors import SettingError
from lightning_sdk.settings.groups import Credit
from lightning_sdk.settings.provider import PROMPTS, PROVIDER

#: Values of `credit.advantage` with the group for a baseline: nothing is learned where all of its rewards are equal.
GROUPED = frozenset({"rloo", "grpo", "dr_grpo", "reinforce++_baseline"})


def refuse_combinations(flat: Mapping[str, Any], by_role: Mapping[str, Credit]) -> None:
    """SettingError for settings that contradict each other; `by_role` has `credit` of each role, '' for the others."""
    _refuse_incomplete(flat)
    _refuse_single_groups(flat, by_role)


def _refuse_incomplete(flat: Mapping[str, Any]) -> None:
    """Settings that only make sense with another one."""
    trained = [name for name in ("agent_error", "reward_error", "timeout") if flat[f"failure.{name}"] == "train"]
    if trained and flat["failure.reward"] is None:
        raise SettingError(
            f"setting failure.{trained[0]}='train': set what a failed rollout earns too, such as failure.reward=-1"
        )
    repeated = ["evaluation.seeds", *(["prompts.seeds"] if flat["backend"] == PROMPTS else [])]
    seeds = next((name for name in repeated if flat[name] > 1), "")
    # The agent's own requests say how its provider samples.
    if seeds and flat["evaluation.temperature"] == 0 and PROVIDER not in {flat["backend"], flat["model"]}:
        raise SettingError(
            f"setting {seeds}={flat[seeds]}: greedy rollouts do not depend on a seed; "
            "set evaluation.temperature as well, such as 1.0"
        )
    low, high = flat["evaluation.reward_low"], flat["evaluation.reward_high"]
    if (low is None) != (high is None) or (low is not None and low >= high):
        raise SettingError(
            f"setting evaluation.reward_low={low!r}, evaluation.reward_high={high!r}: give both, the lowest and the "
            "highest possible reward of a rollout"
        )
    if flat["rollouts.staleness"] and flat["importance.kind"] == "off":
        raise SettingError(
            f"setting rollouts.staleness={flat['rollouts.staleness']}: rollouts of an older model need "
            "importance.kind 'truncate' or 'mask'"
        )
    if flat["length.buffer"] > flat["length.limit"]:
        raise SettingError(
            f"setting length.buffer={flat['length.buffer']}: must be at most length.limit={flat['length.limit']}"
        )


def _refuse_single_groups(flat: Mapping[str, Any], by_role: Mapping[str, Credit]) -> None:
    """Refuse settings that compare the rollouts of a group, if a group is a single rollout."""
    if flat["rollouts.group_size"] > 1:
        return
    for role, credit in by_role.items():
        if credit.advantage in GROUPED:
            name = f"role.{role}.advantage" if role else "credit.advantage"
            raise SettingError(
                f"setting rollouts.group_size=1: {name}={credit.advantage!r} compares rollouts of the same task; set "
                f"rollouts.group_size to 2 or more, or {name} to running_mean, reinforce, reinforce++ or gae"
            )
    if flat["algorithm.dynamic_sampling"]:
        raise SettingError(
            f"setting algorithm.dynamic_sampling={flat['algorithm.dynamic_sampling']}: it replaces groups with equal "
            "rewards, and with rollouts.group_size=1 every group is one"
        )
