"""Examples: a few rollouts as text, each with its task, its answer, its reward and the reward's reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.breaks import sampled_messages
from lightning_hub.trajectories.reasons import describe_reason
from lightning_hub.trajectories.rewards import score
from lightning_sdk.results.sample import RolloutSample
from lightning_sdk.settings import Settings

#: Rollouts that are shown, and characters of a task or an answer; of one in a sample.
MANY, _WIDTH = 3, 160
_SAMPLE_WIDTH = 4000
_COUNTS = {1: "One of the answers", 2: "Two of the answers", 3: "Three of the answers"}


def format_examples(rollouts: Sequence[Rollout], settings: Settings, tasks: Mapping[int, Mapping[str, Any]]) -> str:
    """A few rollouts of different tasks, those with the lowest and the highest reward among them; '' without any."""
    chosen = _choose(rollouts, settings)
    lines = [line for each in chosen for line in _lines(each, settings, tasks)]
    return "\n".join([f"{_COUNTS[len(chosen)]}:", *lines, ""]) if chosen else ""


def sample_rollouts(
    rollouts: Sequence[Rollout], settings: Settings, tasks: Mapping[int, Mapping[str, Any]]
) -> list[RolloutSample]:
    """The same choice as data, with longer texts. `rollouts` have a score each."""
    return [
        RolloutSample(
            task=_cut(_format_task(each, tasks), _SAMPLE_WIDTH),
            answer=_cut(each.answer, _SAMPLE_WIDTH),
            reward=score(each, settings),
            why="; ".join(describe_reason(reward) for reward in each.rewards if reward.why),
        )
        for each in _choose(rollouts, settings)
    ]


def _choose(rollouts: Sequence[Rollout], settings: Settings) -> list[Rollout]:
    by_task: dict[int, Rollout] = {}
    for each in rollouts:
        by_task.setdefault(each.task_id, each)
    ordered = sorted(by_task.values(), key=lambda each: score(each, settings))
    last = len(ordered) - 1
    return [ordered[at] for at in sorted({0, last // 2, last})] if ordered else []


def _lines(rollout: Rollout, settings: Settings, tasks: Mapping[int, Mapping[str, Any]]) -> list[str]:
    return [
        f"  task    {_cut(_format_task(rollout, tasks))}",
        f"  answer  {_answer(rollout)}",
        f"  reward  {score(rollout, settings):g}",
        *(f"  why     {describe_reason(reward)}" for reward in rollout.rewards if reward.why),
    ]


def _format_task(rollout: Rollout, tasks: Mapping[int, Mapping[str, Any]]) -> str:
    return json.dumps(tasks.get(rollout.task_id, {}), ensure_ascii=False, default=str)


def _answer(rollout: Rollout) -> str:
    """What the agent returned; if that is empty, what the model said last."""
    answer = _cut(json.dumps(rollout.answer, ensure_ascii=False))
    if rollout.answer.strip():
        return answer
    said = next(
        (each for call in reversed(rollout.calls) if call.meta.trainable for each in sampled_messages(call)), {}
    )
    spoken = said.get("content") or said.get("tool_calls")
    return f"{answer} (the model said {_cut(json.dumps(spoken, ensure_ascii=False))})" if spoken else answer


def _cut(text: str, width: int = _WIDTH) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
