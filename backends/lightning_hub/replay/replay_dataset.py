"""The replay dataset: stored rollouts of earlier runs, in groups, from which the batches of a training run are made.

Rows hold the tokens that were stored, so a run whose model had another tokenizer is refused. A rollout whose task this
run measures itself on is never learned from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lightning_hub.backend import Batch, Endpoint, Objective, Pair, Row
from lightning_hub.credit.advantages import RoleAdvantages
from lightning_hub.credit.batch import is_scheduled, rows_of, token_weights
from lightning_hub.replay import selection
from lightning_hub.replay.stored_run import StoredRollout, StoredRun, canonical
from lightning_hub.trajectories.rewards import total_reward
from lightning_hub.trajectories.role_rollout import RoleRollout, role_rollouts
from lightning_sdk.errors import NothingToTrain, SettingError
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.results.quantity import quantity
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status

#: Settings of rollouts that are run and of the policy's loss.
_POLICY = frozenset({
    "credit.advantage", "credit.returns", "credit.discount", "credit.momentum", "algorithm.loss", "algorithm.clip_low",
    "algorithm.clip_high", "algorithm.clip_dual", "algorithm.entropy", "algorithm.dynamic_sampling", "divergence.*",
    "importance.*", "value.*", "rollouts.group_size", "rollouts.staleness", "sampling.temperature",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """Rollouts of one task that are compared with each other, in the order in which they began."""

    run: StoredRun
    records: tuple[StoredRollout, ...]
    settings: Settings
    """This run's; rewards that it does not weigh have the weights that they had when they were stored."""


@dataclass(frozen=True, slots=True)
class ReplayBatch:
    """What one step learns from."""

    batch: Batch
    metrics: dict[str, float]
    """rows, tokens_trained, tokens_context, rollouts_used, groups_used, groups_skipped, calls_unusable, pairs (of
    'dpo'), and by role rows/ROLE, tokens_trained/ROLE."""


@dataclass(slots=True, kw_only=True)
class ChosenParts:
    """Parts that a step learns from, and how."""

    parts: list[RoleRollout] = field(default_factory=list)
    signs: dict[int, float] = field(default_factory=dict)
    """Of each part, by its id: 1, or -1 where it is rejected."""
    pairs: list[Pair] = field(default_factory=list)
    used: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)
    """Why calls cannot be used."""
    spoke: set[str] = field(default_factory=set)
    """Roles of trainable calls."""

    def add(self, part: RoleRollout, sign: float = 1.0) -> None:
        self.parts.append(part)
        self.signs[id(part)] = sign


def without_effect(settings: Settings) -> list[str]:
    """Changed settings that say nothing about learning from stored rollouts."""
    method = settings.stored.method
    idle = {*_POLICY, "stored.beta" if method != "dpo" else "stored.min_reward"}
    idle |= set() if method in {"rejection", "distill"} else {"stored.best"}
    idle |= {"algorithm.aggregation"} if method == "dpo" else set()
    names = settings.changes()
    return sorted(name for name in names if name in idle or f"{name.partition('.')[0]}.*" in idle)


class ReplayDataset:
    """Groups of several runs. One thread."""

    def __init__(
        self,
        folders: Sequence[Path],
        settings: Settings,
        held_out: Iterable[Mapping[str, Any]],
        declared: Mapping[str, bool],
    ) -> None:
        """`declared`: role -> trainable, as far as they are known. SettingError for a folder that holds no run,
        NothingToTrain if nothing can be learned from what they hold."""
        self._settings, self._declared = settings, declared
        self._stack = ExitStack()
        self.left_out: Counter[str] = Counter()
        """Why rollouts are not learned from -> how many."""
        try:
            self.runs = [self._stack.enter_context(StoredRun(folder)) for folder in folders]
            withheld = {canonical(task) for task in held_out}
            found = [group for run in self.runs for group in self._groups_of(run, withheld)]
            self.groups = [group for group in found if self._has_signal(group)]
            silent = sum(len(group.records) for group in found) - self.rollouts
            self.left_out += Counter({f"{settings.stored.method} learns nothing from their group": silent})
            if not self.groups:
                told = self.describe_left_out() or "they have no training rollouts"
                raise NothingToTrain(f"nothing can be learned from {', '.join(map(str, folders))}: {told}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stack.close()

    @property
    def rollouts(self) -> int:
        """How many rollouts the groups have."""
        return sum(len(group.records) for group in self.groups)

    def describe_left_out(self) -> str:
        """What is left out, in words; '' if nothing is."""
        return ", ".join(f"{quantity(count, 'rollout')} left out because {why}" for why, count in self.left_out.items())

    def describe(self) -> str:
        """What is learned from, in words."""
        names = ", ".join(run.folder.name for run in self.runs)
        groups = quantity(len(self.groups), "group")
        left_out = f"; {self.describe_left_out()}" if self.left_out else ""
        return f"learning from {quantity(self.rollouts, 'stored rollout')} in {groups} of {names}{left_out}"

    @property
    def candidate(self) -> Candidate | None:
        """Texts whose held-out score this training is to reach without them; None if there are none."""
        return None

    def prepare(self, endpoint: Endpoint | None) -> None:
        """Do what needs the running engine."""

    def facts(self) -> dict[str, str | int | float]:
        """For config.json."""
        return {
            "stored_groups": len(self.groups),
            "stored_rollouts": self.rollouts,
            "stored_left_out": self.describe_left_out(),
        }

    def refuse_other_tokenizers(self, tokenizer: str) -> None:
        """SettingError for a run whose ids another tokenizer made than the one with this fingerprint, '' if that is
        not known."""
        for run in self.runs:
            theirs = run.config.tokenizer
            if theirs == tokenizer if theirs and tokenizer else self._same_model(run):
                continue
            model = (run.config.settings or {}).get("model")
            known = (
                f"another tokenizer than {self._settings.model!r}"
                if theirs and tokenizer
                else "a tokenizer whose fingerprint was not kept"
            )
            raise SettingError(
                f"{run.folder} was recorded with model {model!r}, which has {known}: its token ids may mean something "
                f"else there, and stored text is never tokenised again. Train {model!r} or a checkpoint of that run: "
                f"--model {run.folder.name}/checkpoints/..."
            )

    def draw(self, step: int) -> ReplayBatch:
        """What a step (from 1) learns from: it depends on the stores, the seed and the step alone. A group comes once
        in a step. NothingToTrain if no role that is to be trained has a call in it that can be used."""
        count = self._settings.rollouts.tasks_per_step
        first = (step - 1) * count
        places = dict.fromkeys(self._group_at(first + place) for place in range(count))
        chosen = ChosenParts()
        for place in places:
            self._choose(self.groups[place], step, chosen)
        if not any(map(self._is_trained, chosen.spoke)):
            told = ", ".join(sorted(role or "no role" for role in chosen.spoke)) or "nobody"
            raise NothingToTrain(
                f"step {step}: in the stored rollouts of {quantity(len(places), 'group')} no role to train has a call "
                f"that can be used; the trainable calls are of {told}. {' '.join(chosen.problems[:1])}"
            )
        rows = self._rows(chosen)
        method = self._settings.stored.method
        objective = Objective.DPO if method == "dpo" else Objective.SFT
        return ReplayBatch(Batch(step, rows, objective, tuple(chosen.pairs)), _metrics(chosen, rows, method))

    # --- which groups

    def _groups_of(self, run: StoredRun, withheld: set[str]) -> Iterator[StoredGroup]:
        """The groups of a run's training rollouts that went well; what is left out is counted."""
        own = run.settings.credit.rewards
        credit = replace(self._settings.credit, rewards={**own, **self._settings.credit.rewards})
        settings = replace(self._settings, credit=credit)
        groups: dict[tuple[str, str], list[StoredRollout]] = {}
        for record in run.records():
            if record.entry.mode != "train":
                continue
            if why := _unfit(record, withheld, run.rescoring):
                self.left_out[why] += 1
            else:
                # A run that was resumed has a step's groups twice, by name.
                groups.setdefault((record.entry.group, record.task), []).append(record)
        for records in groups.values():
            yield StoredGroup(run, tuple(records), settings)

    def _has_signal(self, group: StoredGroup) -> bool:
        """Whether some role may learn from it, by its rewards alone: calls are read when they are needed."""
        if group.settings.length.limit:  # what is earned depends on the tokens
            return True
        scored = [record.rollout_without_calls for record in group.records]
        # '' stands for all that nobody has named so far.
        roles = {"", *self._declared, *self._settings.role, *self._settings.roles}
        roles |= {reward.role for each in scored for reward in each.rewards}
        return any(
            selection.has_signal([total_reward(each, role, credit) for each in scored], self._settings.stored)
            for role in roles
            if self._is_trained(role)
            for credit in [group.settings.credit_of(role)]
        )

    def _same_model(self, run: StoredRun) -> bool:
        """It is the run's own model, by its name, or a checkpoint of the run."""
        model = self._settings.model
        if (run.config.settings or {}).get("model") == model:
            return True
        path = Path(model).expanduser()
        return path.exists() and path.resolve().is_relative_to(run.folder.resolve())

    def _group_at(self, position: int) -> int:
        """Which group comes at `position` when each epoch has its own order."""
        epoch, place = divmod(position, len(self.groups))
        return int(np.random.default_rng((self._settings.seed, epoch)).permutation(len(self.groups))[place])

    # --- which rollouts

    def _choose(self, group: StoredGroup, step: int, chosen: ChosenParts) -> None:
        """What is learned from one group, by role."""
        done, problems = self._role_rollouts(group)
        chosen.problems += problems
        chosen.spoke |= {part.role for part in done if part.trajectories}
        by_role: dict[str, list[RoleRollout]] = {}
        for part in done:
            due = is_scheduled(part.credit.schedule, step) and part.credit.weight
            if due and self._is_trained(part.role) and any(mask.any() for mask in part.trained):
                by_role.setdefault(part.role, []).append(part)
        before = len(chosen.parts)
        for of_role in by_role.values():
            self._prefer(of_role, chosen)
        chosen.used += len(chosen.parts) > before
        chosen.skipped += len(chosen.parts) == before

    def _role_rollouts(self, group: StoredGroup) -> tuple[list[RoleRollout], list[str]]:
        """What each role did in a group's rollouts, and why calls cannot be used."""
        rollouts = [found for record in group.records if (found := group.run.rollout(record)) is not None]
        return role_rollouts(rollouts, group.settings, supervised=self._settings.stored.method == "distill")

    def _is_trained(self, role: str) -> bool:
        return role in self._settings.roles if self._settings.roles else self._declared.get(role, True)

    def _prefer(self, of_role: list[RoleRollout], chosen: ChosenParts) -> None:
        rewards = [part.reward for part in of_role]
        if self._settings.stored.method != "dpo":
            for place in selection.select(rewards, self._settings.stored):
                chosen.add(of_role[place])
        elif (found := selection.pair(rewards)) is not None:
            best, worst = of_role[found[0]], of_role[found[1]]
            chosen.add(best)
            chosen.add(worst, -1.0)
            chosen.pairs.append(Pair(best.role, best.rollout.id, worst.rollout.id))

    def _rows(self, chosen: ChosenParts) -> list[Row]:
        weights: dict[int, float] = {}
        if chosen.pairs:
            weights = {id(part): part.credit.weight / len(chosen.pairs) for part in chosen.parts}
        else:
            rollouts = len({part.rollout.id for part in chosen.parts})
            for role in {part.role for part in chosen.parts}:
                of_role = [part for part in chosen.parts if part.role == role]
                weights |= token_weights(of_role, self._settings, rollouts)
        rows = []
        for part in chosen.parts:
            advantages = [np.full(len(each.tokens), chosen.signs[id(part)], np.float32) for each in part.trajectories]
            rows += rows_of(RoleAdvantages(part, advantages), weights[id(part)])
        return rows


def _unfit(record: StoredRollout, withheld: set[str], rescoring: int) -> str:
    """Why a training rollout is not learned from, '' if it is."""
    if record.entry.status != Status.OK:
        return f"they ended with {record.entry.status.replace('_', ' ')}"
    if record.task in withheld:
        return "their task is held out"
    return "the run's last re-scoring did not score them" if record.rescoring != rescoring else ""


def _metrics(chosen: ChosenParts, rows: Sequence[Row], method: str) -> dict[str, float]:
    metrics: Counter[str] = Counter()
    for row in rows:
        trained = int(np.count_nonzero(row.weights))
        for name in ("", f"/{row.role or 'none'}"):
            metrics[f"rows{name}"] += 1
            metrics[f"tokens_trained{name}"] += trained
            metrics[f"tokens_context{name}"] += len(row.tokens) - trained
    told = {"rows": 0.0, "tokens_trained": 0.0, "tokens_context": 0.0} | {k: float(v) for k, v in metrics.items()}
    told |= {
        "rollouts_used": float(len({part.rollout.id for part in chosen.parts})),
        "groups_used": float(chosen.used),
        "groups_skipped": float(chosen.skipped),
        "calls_unusable": float(len(chosen.problems)),
    }
    return told | ({"pairs": float(len(chosen.pairs))} if method == "dpo" else {})
