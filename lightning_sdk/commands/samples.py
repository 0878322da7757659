"""Samples: a few rollouts of a step or an evaluation as text, good and bad ones, each with its reward and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_sdk.commands.run_views import RunViews
from lightning_sdk.commands.show_rollout import part_text
from lightning_sdk.errors import LightningError
from lightning_sdk.hub.events import EvaluationEvent, Event, StepEvent
from lightning_sdk.terminal.labelled import INDENT, label_lines
from lightning_sdk.terminal.numbers import format_number, format_score
from lightning_sdk.terminal.screen import Screen
from lightning_sdk.terminal.visible_text import make_line
from lightning_sdk.terminal.width import cut, wrap

#: Rollouts with the lowest reward among which one of the good one's task is looked for.
_MOST_CANDIDATES = 100
#: Lines of a task, of an answer and of an error. Of an answer its end is shown, where it comes to the point.
_TASK_LINES, _ANSWER_LINES, _ERROR_LINES = 2, 4, 2
_COLUMNS = 110
_LIVE = ("queued", "running")
_PATIENCE_SECONDS, _POLL_SECONDS = 5.0, 0.05


class SamplePrinter:
    """Shows samples of a run under way, after each step and each evaluation. Never raises: a training goes on."""

    def __init__(self, folder: Path, count: int, python: str, show: Callable[[str], None], screen: Screen) -> None:
        """`show` gets each sample as text. The run is opened when there is something to show of it."""
        self._folder, self._count, self._python = folder, count, python
        self._show, self._screen = show, screen
        self._views: RunViews | None = None
        self._broken = False

    def show(self, event: Event) -> None:
        """The samples of what an event tells of, if it tells of rollouts."""
        filters = find_filters(event)
        if self._broken or not self._count or filters is None:
            return
        try:
            self._views = self._views or RunViews([self._folder], self._python)
            for each in choose_samples(self._views, self._views.names[0], self._count, filters):
                self._show("\n".join(describe_sample(each, self._screen)))
        except LightningError as error:
            self._broken = True
            self._show(f"samples of rollouts are not shown: {error}")
        except KeyboardInterrupt:  # the answer on its way would be taken for that of the next question
            self.close()
            raise

    def close(self) -> None:
        """Idempotent."""
        self._broken = True
        if self._views is not None:
            self._views.close()


def find_filters(event: Event) -> dict[str, Any] | None:
    """The filters for the rollouts that an event tells of; None if it tells of none."""
    match event:
        case StepEvent(step=step):
            return {"mode": "train", "step": step}
        case EvaluationEvent(name=name):
            return {"mode": "evaluate", "evaluation": name}
        case _:
            return None


def choose_samples(views: RunViews, run: str, count: int, filters: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Up to `count` of the rollouts that match, as the view `rollout` answers: those with the highest rewards, and as
    many of those with the lowest, which are of the same task where that can be, for there they tell most."""
    if not count or filters is None:
        return []
    _wait_for_ends(views, run, filters)
    best = views.ask("rollouts", run, **filters, sort="reward", down=1, limit=count)["rows"]
    worst = views.ask("rollouts", run, **filters, sort="reward", down=0, limit=_MOST_CANDIDATES)["rows"]
    good = [each for each in best if each["reward"] is not None][: (count + 1) // 2]
    seen, tasks = {each["id"] for each in good}, {each["task_id"] for each in good}
    # Those that failed have no reward, and come last of all.
    worst = [each for each in worst if each["status"] not in _LIVE]
    worst.sort(key=lambda each: (each["reward"] is None, each["reward"] or 0.0, each["task_id"] not in tasks))
    bad = [each for each in worst if each["id"] not in seen][: count - len(good)]
    return [views.ask("rollout", run, rollout=each["id"]) for each in (*good, *bad)]


def _wait_for_ends(views: RunViews, run: str, filters: Mapping[str, Any]) -> None:
    """A hub tells of a step as soon as it is done, and stores the ends of its rollouts a moment later."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while views.ask("rollouts", run, **{**filters, "status": _LIVE, "limit": 1})["total"] and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)


def describe_sample(rollout: Mapping[str, Any], screen: Screen) -> list[str]:
    """Where it is from and what it earned, the task, the end of the answer, and each reward with its reason."""
    narrow = Screen(width=screen.room(_COLUMNS), colours=screen.colours, signs=screen.signs)
    place, room = rollout["place"] or {}, narrow.width - INDENT
    when = f"step {place['step']}" if place.get("step") is not None else place.get("evaluation", "")
    status = "" if rollout["status"] == "ok" else f", {rollout['status'].replace('_', ' ')}"
    head = f"{when}, reward {format_score(place.get('reward'))}{status}, rollout {rollout['id'][:8]}"
    lines = label_lines("sample", cut(make_line(head), room), narrow, "bold")
    lines += label_lines("task", _beginning(_question(rollout["task"]), room, _TASK_LINES), narrow)
    if answer := read_answer(rollout):
        lines += label_lines("answer", _end(answer, room, _ANSWER_LINES), narrow)
    if rollout["error"]:
        lines += label_lines("error", _end(rollout["error"], room, _ERROR_LINES), narrow, "red")
    for each in rollout["rewards"]:
        if each["counts"]:
            why = f": {each['why']}" if each["why"] else ""
            of = f" of {each['role']}" if each["role"] else ""
            told = f"{each['name']}{of} {format_number(each['value'])}{why}"
            lines += label_lines("reward", _beginning(told, room, _TASK_LINES), narrow)
    return lines


def read_answer(rollout: Mapping[str, Any]) -> str:
    """What the agent returned; where it returned nothing, the last thing that a model said."""
    if rollout["answer"]:
        return str(rollout["answer"])
    replies = [reply for turn in rollout["turns"] for reply in turn["replies"]]
    return "\n".join(map(part_text, replies[-1].get("parts") or ())) if replies else ""


def _question(task: Any) -> str:
    """The first text of a task, which is most often its question; all of it if it has none."""
    texts = [each for each in task.values() if isinstance(each, str)] if isinstance(task, dict) else []
    return texts[0] if texts else str(task)


def _beginning(text: str, width: int, most: int) -> str:
    return _cut_lines(wrap(text.strip(), width), most, "{} ...")


def _end(text: str, width: int, most: int) -> str:
    lines = wrap(text.strip(), width)
    return _cut_lines(lines[::-1], most, "... {}", reverse=True)


def _cut_lines(lines: Sequence[str], most: int, mark: str, *, reverse: bool = False) -> str:
    kept = list(lines[:most])
    if len(lines) > most:
        kept[-1] = mark.format(kept[-1])
    return "\n".join(reversed(kept) if reverse else kept)
