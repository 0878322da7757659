"""What a seam needs: an open call that takes the reply and is finished exactly once.

A seam is where an integration catches calls. It opens a call before the request leaves, sends the request to
`call.endpoint` if there is one, and finishes the call with the raw bytes of the reply. Decoding happens in the hub.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from lightning_sdk.capture import metering
from lightning_sdk.errors import LightningError
from lightning_sdk.failures.failure import summary
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.stream import sink
from lightning_sdk.stream.wire import MAX_EVENT_BYTES
from lightning_sdk.system import forks
from lightning_sdk.trace.call import CallMeta
from lightning_sdk.trace.scope import Endpoint, current_scope, effective_scope, new_span_id, parent_span

#: Stays on every HTTP request that a seam has seen, so that the net below the SDKs tells it from one that none saw.
SEEN = "lightning_seen"
#: Names a request's rollout to the engine, so that one of several servers can keep what the rollout has in its cache.
ROLLOUT_HEADER = "x-lightning-rollout"
#: Fields that shape the distribution beyond its temperature -> the value that leaves it whole.
WHOLE: dict[str, Any] = {
    "top_p": 1.0, "top_k": -1, "min_p": 0.0, "frequency_penalty": 0.0, "presence_penalty": 0.0,
    "repetition_penalty": 1.0, "logit_bias": {}, "min_tokens": 0, "bad_words": [], "allowed_token_ids": None,
}  # fmt: skip

#: Fields that make the rollouts of a group alike, or look for the likeliest text -> values with which they do nothing.
ALIKE: dict[str, tuple[Any, ...]] = {
    "seed": (),
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "typical_p": (1,),
}


_covered: ContextVar[bool] = ContextVar("lightning_covered", default=False)


@contextmanager
def cover_requests() -> Iterator[None]:
    """HTTP requests that leave inside this block are known, as with `SEEN`."""
    token = _covered.set(True)
    try:
        yield
    finally:
        _covered.reset(token)


def is_covered() -> bool:
    """Whether code runs in a block of `cover_requests`."""
    return _covered.get()


def open_call(framework: str, path: str) -> OpenCall | None:
    """Open a call that is about to be made in the current scope; None if it is neither recorded nor redirected."""
    return OpenCall(framework, path) if sink.is_listening() or current_scope().rollout is not None else None


#: Calls under way. Weak, since a call that nobody will finish any more is finished when it is collected.
_under_way: dict[str, weakref.ref[OpenCall]] = {}


def cut_calls_short() -> None:
    """Finish every open call of this process with the part of its reply that has arrived, because recording ends."""
    for reference in list(_under_way.values()):
        if (call := reference()) is not None:
            sink.harmless("closing a call that is still open", call.cut_short)


class OpenCall:
    """A call that is not finished. A forked process has a copy, and only the one in its parent counts."""

    __slots__ = (
        "__weakref__", "_attempts", "_cut_short", "_finished", "_framework", "_generation", "_owner", "_parent",
        "_path", "_refused", "_scope", "_seed", "_started", "_trace", "candidate", "endpoint", "id", "request",
        "sampling", "streamed",
    )  # fmt: skip

    def __init__(self, framework: str, path: str) -> None:
        self._started = time.time_ns()
        self._framework, self._path = framework, path
        self._scope = effective_scope()
        self._trace, self._parent = parent_span(self._scope)
        self._owner = self._scope.owner()
        if self._owner is not self._scope.rollout:
            self._say_lost()
        self.candidate: Candidate | None = None
        """Texts to put into the request before it leaves, wherever it goes: see `with_prompts`."""
        if self._owner is not None and not self._scope.judging:
            self.candidate = self._owner.candidate
        self._finished, self._generation = False, forks.generation
        self._attempts, self._refused = 0, False
        self._cut_short: Callable[[], object] | None = None
        self.id = new_span_id()
        _under_way[self.id] = weakref.ref(self)
        self.endpoint: Endpoint | None = self._scope.endpoint()
        """Where the call is to be sent; None: where it was going."""
        self.sampling: dict[str, Any] = {}
        """Request fields to replace when there is an endpoint; of `rollout_seed` comes the call's own `seed`, of
        `whole_distribution` the values of `WHOLE`, and of `free_choice` a `tool_choice` that forces nothing."""
        self.request = b""
        """The JSON body as it was sent, last attempt."""
        self.streamed = False
        self._seed: int | None = None
        if self.endpoint is not None and self._scope.rollout is not None:
            self.sampling = self._scope.rollout.sampling
            self._seed = self._scope.rollout.seed(self._scope.role)

    @property
    def role(self) -> str:
        return self._scope.role

    @property
    def rollout_id(self) -> str:
        """Id of the rollout; '' outside every rollout."""
        return self._scope.rollout.id if self._scope.rollout is not None else ""

    def headers(self) -> dict[str, str]:
        """Headers for the engine: its key, and the id of the rollout."""
        assert self.endpoint is not None
        shown = {"authorization": f"Bearer {self.endpoint.key}"}
        if self.rollout_id:
            shown[ROLLOUT_HEADER] = self.rollout_id
        return shown

    def when_cut_short(self, action: Callable[[], object]) -> None:
        """Run `action`, which finishes the call with what has arrived so far, if its rollout or its process ends first:
        what arrives later counts for neither."""
        self._cut_short = action
        if self._owner is not None:
            self._owner.at_end.append(action)

    def with_prompts(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request `body` with the texts that this rollout has in place of the agent's own; `body` itself where
        there is nothing to replace."""
        return body if self.candidate is None else self.candidate.substitute(body)

    def with_prompts_bytes(self, body: bytes) -> bytes:
        """The same for a request as JSON."""
        return body if self.candidate is None else self.candidate.substitute_bytes(body)

    def note_request(self, body: bytes) -> None:
        """The request leaves with this body now, for the first time or again.

        Raises:
            BudgetSpent: what the run may spend does not allow it. The call is finished.
        """
        self.request = body
        rollout = self._scope.rollout
        if rollout is None or not rollout.metered:
            return
        self._attempts += 1
        refused, self._refused = self._refused, False
        try:
            metering.claim_call(rollout.id, self.id, self._attempts, self._path, body, refused=refused)
        except LightningError as error:
            self.fail(error)
            raise

    def note_refusal(self) -> None:
        """The request was answered with an error, and may be sent again."""
        self._refused = True

    def rewrite(self, body: Mapping[str, Any], *, chat: bool = True) -> dict[str, Any]:
        """The request `body` for the engine: with its model, the rollout's sampling parameters, and what training
        needs.

        Args:
            chat: Whether it is a chat completion; False for a (text) completion.
        """
        assert self.endpoint is not None
        new, sampling, taken = dict(body), dict(self.sampling), dict[str, Any]()
        default_tokens = sampling.pop("max_tokens_default", None)
        if sampling.pop("rollout_seed", None) is not None:
            sampling["seed"] = self._seed
        if sampling.pop("whole_distribution", None) is not None:
            # No weight makes up for tokens that are never drawn, and the learner does not know of penalties.
            sampling |= {name: value for name, value in WHOLE.items() if name == "top_p" or name in new}
            taken = {name: new.pop(name) for name in ALIKE if name in new}
        forced = new.get("tool_choice") not in (None, "none", "auto")
        if sampling.pop("free_choice", None) is not None and forced:
            # The server would mask tokens for it, and this learner knows of no masks.
            sampling["tool_choice"] = "auto"
        if default_tokens and not new.get("max_tokens") and not new.get("max_completion_tokens"):
            new["max_tokens"] = default_tokens
        self._say_changes({**new, **taken}, taken, sampling)
        new.update(sampling, model=self.endpoint.model, return_token_ids=True)
        new["logprobs"] = True if chat else new.get("logprobs") or 0
        return new

    def _say_lost(self) -> None:
        thread = threading.current_thread().name
        sink.say_once(
            f"lost {self.role} {thread}",
            "lightning: a call of role %r in thread %r belongs to no rollout: the rollout that started the thread or "
            "task is over, or several rollouts share it. A ThreadPoolExecutor or a ThreadPool is followed, and so is a "
            "thread that each rollout starts and waits for (docs/rollouts.md)",
            self.role,
            thread,
        )

    def _say_changes(self, asked: Mapping[str, Any], taken: Mapping[str, Any], sampling: Mapping[str, Any]) -> None:
        """Log once what the role asks for and does not get."""
        given = {name: value for name, value in sampling.items() if asked.get(name) not in (None, value)}
        without = [name for name, value in taken.items() if value not in (None, *ALIKE[name])]
        if not given and not without:
            return
        instead = [f"{name}={value!r}" for name, value in given.items()]
        instead += [f"no {name}" for name in without]
        sink.say_once(
            f"sampling {self.role} {sorted([*given, *without])}",
            "lightning: role %r asks for %s; while it is trained or evaluated its calls have %s instead: rollouts of a "
            "task are compared with each other, and must be sampled freely from the model being trained",
            self.role,
            ", ".join(f"{name}={asked[name]!r}" for name in (*given, *without)),
            ", ".join(instead),
        )

    def finish(self, reply: bytes, http_status: int = 200, *, status: str = "ok", error: str = "") -> None:
        """Hand the call to the stream. Later calls of `finish` do nothing."""
        _under_way.pop(self.id, None)
        if self._finished or self._generation != forks.generation:
            return
        self._finished = True
        scope, rollout = self._scope, self._owner
        if rollout is not None:
            rollout.calls += 1
        request, size = self.request, len(reply) + len(self.request)
        if size > MAX_EVENT_BYTES:
            request = reply = b""
            error = (
                error or f"a call of {size:,} bytes is recorded without request and reply: it is too large to be sent"
            )
        meta = CallMeta(
            id=self.id,
            parent=self._parent,
            role=scope.role,
            trainable=self.endpoint is not None,
            started_ns=self._started,
            ended_ns=time.time_ns(),
            status=status,
            error=error,
            http_status=http_status,
            streamed=self.streamed,
            path=self._path,
            framework=self._framework,
            trace=self._trace,
            candidate=self.candidate.id if self.candidate is not None else "",
        )
        sink.send_reply(rollout, meta, request, reply)

    def fail(
        self, error: BaseException, http_status: int = 0, reply: bytes = b"", *, unreachable: bool = False
    ) -> None:
        """Finish with the exception that was raised. `unreachable`: the server was at fault and not the request; if
        that server is our engine, the rollout counts as an infrastructure error instead of an agent error."""
        if unreachable and self.endpoint is not None and self._owner is not None:
            self._owner.broken = summary(error)
        self.finish(reply, http_status, status="error", error=summary(error))

    def cut_short(self) -> None:
        """Finish with what has arrived so far."""
        if self._cut_short is not None:
            self._cut_short()
        self.finish(b"", 0, status="cancelled", error="the process, or its recording, ended before the reply")

    def __del__(self) -> None:
        if not self._finished:  # never read, never closed
            self.finish(b"", 0, status="cancelled", error="abandoned before a reply was read")
