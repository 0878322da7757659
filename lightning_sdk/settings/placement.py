"""Placement: where rollouts run, as `rollouts.runner` and `--runners` say."""

from __future__ import annotations

import re
from typing import NamedTuple

_IN_PROCESS = ("auto", "threads", "asyncio")
_FORM = re.compile(
    r"(?P<kind>auto|threads|asyncio|processes)"
    r"|(?P<processes>\d{1,4})"
    r"|ray:(?P<actors>[1-9]\d{0,4})(@(?P<address>auto|(ray://)?([^\s/:@]+|\[[0-9a-fA-F:]+\]):\d{1,5}))?"
)
#: The grammar, as messages tell it.
FORMS = (
    "'auto', 'threads' or 'asyncio' (in this process), 'processes' (one per core), a number of processes such as 4 "
    "(0: other machines run them all), or Ray actors such as ray:64, ray:64@auto or ray:64@HOST:PORT"
)


class Placement(NamedTuple):
    """Runners that a training starts itself."""

    kind: str
    """'auto', 'threads' or 'asyncio': in its own process; 'processes', 'ray', or 'none'."""
    number: int = 0
    """Processes or actors; 0 with 'processes': one per core."""
    address: str = ""
    """Address of a running Ray; empty: the one that this process or RAY_ADDRESS names, else a new one."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether the agent runs in other processes, which find it by its name."""
        return self.kind not in _IN_PROCESS


def parse(text: str) -> Placement | None:
    """The placement that `text` names, None if it is none."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    if found["kind"]:
        return Placement(found["kind"])
    if found["processes"]:
        return Placement("processes", int(found["processes"])) if int(found["processes"]) else Placement("none")
    return Placement("ray", int(found["actors"]), found["address"] or "")


def is_valid(text: str) -> bool:
    """Whether `text` names a placement."""
    return _FORM.fullmatch(text) is not None
