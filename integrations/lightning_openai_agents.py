"""The OpenAI Agents SDK: calls belong to the agent whose turn it is, including its tools, also after a handoff.

Its hooks know the agent as well, but they run in separate tasks, so what they set does not reach the call.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

from lightning_sdk.integration import Patches, UnsupportedVersion, require_version, wrap_agent

_DISTRIBUTION = "openai-agents"


def instrument(patches: Patches) -> None:
    """Wrap the SDK's turns; run by `lightning_sdk.init()` once a module called `agents` is imported."""
    if not _is_the_sdk():
        return
    require_version(_DISTRIBUTION, "0.20", "1")
    from agents import run  # noqa: PLC0415 - loaded only where the user has the Agents SDK
    from agents.run_internal import run_loop  # noqa: PLC0415

    turns = ((run, "run_single_turn"), (run_loop, "run_single_turn_streamed"))
    if missing := [name for owner, name in turns if not hasattr(owner, name)]:
        version = importlib.metadata.version(_DISTRIBUTION)
        raise UnsupportedVersion(
            f"{_DISTRIBUTION} {version} has no {', '.join(missing)}; pip install '{_DISTRIBUTION}>=0.20,<0.25'"
        )
    for owner, name in turns:
        wrap_agent(patches, owner, name, _name)


def _is_the_sdk() -> bool:
    """Whether the imported `agents` is the SDK: many programs have their own package of that name."""
    try:
        installed = importlib.metadata.distribution(_DISTRIBUTION).locate_file("agents/__init__.py")
    except importlib.metadata.PackageNotFoundError:
        return False
    file = getattr(sys.modules.get("agents"), "__file__", None)
    return file is not None and Path(file).resolve() == Path(str(installed)).resolve()


def _name(*args: Any, **kwargs: Any) -> str:
    bindings = kwargs["bindings"] if "bindings" in kwargs else args[1]
    return str(bindings.public_agent.name)
