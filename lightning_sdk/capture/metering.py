"""Metering: where a run has a budget of calls, tokens or money, the hub is asked before each request of a rollout.

The answer comes before the request leaves, so that nothing is spent that the budget does not have.
"""

from __future__ import annotations

from collections.abc import Callable

from lightning_sdk.capture.request_bounds import bound_request
from lightning_sdk.errors import BudgetSpent

_ask_hub: Callable[..., str] | None = None


def connect(ask_hub: Callable[..., str] | None) -> None:
    """Ask this hub from now on, which answers '' or why a request may not leave; None: there is none."""
    global _ask_hub  # noqa: PLW0603 - the one hub of this process
    _ask_hub = ask_hub


def claim_call(rollout: str, call: str, attempt: int, path: str, body: bytes, *, refused: bool) -> None:
    """Ask the hub whether a request may leave.

    Args:
        attempt: Number of the request among those of its call, from 1.
        refused: Whether the attempt before was answered with an error, which costs nothing.

    Raises:
        BudgetSpent: it may not.
        HubError: the hub cannot be asked.
    """
    if _ask_hub is None:
        raise BudgetSpent("this process is not connected to the hub, which counts the calls of this rollout")
    bounds = bound_request(path, body)
    if why := _ask_hub(rollout=rollout, call=call, attempt=attempt, refused=refused, **bounds._asdict()):
        raise BudgetSpent(why)
