"""Values of settings: taken from a command line's text or from Python as the setting's type, or what was expected."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

from lightning_sdk.errors import SettingError
from lightning_sdk.settings.ranges import Range, split_range

_WORDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
#: What a setting that is text also takes, since its text may be just that.
_ALSO: dict[str, Callable[[Any], str | None]] = {
    "rollouts.runner": lambda value: str(value) if _is_integer(value) else None,
    "lora.targets": lambda value: ",".join(map(str, value)) if isinstance(value, list | tuple) else None,
}


def from_text(name: str, text: str, hint: Any) -> Any:
    """The value of `text`, as a command line gives it."""
    bare, range_ = split_range(hint)
    if get_origin(bare) is tuple:
        return (text,) if text.strip() else ()  # one name, which may hold a comma
    kinds = get_args(bare) or (bare,)
    if text.lower() == "none" and type(None) in kinds:
        return None
    for kind in kinds:
        if kind is not type(None) and (found := _parse(text.strip(), kind)) is not None:
            return found
    raise SettingError(f"setting {name}={text!r}: {_describe_expected(kinds, range_)}")


def convert(name: str, value: Any, hint: Any) -> Any:
    """`value` as the setting has it: every form that a command line takes, and numbers and paths of any library."""
    value = _python(value)
    bare, range_ = split_range(hint)
    if get_origin(bare) is tuple:
        return _names(name, value, bare)
    kinds = get_args(bare) or (bare,)
    if isinstance(value, str) and str not in kinds:
        return from_text(name, value, hint)
    if str in kinds and name in _ALSO and (text := _ALSO[name](value)) is not None:
        return text
    if float in kinds and _is_integer(value):
        return float(value)
    if int in kinds and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise SettingError(f"setting {name}={value!r}: {_describe_expected(kinds, range_)}")
    return value


def _names(name: str, value: Any, hint: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(each, str) for each in value):
        return tuple(map(str, value))
    if not isinstance(value, str):
        raise SettingError(f"setting {name}={value!r}: expected a name or a list of names, such as ['a', 'b']")
    found: tuple[str, ...] = from_text(name, value, hint)
    return found


def convert_verbatim(name: str, value: Any) -> Any:
    """A value that is handed on as it is."""
    value = _python(value)
    if isinstance(value, list | tuple):
        return [convert_verbatim(name, each) for each in value]
    if not isinstance(value, str | int | float | None):
        raise SettingError(f"setting {name}={value!r}: expected text, a number, true, false, None, or a list of these")
    return value


def _parse(text: str, kind: type) -> Any:
    """The text as this kind of value; None if it is not one."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    if kind is str:
        return text
    try:
        return kind(text)
    except ValueError:
        return _whole(text) if kind is int else None


def _whole(text: str) -> int | None:
    """1e3 is a whole number too."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _python(value: Any) -> Any:
    """NumPy's and torch's numbers as Python's, paths as text."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _describe_expected(kinds: tuple[Any, ...], range_: Range | None) -> str:
    known = [_WORDS.get(kind, getattr(kind, "__name__", str(kind))) for kind in kinds if kind is not type(None)]
    optional = ", or none" if type(None) in kinds else ""
    if kinds == (str,) and range_:
        return f"must be {range_.describe()}"
    return f"expected {' or '.join(known)}{f', {range_.describe()}' if range_ else ''}{optional}"


def mapping(name: str, value: Any) -> Mapping[str, Any]:
    """The value as a mapping; SettingError if it is not a dict."""
    if not isinstance(value, Mapping):
        raise SettingError(f"setting {name}={value!r}: expected a dict")
    return value
