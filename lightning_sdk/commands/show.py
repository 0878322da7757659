"""`lightning-sdk show`: a run, its rollouts, or one of them, in the terminal."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from lightning_sdk.commands.filters import add_filters, read_filters
from lightning_sdk.commands.options import add_backend_python, add_runs, positive_integer
from lightning_sdk.commands.run_views import RunViews
from lightning_sdk.commands.show_rollout import describe_call, describe_rollout, describe_rollouts, number_calls
from lightning_sdk.commands.show_run import describe_rollouts_hint, describe_run
from lightning_sdk.commands.show_tokens import describe_tokens
from lightning_sdk.errors import SettingError
from lightning_sdk.system.folders import find_run_folder
from lightning_sdk.terminal.printing import print_lines
from lightning_sdk.terminal.screen import Screen

_SORTS = ("started", "step", "reward", "seconds", "status", "task", "attempt")
#: Words for a rollout -> how to sort for it.
_EXTREMES = {"best": "1", "worst": "0"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add("run_name", metavar="RUN", help="name or folder of the run, which may be under way")
    rollout = "one rollout: the beginning of its id, or 'best' or 'worst' for the highest or lowest reward"
    add("rollout", nargs="?", metavar="ROLLOUT", help=rollout)
    add("--rollouts", action="store_true", help="list the rollouts, the newest first")
    add("--limit", type=positive_integer, default=40, metavar="N", help="rollouts in the list (default: %(default)s)")
    add("--attempt", type=positive_integer, metavar="N", help="of a rollout that was repeated: this attempt")
    add("--call", type=positive_integer, metavar="N", help="only call N of the rollout, with its whole request")
    add("--tokens", action="store_true", help="the sampled tokens, each with its log-prob and its advantage")
    add("--whole", action="store_true", help="cut no message, task or answer")
    which = "which rollouts, as in the dashboard's table; default: all"
    add_filters(parser.add_argument_group(which), "those in which this role was rewarded; the reward is its own")
    sort = f"order of the list: {', '.join(_SORTS)} (default: the newest first)"
    add("--sort", choices=_SORTS, metavar="NAME", help=sort)
    add_runs(parser)
    add_backend_python(parser, "hub")
    add("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Print what was asked for."""
    screen = Screen.of(sys.stdout)
    with RunViews([find_run_folder(options.run_name, options.runs)], options.backend_python) as views:
        [name] = views.names
        filters = read_filters(options)
        if options.rollout is None and (options.rollouts or options.sort or filters):
            shown, lines = _show_rollouts(views, name, filters, options, screen)
        elif options.rollout is None:
            shown, lines = _show_run(views, name, options, screen)
        else:
            shown, lines = _show_rollout(
                views, name, find_rollout(views, name, options.rollout, filters), options, screen
            )
    print_lines([json.dumps(shown)] if options.json else lines)


def find_rollout(views: RunViews, run: str, given: str, filters: Mapping[str, Any]) -> str:
    """The id of the rollout that is meant. SettingError if it is none, or several."""
    if given in _EXTREMES:
        found = ask_extreme(views, run, given, filters)
        if found is None:
            raise SettingError(f"{run} has no rollout with a reward" + (" that matches" if filters else ""))
        return str(found["id"])
    found = views.ask("rollouts", run, **{**filters, "id": given, "limit": 2})
    if found["total"] != 1:
        what = "no rollout" if not found["total"] else f"{found['total']} rollouts"
        raise SettingError(
            f"{run} has {what} whose id begins with {given!r}; `lightning-sdk show {shlex.quote(run)} --rollouts` "
            "lists them"
        )
    return str(found["rows"][0]["id"])


def ask_extreme(views: RunViews, run: str, which: str, filters: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The rollout with the highest ('best') or lowest ('worst') reward, the newest of several; None without one."""
    given = {**filters, "sort": "reward", "down": _EXTREMES[which], "limit": 1}
    rows = views.ask("rollouts", run, **given)["rows"]
    return rows[0] if rows and rows[0]["reward"] is not None else None


def _show_run(views: RunViews, name: str, options: argparse.Namespace, screen: Screen) -> tuple[Any, list[str]]:
    found = views.ask("run", name, whole=1)
    filters = {"mode": "train", "step": next(reversed(found["curves"]["steps"]), None)}
    best, worst = (ask_extreme(views, name, each, filters) for each in _EXTREMES)
    hint = describe_rollouts_hint(best, worst, shlex.quote(options.run_name))
    return found, [*describe_run(found, screen), *hint]


def _show_rollouts(
    views: RunViews, name: str, filters: Mapping[str, Any], options: argparse.Namespace, screen: Screen
) -> tuple[Any, list[str]]:
    found = views.ask("rollouts", name, **filters, limit=options.limit, sort=options.sort)
    return found, describe_rollouts(found, screen)


def _show_rollout(
    views: RunViews, name: str, rollout: str, options: argparse.Namespace, screen: Screen
) -> tuple[Any, list[str]]:
    which = {"rollout": rollout, "attempt": options.attempt}
    found, tokens = views.ask("rollout", name, **which), views.ask("tokens", name, **which)
    numbers = number_calls(found)
    call = next((each for each, number in numbers.items() if number == options.call), "")
    if options.call and not call:
        raise SettingError(f"--call {options.call}: the rollout has {len(numbers)} calls")
    if options.tokens:
        return tokens, describe_tokens(tokens, numbers, screen, call)
    if call:
        asked = views.ask("call", name, **which, call=call)
        return asked, describe_call(asked, options.call, screen)
    return {**found, "credit": tokens["credit"]}, describe_rollout(found, tokens, screen, whole=options.whole)
