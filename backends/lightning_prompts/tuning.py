"""Tuning: what the backend does for a run, from finding the texts to the candidate that the hub scores at the end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from lightning_hub.backend import SearchEnding, SearchHost, SearchRollout
from lightning_hub.rollout import Rollout
from lightning_hub.statistics.interval import difference
from lightning_hub.statistics.looks import PLANNED_LOOK
from lightning_hub.statistics.reward_range import reward_range
from lightning_prompts.apo import Apo
from lightning_prompts.arena import Trial, TrialResult
from lightning_prompts.candidate import Component, PromptCandidate
from lightning_prompts.hub_arena import HubArena, read_result, to_sdk
from lightning_prompts.journal import Journal
from lightning_prompts.ledger import Allowance
from lightning_prompts.parts import TaskParts, divide_tasks
from lightning_prompts.problem import Problem, Search, SearchOptions
from lightning_prompts.reflecting_model import HttpModel, open_model
from lightning_prompts.search import Hooks, SearchOutcome, run_search
from lightning_prompts.texts import find_components, find_silent_roles
from lightning_sdk.errors import NothingToTrain, RolloutsFailed, SettingError
from lightning_sdk.results.quantity import quantity
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status

_FIRST_ROLLOUTS = 6
"""Rollouts that show the agent's texts; they are the first ones of the search."""


def tune(host: SearchHost) -> SearchEnding:
    """Carry out the search of a run, going on where an earlier session stopped.

    Raises:
        SettingError: the reflecting model, or the library of the algorithm, is not there.
        NothingToTrain: a role has no text that could be tuned.
        RolloutsFailed: the first rollouts failed.
    """
    settings = host.settings.prompts
    algorithm, model = _algorithm(settings.algorithm), open_model(settings, host.endpoint)
    journal = Journal(host.folder / "search.jsonl")
    parts = divide_tasks(host.tasks, settings.reflection, host.settings.seed)
    components = _find_components(host, journal, parts)
    host.tell(describe_plan(host, components, parts, model))
    host.measure()
    rounds = _Rounds(host)
    outcome = run_search(
        algorithm,
        components=components,
        parts=parts,
        arena=HubArena(host, components),
        model=model,
        journal=journal,
        options=search_options(host.settings),
        allowance=allowance_of(host.settings),
        max_length=settings.max_length,
        seeds=settings.seeds,
        hooks=Hooks(rounds.begin, rounds.add, rounds.end, host.check, host.tell),
    )
    rounds.close()
    host.tell(describe_outcome(outcome))
    summary = {
        "algorithm": settings.algorithm,
        "reflect_with": model.name,
        "components": [asdict(each) for each in components],
        "tasks": {"reflection": len(parts.reflection), "selection": len(parts.selection)},
        "allowance": asdict(allowance_of(host.settings)),
        **outcome.as_dict(),
    }
    return SearchEnding(to_sdk(outcome.chosen, components), summary)


def _algorithm(name: str) -> Search:
    if name == "apo":
        return Apo()
    try:
        from lightning_prompts.reflective import Reflective  # noqa: PLC0415 - its library is an extra
    except ImportError as error:
        raise SettingError(
            f"setting prompts.algorithm={name!r}: {error}; pip install 'lightning-agent-sdk[prompts]', or set "
            "prompts.algorithm=apo"
        ) from None
    return Reflective()


def search_options(settings: Settings) -> SearchOptions:
    own = settings.prompts
    low, high = settings.evaluation.reward_range or (0.0, 1.0)
    return SearchOptions(
        rounds=settings.steps,
        proposals=own.proposals,
        minibatch=own.minibatch,
        beam=own.beam,
        length_penalty=own.length_penalty,
        seed=settings.seed,
        perfect=high,
        lowest=low,
    )


def allowance_of(settings: Settings) -> Allowance:
    own = settings.prompts
    return Allowance(
        rollouts=own.budget_rollouts,
        calls=own.budget_calls,
        tokens=own.budget_tokens,
        minutes=own.budget_minutes,
    )


def _find_components(host: SearchHost, journal: Journal, parts: TaskParts) -> list[Component]:
    """The texts of the run, which stay those that its first session found."""
    found = journal.fact("components", lambda: [asdict(each) for each in _look_for_components(host, journal, parts)])
    return [Component(**{**each, "roles": tuple(each["roles"])}) for each in found]


def _look_for_components(host: SearchHost, journal: Journal, parts: TaskParts) -> list[Component]:
    tasks = parts.selection[: min(_FIRST_ROLLOUTS, host.settings.prompts.budget_rollouts)]
    rollouts: dict[int, Rollout] = {}
    asked = [SearchRollout(task, None, "first") for task in tasks]
    host.run(asked, lambda place, rollout: rollouts.update({place: rollout}))
    whole = [rollouts[place] for place in sorted(rollouts) if rollouts[place].status == Status.OK]
    if not whole:
        raise RolloutsFailed(
            f"all {len(tasks)} first rollouts failed, so nothing is known of the agent's texts: {rollouts[0].error}"
        )
    if host.endpoint is not None and not any(call.meta.trainable for each in whole for call in each.calls):
        raise NothingToTrain(
            f"no call of the first {quantity(len(whole), 'rollout')} went to {host.endpoint.model}, the model of this "
            "run: name the roles that it is to answer (--roles), or mark them with trainable=True; without --model, "
            "calls go to the agent's own provider"
        )
    components = find_components(whole, host.roles, host.marks)
    if not host.roles and (silent := find_silent_roles(whole, components)):
        names = ", ".join(map(repr, silent))
        host.tell(
            f"not tuned: {names}, whose requests have no instruction that could be tuned; if it stands in what the "
            "user says, mark it with lightning.prompt"
        )
    # They are what the search would run first: its seed on selection tasks.
    seed = PromptCandidate({each.name: each.text for each in components})
    for place, rollout in sorted(rollouts.items()):
        journal.add_result(Trial(seed, tasks[place]).key, read_result(rollout, host.settings))
    return components


class _Rounds:
    """Keeps the account of each round for the run's folder."""

    def __init__(self, host: SearchHost) -> None:
        self._host = host
        self._problem: Problem | None = None
        self._results: list[TrialResult] = []
        """Of the round under way."""
        self._seconds = 0.0
        self._last = 0

    def begin(self, problem: Problem) -> None:
        self._problem, self._seconds = problem, problem.ledger.seconds

    def add(self, trial: Trial, result: TrialResult) -> None:
        self._results.append(result)

    def end(self, number: int) -> None:
        assert self._problem is not None
        self._problem.pool.write(self._host.folder / "candidates.jsonl")
        self._host.note_round(number, self._metrics(self._problem))
        self._results, self._seconds, self._last = [], self._problem.ledger.seconds, number

    def close(self) -> None:
        """Account for the round that the search ended in."""
        if self._results or not self._last:
            self.end(self._last + 1)
        elif self._problem is not None:
            self._problem.pool.write(self._host.folder / "candidates.jsonl")

    def _metrics(self, problem: Problem) -> dict[str, float]:
        pool, spent = problem.pool, problem.ledger.spent
        scores = [each.score for each in self._results if each.score is not None]
        means = [mean for each in pool.usable if (mean := pool.mean(each, "selection")[0]) is not None]
        statuses = Counter(each.status for each in self._results)
        return {
            "reward_mean": math.fsum(scores) / len(scores) if scores else math.nan,
            **({"reward_min": min(scores), "reward_max": max(scores)} if scores else {}),
            **{f"rollouts_{status}": statuses[status] for status in Status},
            "selection_best": max(means, default=math.nan),
            "candidates": len(pool.by_id),
            "candidates_accepted": len(pool.usable) - 1,
            "candidates_refused": pool.counts.get("refused", 0),
            "rollouts_spent": spent.rollouts,
            "calls_spent": spent.calls,
            "tokens_spent": spent.tokens,
            "reflections": spent.reflections,
            "seconds": round(problem.ledger.seconds - self._seconds, 3),
        }


# --- in words


def describe_plan(host: SearchHost, components: Sequence[Component], parts: TaskParts, model: HttpModel) -> str:
    """What is tuned, what it costs at most, and what can be shown in the end."""
    settings, own = host.settings, host.settings.prompts
    names = ", ".join(f"{each.name} ({len(each.text):,} characters)" for each in components)
    also = [
        f"{value:g} {what}"
        for what, value in (("calls", own.budget_calls), ("tokens", own.budget_tokens), ("minutes", own.budget_minutes))
        if value
    ]
    most = "".join(f", {each}" for each in also)
    lines = [
        f"tuning {names}",
        f"{quantity(len(parts.reflection), 'task')} to reflect on, {len(parts.selection)} to select with, "
        f"{host.held_out} held out",
        f"at most {quantity(own.budget_rollouts, 'rollout')}{most} for the search, and 2 x "
        f"{quantity(host.held_out * settings.evaluation.seeds, 'rollout')} on held-out tasks",
        f"at most {quantity(settings.steps, 'round')} of {quantity(own.proposals, 'proposal')} by {model.model}",
    ]
    if host.endpoint is not None:
        lines.append(f"the calls of these roles are answered by {host.endpoint.model}, which is not trained")
    if host.held_out:
        lines.append(f"on {quantity(host.held_out, 'held-out task')} {describe_power(host.held_out, settings)}")
    return "\n  ".join(lines)


def describe_power(tasks: int, settings: Settings) -> str:
    """What gain so many tasks can show."""
    gain = smallest_gain(tasks, settings)
    if gain is None:
        return "no gain can be shown, however large: hold out more (evaluation.split, --held-out)"
    return f"a gain of about {gain:.2g} or more can be shown, if no task gets worse"


def smallest_gain(tasks: int, settings: Settings) -> float | None:
    """The smallest mean gain whose interval would lie above 0, where single tasks go from the lowest to the highest
    reward and none gets worse. None if not even all of them would be enough."""
    within = reward_range([0.0, 1.0], settings.evaluation.reward_range)
    low, high = (within.low, within.high) if within else (0.0, 1.0)
    for better in range(1, tasks + 1):
        after = [high] * better + [low] * (tasks - better)
        if difference([low] * tasks, after, PLANNED_LOOK.level, within).is_above(0):
            return (high - low) * better / tasks
    return None


def describe_outcome(outcome: SearchOutcome) -> str:
    """How the search ended."""
    spent = outcome.spent
    paid = f"{quantity(spent.rollouts, 'rollout')}, {quantity(spent.reflections, 'call')} of the reflecting model"
    told = f"the search ended: {outcome.ended} ({paid})"
    if outcome.nothing:
        return f"{told}\n  the texts stay as they are: {outcome.nothing}"
    return (
        f"{told}\n  chosen: candidate {outcome.chosen.id}, {outcome.score:.3f} on the selection tasks, where the "
        f"agent's own texts have {outcome.seed_score:.3f}; the best of {outcome.compared} candidates that are equally "
        f"good would seem {outcome.luck:.3f} better than they are"
    )
