"""The texts that are tuned, found in what the first rollouts of the agent sent to models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.judging import is_judging
from lightning_prompts.candidate import Component
from lightning_sdk.errors import NothingToTrain
from lightning_sdk.prompts.discovery import RoleRequest, RoleText, find_role_texts
from lightning_sdk.prompts.instructions import DEVELOPER, SYSTEM
from lightning_sdk.results.quantity import quantity

_UNNAMED = "agent"
"""What the text of calls of no role is called."""


def find_components(rollouts: Sequence[Rollout], roles: Sequence[str], marks: Mapping[str, str]) -> list[Component]:
    """The instructions of these roles, or of every role if none is named; in a longer text, what is marked in it.

    Raises:
        NothingToTrain: one of the roles spoke to no model, or its requests have no instruction.
    """
    requests = _requests(rollouts)
    found: dict[str, Component] = {}
    for role in roles or sorted(requests):
        texts = _texts(requests.get(role, []), marks)
        if not texts and roles:
            raise NothingToTrain(_describe_missing(role, requests, len(rollouts)))
        for number, (mark, text) in enumerate(texts, 1):
            name = mark or (role or _UNNAMED) + (f".{number}" if sum(not each for each, _ in texts) > 1 else "")
            before = found.get(text)
            own = (*before.roles, role) if before else (role,)
            found[text] = Component(before.name if before else name, own, text, mark)
    if not found:
        raise NothingToTrain(_describe_missing("", requests, len(rollouts)))
    return list(found.values())


def find_silent_roles(rollouts: Sequence[Rollout], components: Sequence[Component]) -> list[str]:
    """Roles that spoke to a model and have nothing that is tuned."""
    tuned = {role for each in components for role in each.roles}
    return sorted(role for role in _requests(rollouts) if role and role not in tuned)


def _requests(rollouts: Sequence[Rollout]) -> dict[str, list[RoleRequest]]:
    """Role -> its requests."""
    found: dict[str, list[RoleRequest]] = {}
    for rollout in rollouts:
        for call in rollout.calls:
            if is_judging(call, rollout):
                continue
            try:
                body = json.loads(call.request)
            except ValueError:
                continue
            if isinstance(body, dict):
                found.setdefault(call.meta.role, []).append(RoleRequest(task=str(rollout.task_id), body=body))
    return found


def _texts(requests: Sequence[RoleRequest], marks: Mapping[str, str]) -> list[tuple[str, str]]:
    """Mark ('' for none) and text of what can be tuned in a role's requests."""
    found: dict[str, str] = {}
    for each in find_role_texts(requests, marks):
        for mark, text in _tunable_texts(each, marks):
            found.setdefault(text, mark)
    return [(mark, text) for text, mark in found.items()]


def _tunable_texts(text: RoleText, marks: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if text.marked:
        yield from ((mark, marks[mark]) for mark in text.marked)
    elif text.kind in {SYSTEM, DEVELOPER} and (not text.template.holes or text.template.can_match):
        yield "", text.text


def _describe_missing(role: str, requests: Mapping[str, Sequence[RoleRequest]], rollouts: int) -> str:
    seen = ", ".join(repr(each) if each else "no role" for each in sorted(requests)) or "none"
    if role and role not in requests:
        return (
            f"role {role!r} made no call to a model in {quantity(rollouts, 'rollout')}, so its instruction is not "
            f"known; roles that did: {seen}. Run lightning-sdk check with --provider to see which calls are caught"
        )
    who = f"the requests of role {role!r} have" if role else f"the requests of {quantity(rollouts, 'rollout')} have"
    return (
        f"{who} no instruction that could be tuned: no system or developer message, nor `instructions`. If the prompt "
        'stands in what the user says, mark it: lightning.prompt("NAME", default="...")'
    )
