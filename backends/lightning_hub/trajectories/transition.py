"""A transition: one choice of one call, as the exact ids that the model saw and sampled.

Nothing is tokenised again and nothing is made up: a call without its ids or log-probs is refused with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lightning_hub.trajectories.constraint import constraint_of, is_constrained
from lightning_sdk.errors import LightningError
from lightning_sdk.trace.call import Call, Choice

#: Version of a token whose server did not say which version sampled it.
UNKNOWN_VERSION = -1


class UnusableCall(LightningError):
    """A call of a trainable role cannot be learned from. The message says why, and what to check."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Transition:
    """What the model saw (P ids) and what it sampled from there (C ids)."""

    role: str
    call: str
    """Id of the call."""
    choice: int
    """Index of the choice: a call with n > 1 has several."""
    prompt_ids: NDArray[np.int32]
    """[P]"""
    completion_ids: NDArray[np.int32]
    """[C], never empty."""
    logprobs: NDArray[np.float32]
    """[C] log-probability of each sampled id under the distribution it was drawn from."""
    versions: NDArray[np.int32]
    """[C] model version that sampled each id, `UNKNOWN_VERSION` if the server did not say."""
    temperature: float
    """The temperature of the request that was sent; more than 0."""
    finish_reason: str
    """Why the engine stopped: 'length' where it reached the token limit."""
    started_ns: int
    """When the call was made, Unix time."""
    constraint: str = ""
    """What the completion was limited to, as `constraint_of` returns it; '' for free text."""


class _Request(msgspec.Struct, kw_only=True):
    """The fields of a request that determine the distribution that was sampled from."""

    temperature: float | None = None
    response_format: Any = None
    tool_choice: Any = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None


_requests = msgspec.json.Decoder(_Request)


def transitions(call: Call, *, supervised: bool = False) -> list[Transition]:
    """One transition for each choice of `call` in which something was sampled. `supervised`: it is to be imitated, for
    which it does not matter that it was sampled greedily.

    Empty for calls that are not trainable, that failed, or that were closed before their ids came. `UnusableCall` if
    the call succeeded but ids or log-probs are missing, do not fit each other, or were sampled greedily.
    """
    cancelled = call.meta.status == "cancelled"
    if not call.meta.trainable or not (call.meta.status == "ok" or cancelled):
        return []
    if cancelled and (call.problem or not call.prompt_ids):
        return []
    if call.problem:
        raise _unusable(call, call.problem)
    made = []
    for choice in call.choices:
        if choice.token_ids:
            made.append(_transition(call, choice, supervised))
        elif call.output_tokens and not cancelled:
            raise _unusable(call, f"choice {choice.index} has no token ids")
    return made


def _transition(call: Call, choice: Choice, supervised: bool) -> Transition:
    prompt_ids = np.frombuffer(choice.prompt_ids or call.prompt_ids, "<i4")
    completion_ids = np.frombuffer(choice.token_ids, "<i4")
    logprobs = np.frombuffer(choice.logprobs, "<f4")
    if not len(prompt_ids):
        raise _unusable(call, "the prompt has no token ids")
    if len(logprobs) != len(completion_ids):
        raise _unusable(call, f"choice {choice.index} has {len(completion_ids)} ids and {len(logprobs)} log-probs")
    if not np.isfinite(logprobs).all():
        at = int(np.argmin(np.isfinite(logprobs)))
        raise _unusable(call, f"choice {choice.index} has log-prob {logprobs[at]} at sampled token {at}")
    if min(prompt_ids.min(), completion_ids.min()) < 0:
        raise _unusable(call, "a token id is negative")
    request = _read_request(call)
    _refuse_penalties(call, request)
    return Transition(
        role=call.meta.role,
        call=call.meta.id,
        choice=choice.index,
        prompt_ids=prompt_ids,
        completion_ids=completion_ids,
        logprobs=logprobs,
        versions=_versions(call, choice, len(completion_ids)),
        temperature=_temperature(call, request, supervised),
        finish_reason=choice.finish_reason,
        started_ns=call.meta.started_ns,
        constraint=_constraint(call, request),
    )


def _versions(call: Call, choice: Choice, count: int) -> NDArray[np.int32]:
    if not choice.versions:
        return np.full(count, UNKNOWN_VERSION, np.int32)
    runs = np.asarray(choice.versions, np.int32).reshape(-1, 2)
    if runs[:, 1].sum() != count:
        raise _unusable(call, f"choice {choice.index} has versions for {runs[:, 1].sum()} of {count} sampled tokens")
    return np.repeat(runs[:, 0], runs[:, 1])


def _read_request(call: Call) -> _Request:
    try:
        return _requests.decode(call.request)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _unusable(call, f"its request cannot be read for the temperature: {error}", "") from None


def _refuse_penalties(call: Call, request: _Request) -> None:
    """Refuse what was sampled with penalties: trained calls have none, but a call of an evaluation may."""
    for name, none in (("presence_penalty", 0), ("frequency_penalty", 0), ("repetition_penalty", 1)):
        value = getattr(request, name)
        if value is not None and value != none:
            raise _unusable(call, f"it was sampled with {name}={value:g}, which the learner does not account for", "")


def _constraint(call: Call, request: _Request) -> str:
    if not is_constrained(request.response_format, request.tool_choice):
        return ""
    return constraint_of(msgspec.json.decode(call.request))


def _temperature(call: Call, request: _Request, supervised: bool) -> float:
    temperature = 1.0 if request.temperature is None else request.temperature
    if supervised and temperature == 0:
        return 1.0
    if not temperature > 0:
        raise _unusable(
            call, f"it was sampled at temperature {temperature:g}, which leaves no distribution to learn from", ""
        )
    return temperature


_HONOUR = "The engine has to support return_token_ids and logprobs, as Lightning's own backends do"


def _unusable(call: Call, why: str, remedy: str = _HONOUR) -> UnusableCall:
    role = call.meta.role or "no role"
    told = f"call {call.meta.id} of {role} to {call.model or 'the engine'} cannot be trained on: {why}"
    return UnusableCall(f"{told}. {remedy}" if remedy else told)
