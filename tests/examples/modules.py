"""Loads the modules of an example, which import what stands next to them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from lightning_sdk.rollouts import reference

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    """The module of a file such as `calc_x/rational.py`."""
    return reference.module_of(str(EXAMPLES / name))
