"""What a front reads of a request: the model's name, what tells one conversation from another, and whether it asks for
an answer of some form."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from lightning_hub.trajectories.constraint import is_constrained
from lightning_process.refusal import BadRequest, refuse_too_many

#: Messages at a conversation's beginning that its later calls repeat: the system's and the first of the user's.
_FIRST = 2


#: vLLM's own words for masks. What was sampled under them could not be told from free text.
_OTHER_MASKS = (
    "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag",
)  # fmt: skip


class _Body(msgspec.Struct):
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
    """How many there are: one of text or ids, or a list of those."""
    if not prompt.lstrip().startswith(b"["):
        return 1
    parts = msgspec.json.decode(prompt, type=list[msgspec.Raw])
    return len(parts) if parts and bytes(parts[0]).lstrip()[:1] in b'["' else 1


class RequestInfo:
    """A request's body. BadRequest if it is no JSON object, its model is no text, or it asks for masks in words of
    vLLM's own."""

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
                    f"{name} is not supported here: the learner could not tell what was allowed; use response_format",
                    name,
                    "unsupported_parameter",
                )

    @property
    def is_constrained(self) -> bool:
        """Whether the answer is to have a form, or a call is forced."""
        return is_constrained(self._body.response_format, self._body.tool_choice)

    @property
    def model(self) -> str | None:
        return self._body.model

    def conversation(self) -> str:
        """The same for all calls that begin with the same messages."""
        parts = self._body.messages[:_FIRST] or [self._body.prompt]
        return hashlib.blake2b(b"\0".join(map(bytes, parts)), digest_size=16).hexdigest()


def refuse_constraints(data: bytes) -> bytes:
    """BadRequest, for learners that cannot find a server's masks again."""
    name = "response_format" if is_constrained(_decode(data).response_format, None) else "tool_choice"
    remedy = {
        "response_format": "leave it out and describe the form in a message",
        "tool_choice": "say 'auto' and ask for the call in a message",
    }[name]
    raise BadRequest(
        f"{name} limits what may be said, and this backend's learner could not train on the distribution that is left: "
        f"{remedy}, or train with backend=embedded, whose engines (embedded and vllm) keep it",
        name,
        "unsupported_parameter",
    )
