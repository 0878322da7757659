"""Failed rollouts: the finding about them, with their most common error and what to do about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from lightning_hub.findings.refused_calls import cause_and_remedy, last_refused_call
from lightning_hub.rollout import Rollout
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.failures.remedy import MARK
from lightning_sdk.markers.reward import UNREWARDED
from lightning_sdk.results.quantity import quantity
from lightning_sdk.trace.call import Status


def find_failures(rollouts: Sequence[Rollout], name: str, max_failed: float) -> Finding | None:
    """The finding about failed rollouts; fatal if more than `max_failed` of all failed, or all."""
    failed = [each for each in rollouts if each.status != Status.OK]
    if not failed:
        return None
    kinds = Counter((each.status, error_kind(each.error)) for each in failed)
    (status, kind), count = kinds.most_common(1)[0]
    alike = [each for each in failed if each.status == status and error_kind(each.error) == kind]
    example = alike[0].error
    more = quantity(len(kinds) - 1, "other kind of failure occurred", "other kinds of failure occurred")
    others = f" {more}." if len(kinds) > 1 else ""
    allowed = len(failed) <= max_failed * len(rollouts) and len(failed) < len(rollouts)
    return Finding(
        kind="rollouts failed",
        severity=Severity.WARNING if allowed else Severity.FATAL,
        what=f"{len(failed)} of {len(rollouts)} rollouts of {name} failed; failure.max_failed allows {max_failed:.0%}.",
        cause=f"{count} ended as {status}:\n{error_text(example)}\n",
        remedy=error_advice(status, example, alike) + others,
    )


def error_kind(error: str) -> str:
    """What errors of one kind have in common: the first line without its numbers and quoted texts."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d[\d.]*", "_", error.partition("\n")[0])


def error_text(error: str, lines: int = 20) -> str:
    """The first and last lines of an error, indented, without the advice in it."""
    kept = error.partition(f"\n{MARK}")[0].strip().splitlines() or ["no error was reported"]
    kept = kept if len(kept) <= lines else [*kept[: lines // 2 - 1], "...", *kept[-(lines // 2) :]]
    return "\n".join("  " + line for line in kept)


def error_advice(status: Status, error: str = "", failed: Sequence[Rollout] = ()) -> str:
    """What to do about rollouts with this status and error; `failed`: some of them, with their calls."""
    refused = next((call for each in failed if (call := last_refused_call(each)) is not None), None)
    if status == Status.AGENT_ERROR and refused is not None:
        return " ".join(cause_and_remedy(refused))
    _, _, told = error.partition(f"\n{MARK}")
    if told:
        return told
    if status == Status.REWARD_ERROR and UNREWARDED in error:
        return (
            "Put @lightning.reward above a function of (task, answer) that returns a number, or name one: "
            "lightning.train(agent, tasks, function), --reward FILE.py:FUNCTION; or call lightning.emit_reward(number) "
            "in the agent, which then needs no function."
        )
    return {
        Status.AGENT_ERROR: "The agent raised this: run it on one task by itself and fix it.",
        Status.REWARD_ERROR: "The reward function is at fault: it must return a finite number, or a dict of role to "
        "number, for every answer the agent can give.",
        Status.INFRASTRUCTURE_ERROR: "This is not the agent's fault: see hub.log in the run's folder.",
        Status.TIMEOUT: "Raise rollouts.timeout, which bounds one rollout, or rollouts.deadline, which bounds a step, "
        "or lower rollouts.concurrency.",
    }.get(status, "")
