"""Announcements: what a search tells the user before it starts and when it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lightning_hub.backend import SearchHost
from lightning_hub.statistics.interval import difference
from lightning_hub.statistics.looks import PLANNED_LOOK
from lightning_hub.statistics.reward_range import reward_range
from lightning_prompts.arena import TrialResult
from lightning_prompts.candidate import Component
from lightning_prompts.parts import TaskParts
from lightning_prompts.search import SearchOutcome
from lightning_sdk.results.quantity import quantity
from lightning_sdk.settings import Settings


def describe_plan(
    host: SearchHost, components: Sequence[Component], parts: TaskParts, model: str, first: Iterable[TrialResult]
) -> str:
    """What is tuned, what it costs at most, and what can be shown in the end.

    Args:
        model: Name of the reflecting model.
        first: Results of the first rollouts.
    """
    settings, own = host.settings, host.settings.prompts
    names = ", ".join(f"{each.name} ({len(each.text):,} characters)" for each in components)
    also = [
        f"{value:g} {what}"
        for what, value in (("calls", own.budget_calls), ("tokens", own.budget_tokens), ("minutes", own.budget_minutes))
        if value
    ]
    also += [f"${own.budget_money:g}"] if own.budget_money else []
    most = "".join(f", {each}" for each in also)
    held_out = quantity(host.held_out * settings.evaluation.seeds, "rollout")
    lines = [
        f"tuning {names}",
        f"{quantity(len(parts.reflection), 'task')} to reflect on, {len(parts.selection)} to select with"
        + (f", {host.held_out} held out" if host.held_out else ""),
        f"at most {quantity(own.budget_rollouts, 'rollout')}{most} for the search"
        + (f", and 2 x {held_out} on held-out tasks" if host.held_out else ""),
        f"at most {quantity(settings.steps, 'round')} of {quantity(own.proposals, 'proposal')} by {model}",
        *_describe_first(list(first), own.budget_rollouts),
    ]
    if host.endpoint is not None:
        lines.append(f"the calls of these roles are answered by {host.endpoint.model}")
    if host.held_out:
        lines.append(f"on {quantity(host.held_out, 'held-out task')} {describe_power(host.held_out, settings)}")
    return "\n  ".join(lines)


def _describe_first(results: Sequence[TrialResult], rollouts: int) -> Iterator[str]:
    """What the rollouts of the search would take if all were like the most expensive one so far."""
    calls, tokens = (max((getattr(each, name) for each in results), default=0) for name in ("calls", "tokens"))
    money = max((each.money for each in results), default=0.0)
    if calls:
        one, all_ = (
            f"{quantity(count * calls, 'call')}, {quantity(count * tokens, 'token')}"
            + (f" and ${count * money:.4g}" if money else "")
            for count in (1, rollouts)
        )
        yield f"a rollout took up to {one} so far, so {quantity(rollouts, 'rollout')} could take {all_}"


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


def describe_outcome(outcome: SearchOutcome, began_with: str) -> str:
    """How the search ended. `began_with`: what it calls the texts that it began with."""
    spent = outcome.spent
    paid = f"{quantity(spent.rollouts, 'rollout')}, {quantity(spent.reflections, 'call')} of the reflecting model"
    paid += f", ${spent.money:.4g}" if spent.money else ""
    told = f"the search ended: {outcome.ended} ({paid})"
    if outcome.nothing:
        return f"{told}\n  the texts stay as they are: {outcome.nothing}"
    return (
        f"{told}\n  chosen: candidate {outcome.chosen.id}, {outcome.score:.3f} on the selection tasks, where "
        f"{began_with} have {outcome.seed_score:.3f}; the best of {outcome.compared} candidates that are equally "
        f"good would seem {outcome.luck:.3f} better than they are"
    )
