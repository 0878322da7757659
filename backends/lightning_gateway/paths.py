"""Paths: which requests the gateway's own key for a provider goes with, and which no request may have."""

from __future__ import annotations

import re
from urllib.parse import unquote

from lightning_gateway.refusal import Refused

#: Method and path of everything that asks a model something, or what models there are. The rest of a provider's API
#: changes what its account holds: files, batches, fine-tuned models, stored replies.
_OF_MODELS = re.compile(
    r"POST (/v1)?/(chat/completions|completions|responses|messages|messages/count_tokens|embeddings)"
    r"|GET (/v1)?/models(/.+)?"
)
_DECODINGS = 4
"""So often servers on the way may decode a path; after that nothing is left to decode in any that is honest."""


def refuse_climbing(path: str) -> None:
    """Refused for a path that may leave the folder that it begins in, however its dots and slashes are written."""
    plain = path
    for _ in range(_DECODINGS):
        if any(part.partition(";")[0] in {".", ".."} for part in re.split(r"[/\\]", plain)):
            raise Refused(400, f"the path {path[:200]!r} has '.' or '..' in it: write out where it leads", "path")
        plain = unquote(plain)


def refuse_beyond_models(method: str, path: str) -> None:
    """Refused for a request that our own key for the provider is not meant for."""
    if not _OF_MODELS.fullmatch(f"{method} {path}"):
        raise Refused(
            403,
            f"{method} {path[:200]}: a rollout's key opens what asks a model (chat completions, "
            "completions, responses, messages, embeddings, models), and nothing else; for the rest show an "
            "API key of your own",
            "not_for_rollouts",
        )
