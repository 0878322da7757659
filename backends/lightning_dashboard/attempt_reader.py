"""One attempt at a rollout, read back whole: calls and spans from the log, rewards and its end from the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lightning_dashboard.run_reader import STORE, RunReader
from lightning_hub.export.messages import read_message, request_messages
from lightning_hub.rollouts.collector import Collected
from lightning_hub.storage.reading import RecordedReward, StoredTry, StoreReader
from lightning_sdk.trace.call import Call, Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAttempt:
    """An attempt with all that belongs to it."""

    attempt: StoredTry
    tries: Sequence[StoredTry]
    """Every attempt at the rollout, this one among them."""
    rewards: Sequence[RecordedReward]
    found: Collected
    missing: str
    """Why calls and spans cannot be read, '' if they can."""

    @property
    def calls(self) -> tuple[Call, ...]:
        """In the order in which they began."""
        return self.found.calls_in_order()


class AttemptReader:
    """Reads attempts of one run, for the thread that opened it."""

    def __init__(self, run: RunReader) -> None:
        """LookupError if it has no rollouts."""
        if not run.has_rollouts:
            raise LookupError(f"{run.name} has no rollouts")
        self._store = StoreReader(run.folder / STORE)
        try:
            self._archive = run.archive()
        except BaseException:
            self._store.close()
            raise

    def close(self) -> None:
        self._store.close()
        self._archive.close()

    def __enter__(self) -> AttemptReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, rollout: str, number: int = 0) -> ReadAttempt:
        """Attempt `number` at a rollout, 0 for the last one. LookupError if there is none."""
        tries = self._store.attempts_of(rollout)
        chosen = next((each for each in reversed(tries) if number in {0, each.attempt}), None)
        if chosen is None:
            raise LookupError(f"there is no rollout {rollout}" + (f" with an attempt {number}" if number else ""))
        found, missing = Collected(), ""
        try:
            found = self._archive.read(chosen.key)
        except (OSError, ValueError, TypeError) as error:
            missing = f"its calls cannot be read back: {error}"
        rewards = self._store.rewards_of(chosen.key)
        return ReadAttempt(attempt=chosen, tries=tries, rewards=rewards, found=found, missing=missing)


def read_attempt(run: RunReader, rollout: str, number: int = 0) -> ReadAttempt:
    """As `AttemptReader.read`, of one rollout alone."""
    with AttemptReader(run) as reader:
        return reader.read(rollout, number)


def read_request(call: Call) -> list[dict[str, Any]]:
    """The messages of a call's request, each with its role and its parts; none if they cannot be read."""
    try:
        request = msgspec.json.decode(call.request)
        return [read_message(each) for each in request_messages(request)]
    except (msgspec.MsgspecError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return []


def read_reply(choice: Choice) -> dict[str, Any]:
    """The message of a choice."""
    try:
        return read_message(msgspec.json.decode(choice.message))
    except (msgspec.MsgspecError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return {"role": "assistant", "parts": [{"type": "text", "content": choice.message.decode(errors="replace")}]}


def read_json(text: str | bytes) -> Any:
    """A JSON document, or its text where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text if isinstance(text, str) else text.decode(errors="replace")
