"""Ranges: which values a setting may have, in tables, and which settings need each other."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from lightning_sdk.errors import SettingError
from lightning_sdk.settings import placement
from lightning_sdk.settings.groups import Credit
from lightning_sdk.settings.provider import PROVIDER

#: What the schedule of a role may be.
SCHEDULE = re.compile(r"always|never|(?P<first>\d+)-(?P<last>\d*)|(?P<turn>\d+)/(?P<turns>\d+)(:(?P<block>\d+))?")

_Rule = tuple[Callable[[Any], bool], str]
_ADVANTAGES = ("rloo", "grpo", "dr_grpo", "reinforce++", "reinforce++_baseline", "running_mean", "reinforce", "gae")
#: Values of `credit.advantage` with the group for a baseline: nothing is learned where all of its rewards are equal.
GROUPED = frozenset({"rloo", "grpo", "dr_grpo", "reinforce++_baseline"})


def _one_of(*values: str) -> _Rule:
    return lambda v: v in values, " or ".join((", ".join(values[:-1]), values[-1]))


def _at_least(low: float) -> _Rule:
    return lambda v: v >= low, "0 or more" if low == 0 else f"at least {low:g}"


def _within(low: float, high: float) -> _Rule:
    return lambda v: low <= v <= high, f"from {low:g} to {high:g}"


def _is_schedule(text: str) -> bool:
    found = SCHEDULE.fullmatch(text)
    if found is None:
        return False
    if found["turn"]:
        return 1 <= int(found["turn"]) <= int(found["turns"]) and int(found["block"] or 1) >= 1
    return not found["last"] or int(found["first"] or 0) <= int(found["last"])


_MORE: _Rule = (lambda v: v > 0, "more than 0")
_SHARE: _Rule = (lambda v: 0 <= v <= 1, "between 0 and 1")
_DECAY: _Rule = (lambda v: 0 <= v < 1, "at least 0 and below 1")
#: Longer waits are refused by the operating system.
_SECONDS: _Rule = (lambda v: 0 < v <= 1_000_000, "more than 0 seconds, at most 1000000")
_FINITE: _Rule = (lambda _: True, "none or a finite number")

_CREDIT: dict[str, _Rule] = {
    "advantage": _one_of(*_ADVANTAGES),
    "returns": _one_of("rollout", "to_go"),
    "discount": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "signal": _one_of("own", "rollout", "both"),
    "weight": _at_least(0),
    "schedule": (_is_schedule, "always, never, steps such as 10-30 or 10-, or turns such as 1/2 or 1/2:5"),
    "momentum": _DECAY,
}
_RULES: dict[str, _Rule] = {
    "engine": _one_of("auto", "embedded", "vllm"),
    "steps": _at_least(1),
    "seed": (lambda v: 0 <= v < 1 << 32, "from 0 to 4294967295"),
    "save_every": _at_least(1),
    "sampling.temperature": (
        lambda v: 0.01 <= v <= 2,
        "from 0.01 to 2, the range of engines; greedy rollouts of a group would all be alike",
    ),
    "sampling.max_tokens": _within(1, 1 << 30),
    "algorithm.loss": _one_of("ppo", "gspo", "cispo"),
    "algorithm.clip_low": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "algorithm.clip_high": _MORE,
    "algorithm.clip_dual": (lambda v: v == 0 or v > 1, "0 (off) or more than 1"),
    "algorithm.aggregation": _one_of(
        "seq-mean-token-sum-norm", "token-mean", "seq-mean-token-mean", "seq-mean-token-sum"
    ),
    "algorithm.entropy": _at_least(0),
    "algorithm.epochs": _at_least(1),
    "algorithm.mini_batches": _at_least(1),
    "algorithm.dynamic_sampling": _at_least(0),
    "divergence.coefficient": _at_least(0),
    "divergence.estimator": _one_of("k1", "k2", "k3"),
    "divergence.place": _one_of("loss", "reward"),
    "importance.kind": _one_of("truncate", "mask", "off"),
    "importance.level": _one_of("token", "sequence"),
    "importance.high": _at_least(1),
    "importance.low": _SHARE,
    "value.gae_lambda": _SHARE,
    "value.coefficient": _MORE,
    "value.clip": _at_least(0),
    "value.learning_rate": _MORE,
    "value.warmup_steps": _at_least(0),
    "length.truncated": _one_of("train", "mask", "exclude"),
    "length.max_row": _at_least(0),
    "length.rows": _one_of("lineage", "call"),
    "length.long_rows": _one_of("cut", "exclude"),
    "length.limit": _at_least(0),
    "length.buffer": _at_least(0),
    "length.penalty": _at_least(0),
    "optimizer.learning_rate": (lambda v: v is None or v > 0, "more than 0"),
    "optimizer.warmup_steps": _at_least(0),
    "optimizer.decay": _SHARE,
    "optimizer.weight_decay": _at_least(0),
    "optimizer.beta1": _DECAY,
    "optimizer.beta2": _DECAY,
    "optimizer.max_norm": _MORE,
    "optimizer.micro_batch_tokens": _at_least(1),
    "lora.rank": _at_least(0),
    "lora.alpha": _at_least(1),
    "serving.replicas": _at_least(0),
    "serving.tensor_parallel": _at_least(1),
    "serving.memory": (lambda v: 0 < v < 1, "between 0 and 1"),
    "serving.max_length": _at_least(0),
    "cluster.nodes": _at_least(1),
    "cluster.gpus": _at_least(0),
    "cluster.engine_gpus": _at_least(0),
    "rollouts.tasks_per_step": _at_least(1),
    "rollouts.group_size": _at_least(1),
    "rollouts.concurrency": _at_least(1),
    "rollouts.runner": (lambda v: placement.parse(v) is not None, placement.FORMS),
    "rollouts.timeout": _SECONDS,
    "rollouts.deadline": _SECONDS,
    "rollouts.staleness": _at_least(0),
    "failure.agent_error": _one_of("exclude", "retry", "train"),
    "failure.reward_error": _one_of("exclude", "retry", "train"),
    "failure.infrastructure_error": _one_of("exclude", "retry"),
    "failure.timeout": _one_of("exclude", "retry", "train"),
    "failure.retries": _within(0, 20),
    "failure.backoff": _within(0, 3600),
    "failure.refills": _at_least(0),
    "failure.reward": _FINITE,
    "failure.max_failed": _SHARE,
    "failure.flat_steps": _at_least(0),
    "stored.method": _one_of("sft", "rejection", "dpo"),
    "stored.best": _at_least(1),
    "stored.min_reward": _FINITE,
    "stored.beta": _MORE,
    "evaluation.tasks": _at_least(1),
    "evaluation.every": _at_least(0),
    "evaluation.split": (lambda v: 0 < v < 1, "between 0 and 1"),
    "evaluation.seeds": _at_least(1),
    "evaluation.temperature": _within(0, 2),
    "evaluation.reward_low": (lambda _: True, ""),
    "evaluation.reward_high": (lambda _: True, ""),
}


def describe_range(name: str) -> str:
    """Which values the setting with this dotted name may have, in words; '' if any."""
    rules = _CREDIT if name.startswith(("credit.", "role.")) else _RULES
    rule = rules.get(name.rpartition(".")[2] if rules is _CREDIT else name)
    return rule[1] if rule else ""


def refuse_out_of_range(flat: Mapping[str, Any], by_role: Mapping[str, Credit]) -> None:
    """SettingError for a value that cannot be, by its dotted name; `by_role` with '' for the default one."""
    for name, rule in _RULES.items():
        _refuse(name, flat[name], rule)
    for role, credit in by_role.items():
        group = f"role.{role}" if role else "credit"
        for leaf, rule in _CREDIT.items():
            _refuse(f"{group}.{leaf}", getattr(credit, leaf), rule)
        for reward, weight in credit.rewards.items():
            _refuse(f"{group}.rewards.{reward}", weight, (lambda _: True, ""))
    _refuse_combinations(flat)
    _refuse_single_groups(flat, by_role)


def _refuse(name: str, value: Any, rule: _Rule) -> None:
    test, wanted = rule
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingError(f"setting {name}={value!r}: must be {wanted or 'a finite number'}")
    if not test(value):
        raise SettingError(f"setting {name}={value!r}: must be {wanted}")


def _refuse_combinations(flat: Mapping[str, Any]) -> None:
    """Settings that only make sense with another one."""
    trained = [name for name in ("agent_error", "reward_error", "timeout") if flat[f"failure.{name}"] == "train"]
    if trained and flat["failure.reward"] is None:
        raise SettingError(
            f"setting failure.{trained[0]}='train': set what a failed rollout earns too, such as failure.reward=-1"
        )
    if flat["evaluation.seeds"] > 1 and flat["evaluation.temperature"] == 0 and flat["backend"] != PROVIDER:
        raise SettingError(
            f"setting evaluation.seeds={flat['evaluation.seeds']}: greedy rollouts do not depend on a seed; "
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
