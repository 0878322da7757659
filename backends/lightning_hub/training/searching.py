"""Searching: what the hub does for a backend that looks for better texts instead of training a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_hub.backend import CallMeter, SearchRollout
from lightning_hub.feed import Feed
from lightning_hub.results.run_folder import RunFolder
from lightning_hub.rollout import Rollout
from lightning_hub.rollouts.plan import Plan
from lightning_hub.rollouts.rounds import Rounds, Stopped
from lightning_sdk.errors import RolloutsFailed
from lightning_sdk.hub.events import EvaluationEvent, NoticeEvent
from lightning_sdk.prompts.text_check import TextCheck
from lightning_sdk.rollouts.tasks import Task
from lightning_sdk.trace.call import Status


class PlanSearch:
    """The `SearchHost` of one plan."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        rounds: Rounds,
        feed: Feed,
        stopping: threading.Event,
        measure: Callable[[], None],
        note: Callable[[int, int, Mapping[str, float]], None],
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings, self.held_out, self.folder = plan.settings, len(plan.held_out), folder
        self.tasks: Sequence[Task] = plan.tasks
        self.marks: Mapping[str, str] = plan.marks
        declared = [role for role, trained in plan.declared_roles.items() if trained]
        self.roles = plan.settings.roles or tuple(declared)
        self.measure, self.earlier = measure, earlier
        self.text_check = TextCheck(plan.tasks, plan.settings.prompts.max_length)
        self._checked: set[str] = set()
        """Ids of candidates that were looked at."""
        self.endpoint = rounds.endpoint
        self._plan, self._rounds, self._feed, self._stopping, self._note = plan, rounds, feed, stopping, note
        self._count, self._metered = 0, False

    def meter_calls(self, meter: CallMeter) -> None:
        """Let it decide on every request of the rollouts that are run from now on."""
        self._rounds.meter_calls(meter)
        self._metered = True

    def run(self, rollouts: Sequence[SearchRollout], on_end: Callable[[int, Rollout], None]) -> None:
        """Run them with the hub's retries and limits.

        Raises:
            PromptError: a candidate has a text that cannot stand in the place of the agent's own.
            RolloutsFailed: nothing but failures came, none of them the agent's own.
        """
        self._count += 1
        for each in rollouts:
            if each.candidate is not None and each.candidate.id not in self._checked:
                self.text_check.refuse_candidate(each.candidate)
                self._checked.add(each.candidate.id)
        assignments = self._plan.of_search(rollouts, self.endpoint, metered=self._metered)
        places = {each.id: place for place, each in enumerate(assignments)}
        round_ = self._rounds.search(
            assignments, f"round of rollouts {self._count}", lambda rollout: on_end(places[rollout.id], rollout)
        )
        first = round_.rollouts[0]
        if all(each.status == Status.INFRASTRUCTURE_ERROR for each in round_.rollouts):
            raise RolloutsFailed(f"all {len(assignments)} rollouts of {round_.name} failed: {first.error}")

    def note_round(self, number: int, metrics: Mapping[str, float]) -> None:
        self._note(number, number, metrics)

    def tell(self, text: str) -> None:
        self._feed.publish(NoticeEvent(text))

    def check(self) -> None:
        if self._stopping.is_set():
            raise Stopped


def keep_score(folder: RunFolder, feed: Feed, step: int) -> bool:
    """The texts are kept, so the score before is the one after; whether there is one."""
    if (kept := folder.keep_score(step)) is None:
        return False
    feed.publish(NoticeEvent("the texts are kept, and so is their score: the held-out tasks are not run again"))
    feed.publish(EvaluationEvent(kept.name, kept.summary()))
    return True
