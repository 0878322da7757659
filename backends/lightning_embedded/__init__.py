"""The embedded backend: an OpenAI-compatible engine and a learner, in one child process with torch."""

from __future__ import annotations

from lightning_embedded.process import refuse, start
from lightning_hub.backend import BackendSpec

__all__ = ["backend"]

backend = BackendSpec(
    name="embedded",
    honours=frozenset(
        {
            "model",
            "backend",
            "engine",
            "serving.*",
            "vllm.*",
            "tune",
            "steps",
            "seed",
            "save_every",
            "roles",
            "sampling.*",
            "algorithm.*",
            "divergence.*",
            "importance.*",
            "value.*",
            "optimizer.*",
            "lora.*",
            "rollouts.*",
            "evaluation.*",
            "stored.*",
        }
    ),
    start=start,
    refuse=refuse,
    keeps_constraints=True,
)
