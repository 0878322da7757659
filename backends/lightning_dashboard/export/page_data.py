"""The data of a page that is one file: the answers of the dashboard's views, for the rollouts that it carries."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import urlencode

from lightning_dashboard.attempt_reader import read_attempt
from lightning_dashboard.export.choice import WORDS, in_order_of_interest
from lightning_dashboard.query import ViewQuery
from lightning_dashboard.rollout_filter import Selection, select
from lightning_dashboard.run_reader import RunReader
from lightning_dashboard.runs import Runs
from lightning_dashboard.server import to_json
from lightning_dashboard.views import answer
from lightning_dashboard.views.call import describe_call
from lightning_dashboard.views.rollouts import describe, read_texts
from lightning_dashboard.views.run import describe_run
from lightning_dashboard.views.series import metrics_by_step
from lightning_sdk.errors import PromptError

_MOST_RUNS = 8
#: Characters of what reflection read and wrote, of each of its replies.
_MOST_REFLECTED = 4000
_MOST_LOGS = 12
_MOST_ROLES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class CarryLimits:
    """How much of a run a file may carry."""

    rollouts: int
    """Of each run, with everything that is known of them."""
    bytes: int
    """Of all runs together, about."""


class CarriedPage:
    """What goes into the file, and how many rollouts that is."""

    def __init__(self, runs: Runs, query: ViewQuery, limits: CarryLimits) -> None:
        self._runs, self._query, self._limits = runs, query, limits
        names = list(reversed(runs.folders()))[:_MOST_RUNS]
        self._spent, self.count = 0, 0
        left = len(names)
        of = {}
        for name in names:
            run = runs.open(name)
            share = self._spent + max(0, limits.bytes - self._spent) // left
            of[name] = self._describe(run, share)
            left -= 1
        self.data = {
            "made": f"This file was made on {time.strftime('%Y-%m-%d at %H:%M')} by Lightning SDK "
            f"{version('lightning-agent-sdk')}.",
            "runs": {**answer("runs", runs, ViewQuery("")), "places": []},
            "compare": _comparison(runs, names),
            "of": of,
        }

    def _describe(self, run: RunReader, share: int) -> dict[str, Any]:
        """Everything of one run; with all before it no more than `share` bytes, if they are enough for one rollout."""
        asked = _query({"run": run.name})
        run.health.examine(run.version())
        described = {**describe_run(run, math.inf), "messages": [], "incomplete": False}
        whole = {
            "run": described,
            "series": _series(run.steps()),
            "system": _system(answer("system", self._runs, asked)),
            "prompts": self._search(asked) if described["search"] else None,
        }
        self._spent += len(to_json(whole))
        selection = select(run, self._query)
        roles = [role for role in selection.columns.rewarded_roles if role][:_MOST_ROLES]
        places, rollouts = self._carry(run, selection, share)
        self.count += len(places)
        return {
            **whole,
            "roles": roles,
            "all": len(selection.columns),
            "note": _note(len(places), len(selection.places)),
            "rows": _rows(run, selection, places, roles),
            "groups": {role: self._groups(run, selection, places, role) for role in ["", *roles]},
            "rollouts": rollouts,
        }

    def _search(self, asked: ViewQuery) -> dict[str, Any] | None:
        """The search for prompts; None if it has no candidate yet."""
        try:
            return _prompts(answer("prompts", self._runs, asked))
        except PromptError:
            return None

    def _carry(self, run: RunReader, selection: Selection, share: int) -> tuple[list[int], dict[str, Any]]:
        """Places of the rollouts that are carried, and each with its calls and its tokens by its id."""
        columns = selection.columns
        found: dict[str, Any] = {}
        places = []
        for place in in_order_of_interest(selection):
            id_ = columns.ids[place]
            if len(found) >= self._limits.rollouts:
                break
            if id_ in found:  # another attempt at it
                continue
            carried = self._read(run, id_, int(columns.attempts[place]))
            size = len(to_json(carried))
            if found and self._spent + size > share:
                break
            self._spent += size
            found[id_] = carried
            places.append(place)
        for carried in found.values():
            mates = carried["rollout"]["group"]
            carried["rollout"]["group"] = [each for each in mates if each["id"] in found]
        return places, found

    def _read(self, run: RunReader, rollout: str, attempt: int) -> dict[str, Any]:
        asked = _query({"run": run.name, "rollout": rollout, "attempt": attempt})
        calls = read_attempt(run, rollout, attempt).calls
        return {
            "attempt": attempt,
            "rollout": answer("rollout", self._runs, asked),
            "tokens": _shorten(answer("tokens", self._runs, asked)),
            "calls": {call.meta.id: describe_call(call) for call in calls},
        }

    def _groups(self, run: RunReader, selection: Selection, places: list[int], role: str) -> list[dict[str, Any]]:
        """The whole groups of these rollouts."""
        columns = selection.columns
        names = dict.fromkeys((columns.modes[place], columns.groups[place]) for place in places)
        kept = self._query.encode(leave_out=frozenset({"mode", "group", "role"}))
        asked = (urlencode({"run": run.name, "mode": mode, "group": group, "role": role}) for mode, group in names)
        pages = (answer("groups", self._runs, ViewQuery(f"{each}&{kept}")) for each in asked)
        return [row for page in pages for row in page["rows"]]


def _query(values: dict[str, Any]) -> ViewQuery:
    return ViewQuery(urlencode(values))


def _note(carried: int, found: int) -> str:
    if carried == found:
        return f"It has all {carried:,} rollouts that were asked for."
    return (
        f"It has {carried:,} of {found:,} rollouts: {WORDS}. "
        "To carry more: lightning-sdk export RUN --html FILE --rollouts N --megabytes M."
    )


def _rows(run: RunReader, selection: Selection, places: list[int], roles: list[str]) -> list[dict[str, Any]]:
    """The table of the rollouts, with what each role earned, in the order in which the server breaks ties."""
    columns, places = selection.columns, sorted(places)
    texts = read_texts(run, [columns.keys[place] for place in places])
    scores = {role: columns.scores(role) for role in ["", *roles]}
    return [
        {
            **describe(columns, place, selection.scores),
            **texts.get(columns.keys[place], {}),
            "scores": {role: float(each[place]) for role, each in scores.items() if math.isfinite(each[place])},
        }
        for place in places
    ]


def _series(steps: Any) -> dict[str, Any]:
    names = list(dict.fromkeys(name for step in steps for name in step if name != "step"))
    return {"names": names, **metrics_by_step(steps, names)}


def _system(found: dict[str, Any]) -> dict[str, Any]:
    """Without what is only true for a moment."""
    return {**found, "hub": None, "watched": False, "messages": [], "processes": [], "logs": found["logs"][:_MOST_LOGS]}


def _prompts(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "replies": [{name: _cut(text) for name, text in each.items()} for each in found["replies"]]}


def _cut(text: str) -> str:
    more = len(text) - _MOST_REFLECTED
    return text if more <= 0 else f"{text[:_MOST_REFLECTED]}... ({more} more characters are not in this file)"


def _shorten(tokens: dict[str, Any]) -> dict[str, Any]:
    """Log-probabilities and advantages with the six digits that a float32 has, instead of seventeen."""
    for row in tokens["rows"]:
        for name in ("logprobs", "advantages"):
            if row[name] is not None:
                row[name] = [each if each is None else float(f"{each:.6g}") for each in row[name]]
    return tokens


def _comparison(runs: Runs, names: list[str]) -> dict[str, Any]:
    """What the view of comparisons says of each pair."""
    whole = answer("compare", runs, ViewQuery(urlencode({"run": names}, doseq=True)))
    pairs = [(first, other) for first in names for other in names if first != other]
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for first, other in pairs:
        both = answer("compare", runs, ViewQuery(urlencode({"run": [first, other]}, doseq=True)))
        found[first][other] = both["runs"][1]["difference"]
    kept = {each["name"]: {name: each[name] for name in ("status", "held_out")} for each in whole["runs"]}
    return {"names": names, "runs": kept, "settings": whole["settings"], "differences": found}
