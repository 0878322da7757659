"""The origin of a run: where its agent, its rewards and its tasks came from, so that `--resume` alone finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrigin:
    """What a training was started with, by name. A name that is '' is not known."""

    agent: str = ""
    """FILE.py:FUNCTION or MODULE:FUNCTION; '' if another process cannot find it, or one of its rewards, by name."""
    rewards: Sequence[str] = ()
    """The reward functions, in the same way; none if the agent gives its own rewards."""
    tasks: str = ""
    """The file with the tasks; '' if they were given from Python."""
    backend_python: str = ""
    """Python of the backend's environment; '' if it is the agent's."""

    @property
    def is_complete(self) -> bool:
        """Whether a command can start the training again without being told anything."""
        return bool(self.agent and self.tasks)
