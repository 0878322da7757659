"""The plugin that VERL loads in every process that imports it, through its entry-point group `verl.plugins`.

VERL ignores errors there, so `loaded` is checked wherever we depend on it. Nothing happens in processes that are not
ours: the driver sets `ACTIVE` for its own Ray processes only.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

#: Environment variable: 'cuda', or 'cpu' where there is no GPU.
ACTIVE = "LIGHTNING_VERL_DEVICE"
#: How weights travel between processes on a CPU.
SOCKETS = "lightning_sockets"

loaded = False
"""Whether the plugin was loaded completely in this process."""


def require() -> None:
    """Raise RuntimeError unless VERL loaded this module in this process."""
    import verl  # noqa: F401, PLC0415 - importing it is what loads plugins

    if not loaded:
        raise RuntimeError(
            "VERL did not load the plugin 'lightning' of its entry-point group verl.plugins in this process: is "
            "lightning-agent-sdk installed in the environment that Ray's workers use?"
        )


def _load() -> None:
    global loaded  # noqa: PLW0603 - a module is loaded once
    device = os.environ.get(ACTIVE)
    if not device:
        return
    if device == "cpu":
        from lightning_verl import cpu  # noqa: PLC0415 - not where there is a GPU

        cpu.install()
    _without_loop()
    _survive_servers()
    loaded = True


def _without_loop() -> None:
    """Without flash-attn, VERL 0.9.1 computes log-probabilities token by token in Python. Another of its functions
    computes the same numbers at once."""
    from verl.utils import torch_functional  # noqa: PLC0415 - as above

    if find_spec("flash_attn") is None:
        torch_functional.logprobs_from_logits_v2 = torch_functional.logprobs_from_logits_naive


def _survive_servers() -> None:
    """Make processes that train use an adapter that does not wait for a vLLM server that has ended."""
    from verl.workers.rollout import base  # noqa: PLC0415 - as above

    base._ROLLOUT_REGISTRY[("vllm", "async")] = "lightning_verl.adapter.SurvivingAdapter"


_load()
