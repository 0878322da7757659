"""Refusals: when a round of rollouts must not be trained on, and the message that says why and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lightning_hub.rollout import Rollout
from lightning_sdk.call import Call, Status
from lightning_sdk.errors import NothingToTrain, RolloutsFailed


def refuse_failures(rollouts: Sequence[Rollout], name: str, max_failed: float) -> None:
    """RolloutsFailed if more than `max_failed` of the rollouts failed, or all of them."""
    failed = [each for each in rollouts if each.status != Status.OK]
    if not failed or (len(failed) <= max_failed * len(rollouts) and len(failed) < len(rollouts)):
        return
    # Two failures are the same if their statuses and first lines are; what follows are the frames.
    kinds = Counter((each.status, each.error.partition("\n")[0]) for each in failed)
    (status, first), count = kinds.most_common(1)[0]
    example = next(each.error for each in failed if each.status == status and each.error.startswith(first))
    others = f" There were {len(kinds) - 1} other kinds of failure." if len(kinds) > 1 else ""
    raise RolloutsFailed(
        f"{len(failed)} of {len(rollouts)} rollouts of {name} failed; rollouts.max_failed allows "
        f"{max_failed:.0%}. {count} ended as {status}:\n{_tail(example)}\n{_advice(status)}{others}"
    )


def _tail(error: str, lines: int = 8) -> str:
    kept = error.strip().splitlines() or ["no error was reported"]
    kept = kept if len(kept) <= lines else [kept[0], "...", *kept[-(lines - 2) :]]
    return "\n".join("  " + line for line in kept)


def _advice(status: Status) -> str:
    return {
        Status.AGENT_ERROR: "The agent raised this: run it on one task by itself and mend it.",
        Status.REWARD_ERROR: "The reward function is at fault: it must return a finite number, or a dict of role to "
        "number, for every answer the agent can give.",
        Status.INFRASTRUCTURE_ERROR: "This is not the agent's fault: see hub.log in the run's folder.",
        Status.TIMEOUT: "Raise rollouts.timeout, or lower rollouts.concurrency.",
    }.get(status, "")


def refuse_nothing_to_train(rollouts: Sequence[Rollout], roles: Sequence[str]) -> None:
    """NothingToTrain if no call of a trainable role was captured, or if those that were cannot be used."""
    calls = [call for each in rollouts for call in each.calls]
    trainable = [call for call in calls if call.meta.trainable]
    if not trainable:
        raise NothingToTrain(_nothing(calls, len(rollouts), roles))
    usable = [call for call in trainable if not call.problem]
    if not usable:
        # Not one worked, so whatever is wrong is wrong with all of them.
        raise NothingToTrain(
            f"none of the {len(trainable)} calls of trainable roles can be trained on; the first: "
            f"{trainable[0].problem}"
        )
    refuse_problems([call.problem for call in trainable if call.problem and _answered(call)])


def refuse_problems(problems: Sequence[str]) -> None:
    """NothingToTrain for calls that went well but whose ids or log-probs cannot be used."""
    if problems:
        raise NothingToTrain(f"{len(problems)} calls of trainable roles cannot be trained on; the first: {problems[0]}")


def _answered(call: Call) -> bool:
    """The call went well. One that the engine refused is the agent's to handle, and one closed early has no end."""
    return call.meta.status == "ok" and call.meta.http_status < 400


def _nothing(calls: Sequence[Call], rollouts: int, roles: Sequence[str]) -> str:
    if not calls:
        return (
            f"the agent made no model call in {rollouts} rollouts, as far as could be seen. Either it calls none, or "
            "it uses a client that no integration catches: lightning.status() in the agent's process lists them"
        )
    seen = Counter(call.meta.role or "no role" for call in calls)
    told = ", ".join(f"{count} of {role}" for role, count in seen.most_common())
    if roles:
        return (
            f"no call of the roles to train ({', '.join(roles)}) was captured in {rollouts} rollouts; there were "
            f"{told}: name one of these in the setting roles, or leave it empty"
        )
    return (
        f"no call of a trainable role was captured in {rollouts} rollouts; there were {told}: put "
        "@lightning.agent(role=..., trainable=True) above the function that makes the calls"
    )
