"""Tuning: what the backend does for a run, from finding the texts to the candidate that the hub scores at the end."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict

from lightning_hub.backend import SearchEnding, SearchHost
from lightning_prompts.announcements import describe_outcome, describe_plan
from lightning_prompts.apo import Apo
from lightning_prompts.arena import Trial, TrialResult
from lightning_prompts.budget import allowance_of, open_meter
from lightning_prompts.first_rollouts import find_texts
from lightning_prompts.hub_arena import HubArena, to_sdk
from lightning_prompts.journal import Journal
from lightning_prompts.model_check import check_model
from lightning_prompts.parts import divide_tasks
from lightning_prompts.problem import Problem, Search, SearchOptions
from lightning_prompts.reflecting_model import open_model
from lightning_prompts.search import Hooks, run_search
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status


def tune(host: SearchHost) -> SearchEnding:
    """Carry out the search of a run, going on where an earlier session stopped.

    Raises:
        SettingError: the reflecting model, or the library of the algorithm, is not there, or what calls can take is
            not known.
        NothingToTrain: a role has no text that could be tuned.
        RolloutsFailed: the first rollouts failed.
    """
    settings = host.settings.prompts
    algorithm, model = _algorithm(settings.algorithm), open_model(settings, host.endpoint)
    journal = Journal(host.folder / "search.jsonl")
    parts = divide_tasks(host.tasks, settings.reflection, host.settings.seed)
    meter = open_meter(host.settings, host.folder)
    if meter is not None:
        meter.refuse_unpriced(model.model)
        host.meter_calls(meter)
    check_model(model, journal, meter, host)
    components = find_texts(host, journal, parts, meter)
    host.tell(describe_plan(host, components, parts, model.model, journal.results.values()))
    host.measure()
    rounds = _Rounds(host)
    outcome = run_search(
        algorithm,
        components=components,
        parts=parts,
        arena=HubArena(host, components, meter),
        model=model,
        journal=journal,
        options=search_options(host.settings),
        allowance=allowance_of(host.settings),
        check=host.text_check,
        seeds=settings.seeds,
        meter=meter,
        hooks=Hooks(rounds.begin, rounds.add, rounds.end, host.check, host.tell),
        texts=host.earlier["texts"] if host.earlier else None,
    )
    rounds.close()
    host.tell(describe_outcome(outcome, "the texts it began with" if host.earlier else "the agent's own texts"))
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
        pool, spent = problem.pool, problem.ledger.total()
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
            "money_spent": spent.money,
            "reflections": spent.reflections,
            "seconds": round(problem.ledger.seconds - self._seconds, 3),
        }
