"""Packages that only some formats need: imported when asked for, or an error that says what to install."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from lightning_sdk.errors import SettingError


def require_package(name: str, option: str) -> Any:
    """The module `name`. SettingError if it is not installed; the message names the option that needs it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise SettingError(
            f"{option} needs a package that the environment of {sys.executable} does not have ({error}): "
            "pip install 'lightning-agent-sdk[export]'"
        ) from None
