"""Settings that mean nothing to a search for texts, and are refused instead of ignored."""

from __future__ import annotations

from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_sdk.settings.provider import PROVIDER

_SAMPLED = "the agent's own requests say how its model samples"
_UNSERVED = "no model is served; name one with --model"
#: What they begin with -> why, if calls go to the agent's own provider.
_WITHOUT_ENGINE = {
    "sampling.": _SAMPLED,
    "evaluation.temperature": _SAMPLED,
    "engine": _UNSERVED,
    "serving.": _UNSERVED,
    "vllm.": _UNSERVED,
}
#: The same, if a model of ours answers them.
_WITH_ENGINE = {"sampling.temperature": "set evaluation.temperature, at which every rollout is sampled"}
#: The same in any case.
_WITHOUT_EFFECT = {
    "evaluation.every": "held-out tasks are scored before and after the search only",
    "length.": "it is about the tokens of trained rows",
    "algorithm.": "it is about the loss",
    "rollouts.tasks_per_step": "set prompts.minibatch and prompts.proposals",
    "rollouts.group_size": "set prompts.seeds",
    "rollouts.staleness": "no model is trained",
    "rollouts.deadline": "set prompts.budget_minutes",
    "failure.refills": "a candidate that failed on a task is not run on it again",
    "failure.flat_steps": "a search that gets nowhere ends by itself",
    "save_every": "a search is kept after every rollout",
}
#: Of `credit` and `role.NAME`, what counts for a search: which rewards make the score.
_KEPT = ("credit.rewards", "credit.rewards.")


def refuse_without_effect(settings: Settings) -> None:
    """SettingError for a changed setting that would do nothing."""
    values = settings.flat()
    idle = _WITHOUT_EFFECT | (_WITHOUT_ENGINE if settings.model == PROVIDER else _WITH_ENGINE)
    for name in settings.changes():
        why = next((why for prefix, why in idle.items() if name.startswith(prefix)), "")
        if name.startswith(("credit.", "role.")) and not name.startswith(_KEPT) and ".rewards." not in name:
            why = "it is about how tokens are weighed"
        if why:
            raise SettingError(f"setting {name}={values[name]!r}: backend 'prompts' does not use it: {why}")
