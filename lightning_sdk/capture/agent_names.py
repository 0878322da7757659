"""What an integration knows about its framework: which agent is running, and which versions are supported.

A framework either runs its agents in methods, which `wrap_agent` wraps, or keeps the name of the running agent in a
context variable, which `add_agent_source` asks at each call.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_sdk.capture import shared_objects
from lightning_sdk.capture.patches import Patches
from lightning_sdk.errors import UnsupportedVersion
from lightning_sdk.markers.agent import Turn, wrap_in_turn
from lightning_sdk.stream.sink import harmless
from lightning_sdk.trace import scope


def wrap_agent(patches: Patches, owner: Any, method: str, name: Callable[..., str | None]) -> None:
    """Wrap `owner.method`: calls made while it runs belong to the agent called `name(*arguments of the method)`.

    Works for any kind of method: its result decides how it is wrapped, so a coroutine, a generator or an async
    generator has the role in each of its steps and never between them. If `name` returns None or '', the agent has no
    name, and its caller's role applies.
    """

    def begin(*args: Any, **kwargs: Any) -> Turn:
        agent = _ask_name(f"naming the agent of {method}", lambda: name(*args, **kwargs))
        if args:
            harmless("seeing who shares an agent", lambda: shared_objects.note(args[0], agent))
        return Turn.of_framework(agent)

    patches.wrap(owner, method, lambda original: wrap_in_turn(original, begin))
    patches.names_agents = True


def add_agent_source(patches: Patches, ask: Callable[[], str | None]) -> None:
    """Call `ask` at each call to a model: which agent is running according to the framework; None or '' if none is."""

    def agent_name() -> str:
        return _ask_name("asking a framework for its current agent", ask)

    scope.role_sources.append(agent_name)
    patches.on_undo(lambda: scope.role_sources.remove(agent_name))
    patches.names_agents = True


def _ask_name(what: str, ask: Callable[[], object]) -> str:
    return harmless(what, lambda: str(ask() or "").strip()) or ""


def require_version(distribution: str, at_least: str, below: str, *, module: str = "") -> None:
    """Raise UnsupportedVersion, which turns the integration off with one warning, unless at_least <= version < below
    and unless the imported `module` is the distribution's: the user may have a package of the same name."""
    wanted = f"pip install '{distribution}>={at_least},<{below}'"
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise UnsupportedVersion(f"{distribution} is not installed as a distribution: {wanted}") from None
    if not parse_release(at_least) <= parse_release(version) < parse_release(below):
        raise UnsupportedVersion(f"{distribution} {version} is not supported; install one that is: {wanted}")
    if module and not _ships(distribution, module):
        raise UnsupportedVersion(f"the imported {module} does not belong to {distribution}, which is installed as well")


def _ships(distribution: str, module: str) -> bool:
    """Whether the imported `module` was installed with the distribution."""
    installed = importlib.metadata.distribution(distribution)
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or '"editable"' in (installed.read_text("direct_url.json") or ""):
        return True
    return Path(str(installed.locate_file(""))).resolve() in Path(file).resolve().parents


def parse_release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, without zeros at the end: (1, 107) of 1.107.0rc2."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in re.sub(r"(\.0+)+$", "", found[0]).split(".")) if found else ()
