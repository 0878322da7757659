"""The prompts backend: training changes texts, and a model that reads what the agent did proposes better ones."""

from __future__ import annotations

from lightning_hub.backend import BackendSpec
from lightning_prompts.start import refuse, start
from lightning_prompts.tuning import tune

__all__ = ["backend"]

backend = BackendSpec(
    name="prompts",
    honours=frozenset({"prompts.*", "model", "engine", "serving.*", "vllm.*"}),
    start=start,
    refuse=refuse,
    keeps_constraints=True,
    search=tune,
)
