"""A reference: a function by file or module and name, such as `agent.py:solve`, so that another process can load it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning_sdk.errors import SettingError
from lightning_sdk.hub.joining import AgentIdentity


def load(reference: str) -> Callable[..., Any]:
    """The function that `file.py:name` or `package.module:name` names.

    Raises:
        SettingError: the file, the module or the name does not exist, or is not a function.
    """
    place, _, name = reference.rpartition(":")
    if not place:
        raise SettingError(f"{reference!r}: expected FILE.py:FUNCTION or MODULE:FUNCTION, such as agent.py:solve")
    module = module_of(place)
    try:
        function = reduce(getattr, name.split("."), module)
    except AttributeError:
        names = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise SettingError(f"{place} has no {name!r}; it has: {', '.join(names)}") from None
    if not callable(function):
        raise SettingError(f"{reference} is {type(function).__name__}, not a function")
    return function


def module_of(place: str) -> ModuleType:
    """The module of a file or dotted name, imported once; its `if __name__ == "__main__"` part does not run."""
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is not None and not place.startswith(error.name):
                raise  # the module is there and something that it imports is not
            raise SettingError(f"no module {place!r}; to name a file, write FILE.py:FUNCTION") from None
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise SettingError(f"no file {place}")
    main = sys.modules.get("__main__")
    if main is not None and getattr(main, "__file__", None) and Path(str(main.__file__)).resolve() == path:
        return main
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as `python file.py` does, so that its neighbours import
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def of(function: Callable[..., Any]) -> str:
    """The reference of a function at the top level of a module; SettingError for one that has none."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not module or not name or "<" in name:
        raise SettingError(
            f"{name or function!r} cannot be found by name from another process: runner='processes' needs a function "
            "at the top level of a file; use runner='threads' for this function"
        )
    path = getattr(sys.modules.get(module), "__file__", None)
    # A file given on the command line, or run as a script, is not importable by its module name.
    return f"{path}:{name}" if path and (module == "__main__" or "." not in module) else f"{module}:{name}"


def name_of(agent: Callable[..., Any]) -> str:
    """The name of an agent, or the class of another thing that can be called."""
    return str(getattr(agent, "__name__", type(agent).__name__)).strip("<>")


def identity(agent: Callable[..., Any], rewards: Iterable[str]) -> AgentIdentity:
    """What tells an agent with these rewards apart from others."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(agent) if hasattr(agent, "__name__") else type(agent))
        source = hashlib.sha256(Path(path or "").read_bytes()).hexdigest()[:16]
    except (TypeError, OSError):
        source = ""
    return AgentIdentity(name_of(agent), sorted(rewards), source)
