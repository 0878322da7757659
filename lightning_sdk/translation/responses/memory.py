"""The conversations behind response ids, so that `previous_response_id` and item references work in this process.

Bounded in bytes, the least recently used first to go. A conversation shares the messages of the one that it continues.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass

from lightning_sdk.errors import Untranslatable
from lightning_sdk.translation.responses.items import Item, Message, messages_of

#: How much text is kept, in bytes of JSON.
ROOM = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Entry:
    messages: list[Message]
    items: list[Item]
    """What the response put out."""
    size: int


class Memory:
    """Conversations by the id of the response that ended them. Thread-safe."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._held = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._items: dict[str, Item] = {}
        self._lock = threading.Lock()

    def remember(self, response_id: str, before: list[Message], own: list[Message], output: list[Item]) -> None:
        """Keep the conversation `before` + `own` + `output`; `before` is one that is kept already."""
        new = [*own, *messages_of(output, self.item)]
        entry = _Entry([*before, *new], output, len(json.dumps(new)) + 8 * len(before))
        with self._lock:
            self._entries[response_id] = entry
            self._items.update({item["id"]: item for item in output})
            self._held += entry.size
            while self._held > self._room and self._entries:
                _, oldest = self._entries.popitem(last=False)
                self._held -= oldest.size
                for item in oldest.items:
                    self._items.pop(item["id"], None)

    def conversation(self, response_id: str | None) -> list[Message]:
        """The messages up to and with a response, [] for None. Untranslatable if it is not known."""
        if response_id is None:
            return []
        with self._lock:
            entry = self._entries.get(response_id)
            if entry is not None:
                self._entries.move_to_end(response_id)
                return entry.messages
        raise Untranslatable(
            f"previous_response_id={response_id!r}: the engine has no response with this id in this process (it "
            "belongs to a role that is not trained or to another process, was made with store=False, or is too old); "
            "send the whole conversation in input instead"
        )

    def item(self, item_id: str) -> Item | None:
        """An item that a remembered response put out."""
        with self._lock:
            return self._items.get(item_id)


#: Of this process, since ids are valid all over it.
memory = Memory()
