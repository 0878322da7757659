"""The first rollouts: they show the texts of the agent before anything is searched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from lightning_hub.backend import SearchHost, SearchRollout
from lightning_hub.rollout import Rollout
from lightning_prompts.arena import Trial
from lightning_prompts.candidate import Component, PromptCandidate
from lightning_prompts.ending import SearchEnd
from lightning_prompts.hub_arena import read_result, run_metered
from lightning_prompts.journal import Journal
from lightning_prompts.meter import Meter
from lightning_prompts.parts import TaskParts
from lightning_prompts.texts import find_components, find_silent_roles
from lightning_sdk.errors import NothingToTrain, RolloutsFailed, SettingError
from lightning_sdk.results.quantity import quantity
from lightning_sdk.stream import notices
from lightning_sdk.trace.call import Status

_FIRST_ROLLOUTS = 6
"""They are the first ones of the search."""


def find_texts(host: SearchHost, journal: Journal, parts: TaskParts, meter: Meter | None) -> list[Component]:
    """The texts of the run, which stay those that its first session, or an earlier search of it, found."""
    if host.earlier:
        found = host.earlier["components"]
    else:
        found = journal.fact("components", lambda: [asdict(each) for each in _look(host, journal, parts, meter)])
    return [Component(**{**each, "roles": tuple(each["roles"])}) for each in found]


def _find_marks(rollouts: Iterable[Rollout]) -> dict[str, str]:
    """Name -> text, of texts that were marked while these ran, also for the first time."""
    spans = [span for each in rollouts for span in each.spans if span.name == notices.MARKED]
    return {str(each.attributes[notices.MARK]): str(each.attributes[notices.TEXT]) for each in spans}


def _look(host: SearchHost, journal: Journal, parts: TaskParts, meter: Meter | None) -> list[Component]:
    tasks = parts.selection[: min(_FIRST_ROLLOUTS, host.settings.prompts.budget_rollouts)]
    rollouts: dict[int, Rollout] = {}
    asked = [SearchRollout(task, None, "first", shows_marks=True) for task in tasks]
    try:
        run_metered(host, asked, lambda place, rollout: rollouts.update({place: rollout}), meter)
    except SearchEnd as end:
        raise SettingError(f"the first rollouts, which show the agent's texts, need more: {end.text}") from None
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
    marks = {**host.marks, **_find_marks(rollouts.values())}
    components = find_components(whole, host.roles, marks, tools=host.settings.prompts.tool_descriptions)
    if not host.roles and (silent := find_silent_roles(whole, components)):
        names = ", ".join(map(repr, silent))
        host.tell(
            f"not tuned: {names}, whose requests have no instruction that could be tuned; if it stands in what the "
            "user says, mark it with lightning.prompt"
        )
    # They are what the search would run first: its seed on selection tasks.
    seed = PromptCandidate({each.name: each.text for each in components})
    for place, rollout in sorted(rollouts.items()):
        journal.add_result(Trial(seed, tasks[place]).key, read_result(rollout, host.settings, meter))
    return components
