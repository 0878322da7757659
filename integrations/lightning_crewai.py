"""CrewAI: calls get the role of the agent that executes a task, or that was kicked off alone."""

from __future__ import annotations

from typing import Any

from lightning_sdk.integration import Patches, require_version, wrap_agent

_RUNS = ("execute_task", "aexecute_task", "kickoff", "kickoff_async", "akickoff")


def instrument(patches: Patches) -> None:
    """Wrap CrewAI's agent; run by `lightning_sdk.init()` once `crewai` is imported."""
    require_version("crewai", "1.15", "2")
    from crewai.agent.core import Agent  # noqa: PLC0415 - loaded only where the user has crewai

    for run in _RUNS:
        wrap_agent(patches, Agent, run, _role)


def _role(agent: Any, *_args: object, **_kwargs: object) -> str:
    return str(agent.role)
