"""The dataset of a distillation: the successful rollouts of the texts that stored runs chose, without these texts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_hub.backend import Endpoint
from lightning_hub.replay.distillation import NotShortened, PromptTokens, Renderer, TunedTexts, shorten
from lightning_hub.replay.replay_dataset import ChosenParts, ReplayDataset, StoredGroup
from lightning_hub.replay.stored_run import StoredRollout, StoredRun
from lightning_hub.rollouts.plan import Plan
from lightning_hub.trajectories.role_rollout import RoleRollout, role_rollouts
from lightning_sdk.errors import NothingToTrain
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.settings import Settings

_OTHER_TEXTS = "they had other texts than those that were chosen"
_NO_SUCCESS = "they earned no more than the agent's own texts on average, or there were better ones of their task"


class DistillDataset(ReplayDataset):
    """Groups of the tuned agent's rollouts of one task. `prepare` has to be called before `draw`."""

    def __init__(
        self,
        folders: Sequence[Path],
        settings: Settings,
        held_out: Iterable[Mapping[str, Any]],
        declared: Mapping[str, bool],
    ) -> None:
        """As `ReplayDataset`. SettingError for a run that chose no other texts than the agent's own."""
        self._texts: dict[int, TunedTexts] = {}
        """Of each run, by its id()."""
        self._own: dict[int, dict[str, float]] = {}
        """What each role earned with the agent's own texts, on average, by the run's id()."""
        self._parts: dict[int, list[RoleRollout]] = {}
        """What is learned from each group, by its id()."""
        self.prompt_tokens = PromptTokens()
        super().__init__(folders, settings, held_out, declared)

    @property
    def candidate(self) -> Candidate | None:
        """The texts that are distilled, to be scored beside the agent's own; None if several runs chose several."""
        found = {each.tuned.id: each.tuned for each in self._texts.values()}
        return next(iter(found.values())) if len(found) == 1 else None

    def prepare(self, endpoint: Endpoint | None) -> None:
        """Find what is learned from, and have the engine render its prompts without the tuned texts.

        Raises:
            NothingToTrain: nothing is left.
        """
        assert endpoint is not None  # a backend that learns from stored rollouts serves its model
        renderer = Renderer(endpoint)
        for group in self.groups:
            kept = []
            for part in self._successful(group):
                try:
                    kept.append(shorten(part, self._texts[id(group.run)], renderer, self.prompt_tokens))
                except NotShortened as error:
                    self.left_out[str(error)] += 1
            self._parts[id(group)] = kept
        self.groups = [group for group in self.groups if self._parts[id(group)]]
        if not self.groups:
            raise NothingToTrain(f"nothing can be distilled: {self.describe_left_out()}")

    def facts(self) -> dict[str, str | int | float]:
        names = ", ".join(dict.fromkeys(each.tuned.id for each in self._texts.values()))
        return {**super().facts(), "distilled_candidate": names, **self.prompt_tokens.facts()}

    # --- what the base class asks

    def _groups_of(self, run: StoredRun, withheld: set[str]) -> Iterator[StoredGroup]:
        """By task, whatever group of the stored run a rollout belonged to."""
        texts = self._texts[id(run)] = TunedTexts.of_run(run)
        own: list[RoleRollout] = []
        by_task: dict[str, list[StoredRollout]] = defaultdict(list)
        settings = self._settings
        for group in super()._groups_of(run, withheld):
            settings = group.settings
            for record in group.records:
                rollout = run.rollout(record)
                had = {call.meta.candidate for call in rollout.calls if call.meta.trainable} if rollout else set()
                if had == {texts.tuned.id}:
                    by_task[record.task].append(record)
                elif had == {""} and rollout is not None:
                    own += role_rollouts([rollout], settings, supervised=True)[0]
                else:
                    self.left_out[_OTHER_TEXTS] += 1
        self._own[id(run)] = _means(own)
        for records in by_task.values():
            yield StoredGroup(run, tuple(records), settings)

    def _has_signal(self, group: StoredGroup) -> bool:
        """Their calls have to be read for that: see `prepare`."""
        return True

    def _role_rollouts(self, group: StoredGroup) -> tuple[list[RoleRollout], list[str]]:
        return self._parts[id(group)], []

    def _prefer(self, of_role: list[RoleRollout], chosen: ChosenParts) -> None:
        for part in of_role:
            chosen.add(part)

    def _successful(self, group: StoredGroup) -> Iterator[RoleRollout]:
        """The best of a task for each role, of those that earned enough."""
        done, problems = super()._role_rollouts(group)
        self.left_out += Counter({"a call of theirs cannot be used": len(problems)})
        by_role: dict[str, list[tuple[float, int, RoleRollout]]] = defaultdict(list)
        least, own = self._settings.stored.min_reward, self._own[id(group.run)]
        for place, part in enumerate(done):
            if not self._is_trained(part.role) or part.reward is None:
                continue
            bound = own.get(part.role)
            if part.reward >= least if least is not None else bound is None or part.reward > bound:
                by_role[part.role].append((-part.reward, place, part))
        kept = [part for found in by_role.values() for _, _, part in sorted(found)[: self._settings.stored.best]]
        self.left_out += Counter({_NO_SUCCESS: len(done) - len(kept)})
        yield from kept


def open_dataset(plan: Plan) -> ReplayDataset:
    """The dataset that `stored.method` asks for, for the runs of a plan; errors as of `ReplayDataset`."""
    kind = DistillDataset if plan.settings.stored.method == "distill" else ReplayDataset
    return kind(list(map(Path, plan.from_runs)), plan.settings, plan.reserved, plan.declared_roles)


def _means(parts: Sequence[RoleRollout]) -> dict[str, float]:
    """Role -> mean reward."""
    earned: dict[str, list[float]] = defaultdict(list)
    for part in parts:
        if part.reward is not None:
            earned[part.role].append(part.reward)
    return {role: sum(values) / len(values) for role, values in earned.items()}
