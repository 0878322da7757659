"""The gateway from the agent's process: the environment variables that send another program's model calls through it.

The gateway itself is an installed package, which is found by its entry point like a backend. It runs in a thread of
this process, so that its recordings go through the same stream, before the end of the rollout.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Protocol

from lightning_sdk import session
from lightning_sdk.errors import SettingError
from lightning_sdk.trace.scope import Scope, effective_scope

GROUP = "lightning_sdk.gateways"


class RunningGateway(Protocol):
    """A server of OpenAI's and Anthropic's API that records the calls that pass through it."""

    url: str
    """Its URL, such as http://127.0.0.1:41234, without a slash at the end."""
    token: str
    """Token that is required to begin a rollout over HTTP."""

    @property
    def upstream(self) -> object:
        """Where calls that are not trained go; `str()` of it is shown."""

    def environment(self, scope: Scope) -> dict[str, str]:
        """Environment variables with which a program's calls count as made in `scope`."""

    def close(self) -> None:
        """Stop serving; calls under way are recorded as cancelled."""


def gateway_environment() -> dict[str, str]:
    """Environment variables that make another program's model calls belong to this rollout and role.

    For agents that are not written in Python, or that run in another process:

        @lightning.agent(role="solver", trainable=True)
        def solve(task):
            environment = {**os.environ, **lightning.gateway_environment()}
            run = subprocess.run(["node", "agent.js", task["question"]], env=environment, capture_output=True, ...)

    Calls through OpenAI's API (chat completions, completions, responses) or Anthropic's (messages), streaming or not,
    are recorded as if they were made here, and are sent to the engine if this role is trained. The variables
    are OPENAI_BASE_URL, OPENAI_API_BASE, OPENAI_API_KEY, ANTHROPIC_BASE_URL, ANTHROPIC_API_KEY, LIGHTNING_ROLLOUT_URL
    and, where a proxy is set, NO_PROXY. They stop working when the rollout ends. The gateway is started on first use,
    on loopback.

    Raises:
        SettingError: the gateway is not installed in this environment.
    """
    return _ensure_gateway().environment(effective_scope())


def load() -> Callable[..., RunningGateway]:
    """The installed gateway's factory; SettingError if none is installed."""
    for entry in entry_points(group=GROUP):
        try:
            make: Callable[..., RunningGateway] = entry.load()
        except ModuleNotFoundError as error:
            raise SettingError(
                f"the gateway needs {error.name!r}, which is not installed in this environment; "
                "pip install 'lightning-agent-sdk[gateway]'"
            ) from None
        return make
    raise SettingError(f"no gateway is installed (no entry point in {GROUP!r}); reinstall lightning-agent-sdk")


_lock = threading.Lock()
_running: tuple[int, RunningGateway] | None = None
"""Process and gateway: a fork inherits the variable and not the thread."""


def _ensure_gateway() -> RunningGateway:
    global _running  # noqa: PLW0603 - one gateway per process
    with _lock:
        if _running is None or _running[0] != os.getpid():
            _running = (os.getpid(), load()())
            session.start().patches.on_undo(_stop)
        return _running[1]


def _stop() -> None:
    global _running
    with _lock:
        running, _running = _running, None
    if running is not None and running[0] == os.getpid():
        running[1].close()
