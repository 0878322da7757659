"""The prompts backend: training changes texts, and a model that reads what the agent did proposes better ones."""

from __future__ import annotations

from lightning_hub.backend import BackendSpec
from lightning_prompts.refusal import refuse_without_effect
from lightning_prompts.start import start
from lightning_prompts.tuning import tune

__all__ = ["backend"]

backend = BackendSpec(
    name="prompts", honours=frozenset({"prompts.*"}), start=start, refuse=refuse_without_effect, search=tune
)
