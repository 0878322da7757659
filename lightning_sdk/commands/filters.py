"""Options that choose rollouts, by the same filters as the dashboard's table."""

from __future__ import annotations

import argparse
from typing import Any

#: Option -> parameter of the page's table of rollouts.
_FILTERS = {
    "mode": "mode",
    "step": "step",
    "from_step": "from",
    "to_step": "to",
    "evaluation": "evaluation",
    "task": "task",
    "group": "group",
    "status": "status",
    "role": "role",
    "low": "low",
    "high": "high",
    "text": "text",
    "attempts": "attempts",
}


def add_filters(group: Any, role: str) -> None:
    """Add them to a parser or to a group of its options; `role` is the help of `--role`."""
    add = group.add_argument
    add("--role", metavar="NAME", help=role)
    add("--mode", choices=("train", "evaluate", "observe"), help="what they were run for")
    add("--step", metavar="N", help="of this step")
    add("--from-step", metavar="N", help="of this step and later ones")
    add("--to-step", metavar="N", help="of this step and earlier ones")
    add("--evaluation", metavar="NAME", help="of this evaluation: before, after, step-N")
    add("--task", metavar="ID", help="of the task with this id")
    add("--group", metavar="NAME", help="of this group")
    add("--status", action="append", metavar="NAME", help="that ended so: ok, agent_error, timeout ...; repeatable")
    add("--low", metavar="REWARD", help="that earned this or more")
    add("--high", metavar="REWARD", help="that earned this or less")
    add("--text", metavar="TEXT", help="with this text in task, answer, error or the reason of a reward")
    add("--all-attempts", dest="attempts", action="store_const", const="all", help="also attempts that were repeated")


def read_filters(options: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, as the page's address has them."""
    return {_FILTERS[name]: value for name in _FILTERS if (value := getattr(options, name)) is not None}
