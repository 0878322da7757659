"""What a front reads from a request: the model's name, which conversation it belongs to, and whether the form of its
answer is constrained."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from lightning_hub.trajectories.constraint import is_constrained
from lightning_process.refusal import BadRequest, refuse_too_many

#: First messages that identify a conversation, since its later calls repeat them: the system's and the first user's.
_FIRST = 2


#: vLLM's own parameters for masks. Text sampled with them could not be told from free text.
_OTHER_MASKS = (
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structural_tag",
)


class _Body(msgspec.Struct, kw_only=True):
    model: str | None = None
    messages: list[msgspec.Raw] = []
    prompt: msgspec.Raw = msgspec.Raw()
    n: int | None = None
    response_format: Any = None
    tool_choice: Any = None
    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    structural_tag: Any = None


_decode = msgspec.json.Decoder(_Body).decode


def _count_prompts(prompt: bytes) -> int:
    """Number of prompts: one text or list of ids, or a list of those."""
    if not prompt.lstrip().startswith(b"["):
        return 1
    parts = msgspec.json.decode(prompt, type=list[msgspec.Raw])
    return len(parts) if parts and bytes(parts[0]).lstrip()[:1] in b'["' else 1


class RequestInfo:
    """A request's body. BadRequest if it is not a JSON object, its model is not a string, or it asks for masks with one
    of vLLM's own parameters."""

    __slots__ = ("_body", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        try:
            self._body = _decode(data)
        except msgspec.ValidationError as error:
            raise BadRequest(f"the body is not a request: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from None
        refuse_too_many(_count_prompts(bytes(self._body.prompt)), max(self._body.n or 1, 1))
        for name in _OTHER_MASKS:
            if getattr(self._body, name) is not None:
                raise BadRequest(
                    f"{name} is not supported: the learner could not tell which tokens were allowed; use "
                    "response_format",
                    name,
                    "unsupported_parameter",
                )

    @property
    def is_constrained(self) -> bool:
        """Whether the form of the answer is constrained, or a tool call is forced."""
        return is_constrained(self._body.response_format, self._body.tool_choice)

    @property
    def model(self) -> str | None:
        return self._body.model

    def conversation(self) -> str:
        """An id that is the same for all calls that begin with the same messages."""
        parts = self._body.messages[:_FIRST] or [self._body.prompt]
        return hashlib.blake2b(b"\0".join(map(bytes, parts)), digest_size=16).hexdigest()


def refuse_constraints(data: bytes) -> bytes:
    """Raise BadRequest, for learners that cannot recompute a server's masks."""
    name = "response_format" if is_constrained(_decode(data).response_format, None) else "tool_choice"
    remedy = {
        "response_format": "leave it out and describe the form in a message",
        "tool_choice": "say 'auto' and ask for the call in a message",
    }[name]
    raise BadRequest(
        f"{name} limits what may be said, and this backend's learner cannot train on the remaining distribution: "
        f"{remedy}, or train with backend=embedded, whose engines (embedded and vllm) keep it",
        name,
        "unsupported_parameter",
    )
