"""Monotony: a policy that gives the same answer to different tasks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from lightning_hub.health.run_record import RunRecord
from lightning_hub.health.scale import scale_of
from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.breaks import sampled_messages
from lightning_hub.trajectories.rewards import score
from lightning_sdk.failures.finding import Finding, Severity

#: Least share of rollouts with the same answer, and fewest different tasks among them.
SAME, TASKS = 0.8, 20
#: Share of the way to the best reward seen from which on one answer to all tasks is not a fault.
RIGHT = 0.7
_SHOWN = 60


def check_one_answer(record: RunRecord) -> Iterator[Finding]:
    """The same answer to nearly all tasks, although it does not earn much."""
    late = _late_rollouts(record)
    said = {rollout.id: _sampled_text(rollout) for rollout in late}
    answers = Counter(words for words in said.values() if words)
    if not answers or len({rollout.task_id for rollout in late}) < TASKS:
        return
    (words, count), many = answers.most_common(1)[0], sum(answers.values())
    worth = _scores([rollout for rollout in late if said[rollout.id] == words], record)
    seen = scale_of(_scores([*record.sample, *record.before, *record.after], record))
    if count < SAME * many or not worth or seen is None:
        return
    mean = sum(worth) / len(worth)
    if seen.place(mean) >= RIGHT:
        return
    before = Counter(filter(None, map(_sampled_text, record.before)))
    earlier = before.most_common(1)[0][1] / before.total() if before else None
    which = f"{many} held-out tasks" if record.after else f"{many} rollouts of the last steps"
    yield Finding(
        kind="one answer to all",
        severity=Severity.WARNING,
        what=f"{count} of {which} got the same answer, {_preview(words)}, which earned {mean:.3g} on average (rollouts "
        f"earned between {seen.low:.3g} and {seen.high:.3g})"
        + (
            f"; before training the most common answer was given to {earlier:.0%} of them."
            if earlier is not None
            else "."
        ),
        cause="The policy no longer looks at the task: it found one answer that pays often enough, and tries nothing "
        "else."
        if earlier is None or earlier < SAME
        else "The policy does not look at the task, and did not before training.",
        remedy="Print that answer's reward: an answer that fits no task must not earn much; use tasks with more "
        "different answers, or keep the model close to where it began: --set divergence.coefficient=0.05.",
    )


def _late_rollouts(record: RunRecord) -> Sequence[Rollout]:
    """The rollouts of the last evaluation, or else the last fifth of the training rollouts that were read."""
    if record.after:
        return record.after
    groups = list(dict.fromkeys(rollout.group for rollout in record.sample))
    last = set(groups[-max(TASKS, len(groups) // 5) :])
    return [rollout for rollout in record.sample if rollout.group in last]


def _scores(rollouts: Sequence[Rollout], record: RunRecord) -> list[float]:
    """The scores of the rollouts that have one."""
    return [value for rollout in rollouts if math.isfinite(value := score(rollout, record.settings))]


def _sampled_text(rollout: Rollout) -> str:
    """Everything that was sampled in a rollout, tool calls included."""
    messages = [message for call in rollout.calls if call.meta.trainable for message in sampled_messages(call)]
    return "\n".join(
        f"{message.get('content') or ''}{_tools(message.get('tool_calls'))}" for message in messages
    ).strip()


def _tools(calls: object) -> str:
    functions = [each.get("function") for each in calls if isinstance(each, dict)] if isinstance(calls, list) else []
    return "".join(f" {each.get('name')}({each.get('arguments')})" for each in functions if isinstance(each, dict))


def _preview(words: str) -> str:
    plain = " ".join(words.split())
    return repr(plain if len(plain) <= _SHOWN else plain[: _SHOWN - 3] + "...")
