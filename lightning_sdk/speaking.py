"""What an integration tells: which agent of a framework speaks, and which versions of the framework it knows.

A framework either runs its agents in methods, which `speaks` wraps, or keeps the name of the running agent in a context
variable of its own, which `speaker` asks at each call.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from typing import Any

from lightning_sdk import scope
from lightning_sdk.agent import Turn, in_turn
from lightning_sdk.errors import UnsupportedVersion
from lightning_sdk.patches import Patches
from lightning_sdk.sink import harmless


def speaks(patches: Patches, owner: Any, method: str, name: Callable[..., str | None]) -> None:
    """Calls made while `owner.method` runs belong to the agent called `name(*arguments of the method)`.

    Right for any kind of method: what it returns decides, so a coroutine, a generator or an async generator keeps the
    role through each of its steps and never between them. None or '': the agent has no name, and its caller's role
    stays.
    """

    def begin(*args: Any, **kwargs: Any) -> Turn:
        return Turn.of_framework(harmless(f"naming {method}", lambda: name(*args, **kwargs)) or "")

    patches.wrap(owner, method, lambda original: in_turn(original, begin))


def speaker(patches: Patches, ask: Callable[[], str | None]) -> None:
    """`ask`, at each call, which agent the framework itself says is running; None or '' if none is."""

    def said() -> str:
        return harmless("asking a framework who speaks", ask) or ""

    scope.speakers.append(said)
    patches.also(lambda: scope.speakers.remove(said))


def require(distribution: str, at_least: str, below: str) -> None:
    """UnsupportedVersion, which turns the integration off with one warning, unless at_least <= version < below."""
    version = importlib.metadata.version(distribution)
    if not _numbers(at_least) <= _numbers(version) < _numbers(below):
        raise UnsupportedVersion(
            f"{distribution} {version} is not supported; install one that is: pip install "
            f"'{distribution}>={at_least},<{below}'"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (1, 107, 0) of 1.107.0rc2."""
    return tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", version)[0].split("."))  # type: ignore[index]
