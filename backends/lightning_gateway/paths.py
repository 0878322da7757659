"""Paths: which requests may use the gateway's own key for a provider, and which paths are refused."""

from __future__ import annotations

import re
from urllib.parse import unquote

from lightning_gateway.refusal import Refused

#: Method and path of every request that calls a model or lists models. The rest of a provider's API manages what the
#: account owns: files, batches, fine-tuned models, stored replies.
_OF_MODELS = re.compile(
    r"POST (/v1)?/(chat/completions|completions|responses|messages|messages/count_tokens|embeddings)"
    r"|GET (/v1)?/models(/.+)?"
)
_DECODINGS = 4
"""How often servers on the way may decode a path; no legitimate path needs more."""


def refuse_climbing(path: str) -> None:
    """Raise Refused for a path with '.' or '..', in any encoding of dots and slashes."""
    plain = path
    for _ in range(_DECODINGS):
        if any(part.partition(";")[0] in {".", ".."} for part in re.split(r"[/\\]", plain)):
            raise Refused(400, f"the path {path[:200]!r} contains '.' or '..': write the full path instead", "path")
        plain = unquote(plain)


def refuse_beyond_models(method: str, path: str) -> None:
    """Raise Refused for a request that may not use our own key for the provider."""
    if not _OF_MODELS.fullmatch(f"{method} {path}"):
        raise Refused(
            403,
            f"{method} {path[:200]}: a rollout's key is accepted for calls to models only (chat "
            "completions, completions, responses, messages, embeddings, models); for other requests use your "
            "own API key",
            "not_for_rollouts",
        )
