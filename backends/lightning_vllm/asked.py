"""What a front reads of a request: the model's name, and what tells one conversation from another."""

from __future__ import annotations

import hashlib

import msgspec

from lightning_process.refusal import BadRequest, refuse_too_many

#: Messages at a conversation's beginning that its later calls repeat: the system's and the first of the user's.
_FIRST = 2


class _Body(msgspec.Struct):
    model: str | None = None
    messages: list[msgspec.Raw] = []
    prompt: msgspec.Raw = msgspec.Raw()
    n: int | None = None


_decode = msgspec.json.Decoder(_Body).decode


def _count_prompts(prompt: bytes) -> int:
    """How many there are: one of text or ids, or a list of those."""
    if not prompt.lstrip().startswith(b"["):
        return 1
    parts = msgspec.json.decode(prompt, type=list[msgspec.Raw])
    return len(parts) if parts and bytes(parts[0]).lstrip()[:1] in b'["' else 1


class Asked:
    """A request's body. BadRequest if it is no JSON object, or its model is no text."""

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

    @property
    def model(self) -> str | None:
        return self._body.model

    def conversation(self) -> str:
        """The same for all calls that begin with the same messages."""
        parts = self._body.messages[:_FIRST] or [self._body.prompt]
        return hashlib.blake2b(b"\0".join(map(bytes, parts)), digest_size=16).hexdigest()
