"""Other protocols in terms of chat completions, because engines return token ids there and nowhere else.

Pure functions over JSON bodies, shared by the seams in the agent's process and by the gateway. A module per protocol
makes a `Translation` of a request; the translation then turns the engine's reply into what the caller expects.
"""

from __future__ import annotations

from typing import Any, Protocol


class Translation(Protocol):
    """One request of another protocol, on its way to chat completions and back."""

    chat: dict[str, Any]
    """The request as a body for chat completions; `stream` is kept, and usage is asked for when streaming."""

    def reply(self, body: bytes, http_status: int) -> bytes:
        """The whole reply, or error, of the engine as one of the caller's protocol."""

    def feed(self, chunk: bytes) -> bytes:
        """What to pass on after some more bytes of the engine's event stream, b'' if nothing yet."""

    def end(self) -> bytes:
        """What is left to pass on when the engine's event stream has ended."""
