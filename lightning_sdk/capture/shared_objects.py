"""Sharing: objects of a framework that several rollouts run.

That is fine for an agent without memory. If it has one, the hub finds messages of one rollout in another, and names
the object that is reported here.
"""

from __future__ import annotations

import functools
import sys
import weakref
from types import ModuleType
from typing import Any

from lightning_sdk.stream import notices, sink
from lightning_sdk.trace.scope import current_scope

_MOST_REPORTS = 8
"""Times that one object is told of."""


class _Ran:
    """An object that ran in rollouts."""

    __slots__ = ("name", "object", "reports", "rollout")

    def __init__(self, thing: weakref.ref[Any], rollout: str) -> None:
        self.object, self.rollout, self.reports, self.name = thing, rollout, 0, ""


_ran: dict[int, _Ran] = {}
"""By id, since agents are often not hashable."""


def note(thing: Any, name: str) -> None:
    """`thing`, which its framework calls `name`, runs now: tell if it ran in another rollout before."""
    rollout = current_scope().rollout
    if rollout is None or not sink.is_listening():
        return
    ran = _ran.get(id(thing))
    if ran is None or ran.object() is not thing:
        try:
            reference = weakref.ref(thing, functools.partial(_forget, id(thing)))
        except TypeError:  # it can be referred to in one way only, so it is no agent
            return
        _ran[id(thing)] = _Ran(reference, rollout.id)
    elif ran.rollout != rollout.id and ran.reports < _MOST_REPORTS:
        ran.rollout, ran.reports = rollout.id, ran.reports + 1
        ran.name = ran.name or _describe(thing, name)
        notices.report_shared_agent(ran.name)


def _forget(key: int, _: object) -> None:
    _ran.pop(key, None)


def _describe(thing: Any, name: str) -> str:
    """Its class, its name and, if there is one, the variable that holds it: "AssistantAgent 'writer' (team.writer)"."""
    text = f"{type(thing).__name__} {name!r}" if name else f"the {type(thing).__name__}"
    for place, module in list(sys.modules.items()):
        if isinstance(module, ModuleType):
            # Past what a module that is loaded on demand would do.
            for variable, value in list(object.__getattribute__(module, "__dict__").items()):
                if value is thing:
                    return f"{text} ({place}.{variable})"
    return text
