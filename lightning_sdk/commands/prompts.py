"""`prompts discover`: run a few rollouts of an agent, and list the texts that its requests carry, for each role."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sdk.commands import check
from lightning_sdk.errors import HubError, SettingError, make_error
from lightning_sdk.hub.backend_python import explain_start_errors
from lightning_sdk.markers.agent import declared
from lightning_sdk.markers.prompt import marked
from lightning_sdk.results.quantity import quantity
from lightning_sdk.rollouts.tasks import Source
from lightning_sdk.settings import placement
from lightning_sdk.system.folders import temporary_folder

#: One rollout of each of some tasks shows what varies with the task; nothing is compared.
_SMALL: dict[str, Any] = {"rollouts.group_size": 1, "credit.advantage": "reinforce"}
_SHOWN_CHARACTERS = 1200
"""How much of a text is printed for people."""
_WIDTH = 110


@dataclass(frozen=True, slots=True)
class Discovery:
    """The texts that were found."""

    values: dict[str, Any]
    """Plain data: rollouts, statuses, roles (each with role, requests, tasks and texts), unseen_roles (roles without a
    text -> why), unseen_marks (names of marked texts that stood in no request). A text has kind, tool, text,
    holes, can_be_found, requests, tasks, and marked (name -> 'whole' or 'part')."""

    @property
    def complete(self) -> bool:
        """Whether every role that is known has a text, and every marked text was seen."""
        values = self.values
        return bool(values["roles"]) and not values["unseen_roles"] and not values["unseen_marks"]

    def __str__(self) -> str:
        return "\n\n".join(_paragraphs(self.values))


def discover(
    agent: Callable[..., Any],
    tasks: Source,
    *,
    provider: bool = False,
    backend_python: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Discovery:
    """Run `agent` once on each of four tasks, and list the texts of its requests. Reward functions are not run.

    The other arguments are those of `check`; `rollouts.tasks_per_step` says how many tasks are run.

    Raises:
        TaskError, SettingError, ModelError: an argument cannot be used.
        SettingError: the rollouts would run in other processes, whose marked texts are not known here.
    """
    placed = placement.parse(str(settings.get("rollouts.runner", "auto")))
    if placed is not None and placed.is_elsewhere:
        raise SettingError(
            f"setting rollouts.runner={settings['rollouts.runner']!r}: prompts are discovered in this process, which "
            "knows the texts that are marked; leave this setting out"
        )
    with temporary_folder("prompts") as folder:
        found = check.check(
            agent,
            tasks,
            _score_nothing,
            provider=provider,
            keep=folder,
            backend_python=backend_python,
            quiet=quiet,
            **{**_SMALL, **settings},
        )
        roles = _read(folder, {mark.name: mark.text for mark in marked.values()}, backend_python)
    silent = {each["role"]: "its requests carry no instruction" for each in roles if not each["texts"]}
    spoke = {each["role"] for each in roles}
    silent |= {role: "it made no call in these rollouts" for role in declared if role not in spoke}
    seen = {name for each in roles for text in each["texts"] for name in text["marked"]}
    return Discovery(
        {
            "rollouts": found.values["rollouts"],
            "statuses": found.values["statuses"],
            "roles": roles,
            "unseen_roles": silent,
            "unseen_marks": sorted(set(marked) - seen),
        }
    )


def _score_nothing(task: Any, answer: Any) -> float:
    """In place of a reward, which may cost something and says nothing about texts."""
    return 0.0


def _read(folder: Path, marks: Mapping[str, str], python: str | None) -> list[dict[str, Any]]:
    """What the hub's environment reads from what was recorded."""
    command = [python or sys.executable, "-m", "lightning_hub.replay.role_texts", str(folder)]
    with explain_start_errors(command[0]):
        done = subprocess.run(command, check=False, capture_output=True, text=True, input=json.dumps(marks))
    if done.returncode:
        raise HubError(f"the requests could not be read with {command[0]}:\n{done.stderr.strip()[-2000:]}")
    values = json.loads(done.stdout)
    if "error" in values:
        raise make_error(*values["error"])
    roles: list[dict[str, Any]] = values["roles"]
    return roles


# --- in words


def _paragraphs(values: Mapping[str, Any]) -> Iterator[str]:
    ended = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in values["statuses"].items())
    yield f"{quantity(values['rollouts'], 'rollout')}: {ended}"
    for role in values["roles"]:
        yield f"{_name(role['role'])}: {quantity(role['requests'], 'request')} of {quantity(role['tasks'], 'task')}"
        for number, text in enumerate(role["texts"], 1):
            yield f"  {number}. {_head(text, role)}\n{_indent(text['text'])}"
    for role, why in values["unseen_roles"].items():
        yield f"No text of {_name(role)} was seen: {why}."
    for name in values["unseen_marks"]:
        yield f"The marked text {name!r} stood in no request: these rollouts did not use it, or changed its words."


def _head(text: Mapping[str, Any], role: Mapping[str, Any]) -> str:
    kind = f"description of the tool {text['tool']!r}" if text["kind"] == "tool" else f"{text['kind']} text"
    said = [f"{kind}, {len(text['text']):,} characters"]
    if text["holes"]:
        said.append(f"varies in {', '.join(text['holes'])}")
    if not text["can_be_found"]:
        said.append("too little of it stays the same to be replaced")
    if text["requests"] < role["requests"]:
        said.append(f"in {text['requests']} of the requests")
    said += [f"marked {name!r}" if how == "whole" else f"holds {name!r}" for name, how in text["marked"].items()]
    return "; ".join(said)


def _indent(text: str) -> str:
    shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} ... (--json prints all of it)"
    lines = (part for line in shown.splitlines() for part in textwrap.wrap(line, _WIDTH) or [""])
    return "\n".join(f"     | {line}".rstrip() for line in lines)


def _name(role: str) -> str:
    return f"role {role!r}" if role else "calls of no role"
