"""Distillation: what an agent did well with tuned texts becomes what it does without them.

The rollouts are those of the candidate that a stored run chose. In their rows the agent's own texts stand where the
tuned ones were, and every token that was sampled stays as it was sampled, at the end of what the engine makes of the
changed request. Only the first request of a row is rendered again, since the later ones continue it.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_hub.backend import Endpoint
from lightning_hub.replay.stored_run import StoredRun
from lightning_hub.trajectories.role_rollout import RoleRollout
from lightning_hub.trajectories.trajectory import Trajectory
from lightning_sdk.capture.seam import ROLLOUT_HEADER
from lightning_sdk.errors import BackendDied, PromptError, SettingError
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.trace.call import Call

_TIMEOUT_SECONDS = 120.0
#: Fields of a request that only say how its reply is sampled and sent.
_OF_REPLY = ("max_completion_tokens", "stream", "stream_options", "n", "stop", "stop_token_ids", "seed")


class NotShortened(Exception):
    """A row cannot be learned from without the tuned texts. The message says why."""


@dataclass(slots=True)
class PromptTokens:
    """Tokens of prompts, over all calls that are learned from."""

    calls: int = 0
    tuned: int = 0
    """With the tuned texts."""
    own: int = 0
    """With the agent's own."""

    def add(self, more: PromptTokens) -> None:
        self.calls += more.calls
        self.tuned += more.tuned
        self.own += more.own

    def facts(self) -> dict[str, float]:
        """For config.json: means over the calls."""
        calls = max(self.calls, 1)
        return {
            "distilled_calls": self.calls,
            "prompt_tokens_per_call_tuned": round(self.tuned / calls, 1),
            "prompt_tokens_per_call_own": round(self.own / calls, 1),
            "prompt_tokens_saved_per_call": round((self.tuned - self.own) / calls, 1),
        }


@dataclass(frozen=True, slots=True)
class TunedTexts:
    """What the search of a stored run chose."""

    id: str
    """The candidate's."""
    tuned: Candidate
    """The agent's own texts -> the tuned ones."""
    own: Candidate
    """The tuned texts -> the agent's own ones."""

    @classmethod
    def of_run(cls, run: StoredRun) -> TunedTexts:
        """SettingError for a run that chose no other texts than the agent's own."""
        search = run.config.search or {}
        texts, components = search.get("texts") or {}, search.get("components") or []
        changed = [each for each in components if texts[each["name"]] != each["text"]]
        if not changed:
            why = (
                "its search is not over" if run.config.search == {} else "it chose no other texts than the agent's own"
            )
            told = why if run.config.search is not None else "it tuned no prompts"
            raise SettingError(
                f"setting stored.method='distill': nothing can be distilled from {run.folder}: {told}; name a run "
                "with --backend prompts and --model, or with --tune prompts"
            )
        pairs = [(str(each["text"]), texts[each["name"]], str(each["mark"])) for each in changed]
        name = str(search["chosen"])
        try:
            tuned = Candidate(name, {own: new for own, new, _ in pairs}, {own: mark for own, _, mark in pairs if mark})
            own = Candidate(name, {new: own for own, new, _ in pairs}, {new: mark for _, new, mark in pairs if mark})
        except PromptError as error:
            raise SettingError(f"setting stored.method='distill': the texts of {run.folder}: {error}") from None
        return cls(name, tuned, own)


class Renderer:
    """Asks a running engine for the ids of requests. One thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._known: dict[bytes, NDArray[np.int32]] = {}

    def prompt_ids(self, request: Mapping[str, Any]) -> NDArray[np.int32]:
        """The ids that the model sees for this request. NotShortened if the engine refuses it."""
        body = {name: value for name, value in request.items() if name not in _OF_REPLY}
        body |= {"model": self._endpoint.model, "max_tokens": 1, "return_token_ids": True}
        data = json.dumps(body, sort_keys=True).encode()
        if data not in self._known:
            self._known[data] = np.asarray(self._ask(data)["prompt_token_ids"], np.int32)
        return self._known[data]

    def _ask(self, data: bytes) -> Any:
        headers = {
            "Authorization": f"Bearer {self._endpoint.key}",
            "Content-Type": "application/json",
            ROLLOUT_HEADER: os.urandom(16).hex(),  # so that it continues no conversation that the engine remembers
        }
        request = urllib.request.Request(f"{self._endpoint.url}/chat/completions", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            raise NotShortened(f"the engine refused a request ({error.code})") from None
        except OSError as error:
            raise BackendDied(f"the engine did not answer while prompts were rendered: {error}") from None


def shorten(part: RoleRollout, texts: TunedTexts, renderer: Renderer, spent: PromptTokens) -> RoleRollout:
    """The same role rollout with the agent's own texts in its prompts.

    Raises:
        NotShortened: that cannot be done with the very ids that were sampled.
    """
    calls = {call.meta.id: call for call in part.rollout.calls}
    rows, masks, counted = list[Trajectory](), list[NDArray[np.bool_]](), PromptTokens()
    for row, trained in zip(part.trajectories, part.trained, strict=True):
        own, start = _own_prompt(row, calls, texts, renderer), row.pieces[0].start
        rows.append(_with_prompt(row, own))
        masks.append(np.concatenate((np.zeros(len(own), np.bool_), trained[start:])))
        counted.calls += len(row.pieces)
        counted.tuned += sum(piece.start for piece in row.pieces)
        counted.own += sum(piece.start - start + len(own) for piece in row.pieces)
    spent.add(counted)
    return replace(part, trajectories=rows, trained=masks)


def _own_prompt(row: Trajectory, calls: Mapping[str, Call], texts: TunedTexts, renderer: Renderer) -> NDArray[np.int32]:
    """What the row's first prompt would have been without the tuned texts."""
    requests = [_read_request(calls[piece.call]) for piece in row.pieces]
    first, *later = requests
    shortened = [texts.own.substitute(each) for each in requests]
    if shortened[0] is first:
        raise NotShortened("the tuned texts stand in none of its requests")
    seen = len(first["messages"])
    if any(new["messages"][seen:] != old["messages"][seen:] for new, old in zip(shortened[1:], later, strict=True)):
        raise NotShortened("the tuned texts stand in later messages too (set length.rows=call)")
    if not np.array_equal(renderer.prompt_ids(first), row.tokens[: row.pieces[0].start]):
        raise NotShortened("the engine renders its request otherwise than when it was recorded")
    return renderer.prompt_ids(shortened[0])


def _read_request(call: Call) -> dict[str, Any]:
    body = json.loads(call.request)
    if not isinstance(body.get("messages"), list):
        raise NotShortened("it is not a chat completion")
    return dict(body)


def _with_prompt(row: Trajectory, prompt: NDArray[np.int32]) -> Trajectory:
    """The row with another first prompt."""
    start = row.pieces[0].start
    further = len(prompt) - start
    rest = slice(start, None)
    return replace(
        row,
        tokens=np.concatenate((prompt, row.tokens[rest])),
        mask=np.concatenate((np.zeros(len(prompt), np.bool_), row.mask[rest])),
        logprobs=np.concatenate((np.zeros(len(prompt), np.float32), row.logprobs[rest])),
        versions=np.concatenate((np.full(len(prompt), -1, np.int32), row.versions[rest])),
        pieces=tuple(replace(piece, start=piece.start + further, end=piece.end + further) for piece in row.pieces),
    )
