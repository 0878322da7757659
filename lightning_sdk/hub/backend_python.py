"""The Python of the environment that has the hub, which may be another than the one that runs the agent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_sdk.errors import HubError


@contextmanager
def explain_start_errors(python: str) -> Iterator[None]:
    """Around the start of a process with this Python: HubError, with what to do, if it cannot be run."""
    try:
        yield
    except OSError as error:
        raise HubError(f"cannot run {python}: {error}; name the backend environment's python") from None
