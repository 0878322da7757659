"""The texts that are tuned, found in what the first rollouts of the agent sent to models."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.judging import is_judging
from lightning_prompts.candidate import Component
from lightning_sdk.errors import NothingToTrain
from lightning_sdk.prompts.discovery import RoleRequest, RoleText, find_role_texts
from lightning_sdk.prompts.instructions import DEVELOPER, SYSTEM, TOOL
from lightning_sdk.results.quantity import quantity

_UNNAMED = "agent"
"""What the text of calls of no role is called."""


def find_components(
    rollouts: Sequence[Rollout], roles: Sequence[str], marks: Mapping[str, str], *, tools: bool = False
) -> list[Component]:
    """The instructions of these roles, or of every role if none is named; in a longer text, what is marked in it.

    Args:
        tools: Whether the descriptions of their tools are among them.

    Raises:
        NothingToTrain: one of the roles spoke to no model, or its requests have no instruction.
    """
    requests = _requests(rollouts)
    found: dict[str, Component] = {}
    for role in roles or sorted(requests):
        texts = _texts(requests.get(role, []), marks, tools)
        if not texts and roles:
            raise NothingToTrain(_describe_missing(role, requests, len(rollouts)))
        plain = sum(not (each.mark or each.tool) for each in texts)
        for number, each in enumerate(texts, 1):
            own = role or _UNNAMED
            numbered = f"{own}.{number}" if plain > 1 else own
            name = each.mark or (_free_name(f"{own}.tool.{each.tool}", found) if each.tool else numbered)
            before = found.get(each.text)
            if before is None:
                found[each.text] = Component(name, (role,), each.text, each.mark, each.tool)
            elif role not in before.roles:
                found[each.text] = replace(before, roles=(*before.roles, role))
    if not found:
        raise NothingToTrain(_describe_missing("", requests, len(rollouts)))
    return list(found.values())


def _free_name(name: str, found: Mapping[str, Component]) -> str:
    """This name, or one with a number where it is taken: a tool may have two descriptions."""
    taken = {each.name for each in found.values()}
    others = (f"{name}.{number}" for number in itertools.count(2))
    return name if name not in taken else next(each for each in others if each not in taken)


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


class _Tunable(NamedTuple):
    """A text that can be tuned."""

    text: str
    mark: str = ""
    tool: str = ""


def _texts(requests: Sequence[RoleRequest], marks: Mapping[str, str], tools: bool) -> list[_Tunable]:
    """What can be tuned in a role's requests, each text once."""
    found: dict[str, _Tunable] = {}
    for each in find_role_texts(requests, marks):
        for tunable in _tunable_texts(each, marks, tools):
            found.setdefault(tunable.text, tunable)
    return list(found.values())


def _tunable_texts(text: RoleText, marks: Mapping[str, str], tools: bool) -> Iterator[_Tunable]:
    if text.marked:
        yield from (_Tunable(marks[mark], mark) for mark in text.marked)
        return
    if text.template.holes and not text.template.can_match:
        return
    if text.kind in {SYSTEM, DEVELOPER}:
        yield _Tunable(text.text)
    elif text.kind == TOOL and tools and text.tool and text.text.strip():
        yield _Tunable(text.text, tool=text.tool)


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
