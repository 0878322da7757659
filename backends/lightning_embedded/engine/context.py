"""The context of a model: how long a sequence may be, and the sliding window of each layer."""

from __future__ import annotations

from typing import Any

#: Rotary embeddings whose angles all change once one position in the batch exceeds the original context.
_SWITCHING_ROPE = frozenset({"longrope", "dynamic"})


def context_limit(config: Any, windows: list[int | None]) -> tuple[int, str]:
    """The longest sequence that the engine computes correctly, and why it is shorter than the model's own limit.

    `windows` are those that the layers pass to our attention, which applies them.
    """
    config = config.get_text_config()
    limits = [(_positive(getattr(config, "max_position_embeddings", None)), "")]
    if windows != configured_windows(config, len(windows)):
        limits.append(
            (_positive(getattr(config, "sliding_window", None)), "its layers hide their window from the engine")
        )
    limits.append((_positive(getattr(config, "attention_chunk_size", None)), "its attention is chunked"))
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in _SWITCHING_ROPE:
        original = _positive(rope.get("original_max_position_embeddings"))
        limits.append((original, "beyond it, all its rotary embeddings change"))
    return min((each for each in limits if each[0]), default=(4096, ""))


def configured_windows(config: Any, layers: int) -> list[int | None]:
    """The sliding window of each layer in the configuration, None for full attention."""
    config = config.get_text_config()
    used = getattr(config, "use_sliding_window", True)
    window = (used and _positive(getattr(config, "sliding_window", None))) or None
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


def is_chunked(config: Any) -> bool:
    """Whether tokens do not attend to earlier chunks."""
    return bool(getattr(config.get_text_config(), "attention_chunk_size", None))


def _positive(value: Any) -> int:
    return int(value) if value else 0
