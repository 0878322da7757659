"""Settings that mean nothing to a search for texts, and are refused instead of ignored."""

from __future__ import annotations

from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings

#: What they begin with -> why.
_WITHOUT_EFFECT = {
    "sampling.": "the agent's own requests say how its model samples",
    "evaluation.temperature": "the agent's own requests say how its model samples",
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
    for name in settings.changes():
        why = next((why for prefix, why in _WITHOUT_EFFECT.items() if name.startswith(prefix)), "")
        if name.startswith(("credit.", "role.")) and not name.startswith(_KEPT) and ".rewards." not in name:
            why = "it is about how tokens are weighed"
        if why:
            raise SettingError(f"setting {name}={values[name]!r}: backend 'prompts' does not use it: {why}")
