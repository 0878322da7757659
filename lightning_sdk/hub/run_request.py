"""The request that starts a run: what a hub is asked with 'train', 'check', 'evaluate' or 'validate'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from lightning_sdk.hub.joining import AgentIdentity
from lightning_sdk.results.run_origin import RunOrigin
from lightning_sdk.trace.structs import read_struct


@dataclass(frozen=True, slots=True)
class TaskListPart:
    """A part of a long list of tasks, which goes ahead of the request that names the list."""

    list: str
    """The list's name, which the client has made up."""
    name: str
    """What it is in the request: 'tasks' or 'held_out'."""
    tasks: Any
    first: int = 0
    """Place of its first task in the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What is to be run."""

    tasks: Any
    """Tasks, or {"list": name} for a list that was sent ahead; whether they are tasks is checked where they arrive."""
    held_out: Any = ()
    """As `tasks`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Nested, or by their dotted names."""
    resume: bool = False
    from_runs: Sequence[str] = ()
    """Folders of earlier runs to learn from."""
    rewards: Mapping[str, float | None] = field(default_factory=dict)
    """Reward function -> the weight that it is marked with."""
    declared_roles: Mapping[str, bool] = field(default_factory=dict)
    """Role -> trainable, as the agent's process declares them; may be incomplete."""
    naming: bool = False
    """Whether a framework names agents, so that further roles may come up."""
    integrations: Mapping[str, str] = field(default_factory=dict)
    """Integration -> its state in the agent's process."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """Name -> text, of texts that are marked with `lightning.prompt`."""
    identity: AgentIdentity = field(default_factory=AgentIdentity)
    """The agent's, for the runners that join."""
    origin: RunOrigin = field(default_factory=RunOrigin)
    """Where agent, rewards and tasks came from."""

    def as_message(self) -> dict[str, Any]:
        """As it is sent."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # no copies of the tasks
        return values | {"identity": asdict(self.identity), "origin": asdict(self.origin)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> RunRequest:
        """The reverse of `as_message`. ValueError for one without tasks."""
        found = read_struct(cls, message, "the request")
        return replace(
            found,
            identity=read_struct(AgentIdentity, message.get("identity") or {}, "identity"),
            origin=read_struct(RunOrigin, message.get("origin") or {}, "origin"),
        )
