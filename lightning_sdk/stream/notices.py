"""Notices: spans that tell the hub which calls no seam caught, which integration is off, and which rewards vary.

They travel with the other spans of a rollout, so that a diagnosis finds them where they happened.
"""

from __future__ import annotations

import time
from typing import Any

from lightning_sdk.stream import sink
from lightning_sdk.trace.call import Span
from lightning_sdk.trace.scope import RolloutScope, Scope, current_scope, effective_scope, new_span_id

#: Name of the span of a request to a model that no seam caught.
UNCAUGHT = "uncaught llm request"
#: Name of the span that says why an integration is off.
OFF = "integration off"
#: Name of the span that says that a reward gives different numbers for the same answer.
UNREPEATED = "reward not repeatable"

#: Name of the span that says which texts of a candidate stood in none of a rollout's requests.
UNSEEN = "prompt not seen"

#: Name of the span that says what a text says that `lightning.prompt` marks while a rollout runs.
MARKED = "prompt marked"

#: Begins the name of the span of a reward function that runs.
SCORING = "score"
#: Name of the span that says that several rollouts run one object of a framework.
SHARED = "agent shared by rollouts"

ADDRESS, PATH, MODEL = "server.address", "url.path", "gen_ai.request.model"
CLIENT, INTEGRATION, REASON = "lightning.client", "lightning.integration", "lightning.reason"
REWARD, AGAIN, DIFFERENT = "lightning.reward", "lightning.scored_again", "lightning.scored_differently"
OBJECT = "lightning.object"
CANDIDATE, REQUESTS, TEXTS = "lightning.candidate", "lightning.requests", "lightning.prompt.unseen"
MARK, TEXT = "lightning.prompt.name", "lightning.prompt.text"
FIRST, SECOND = "lightning.reward.first", "lightning.reward.second"


def report_uncaught(
    client: str, *, address: str, path: str, model: str, started_ns: int, error: BaseException | None = None
) -> None:
    """Report one request to a model that went out through `client`; `model` is '' where it is not known."""
    attributes = {ADDRESS: address, PATH: path, CLIENT: client, **({MODEL: model} if model else {})}
    raised = "" if error is None else f"{type(error).__name__}: {error}"
    _report(effective_scope(), UNCAUGHT, attributes, error=raised, started_ns=started_ns)


def report_integration_off(name: str, why: str) -> None:
    """Report that the integration `name` is off from now on."""
    _report(current_scope(), OFF, {INTEGRATION: name, REASON: why}, error=why)


def report_not_repeatable(reward: str, again: int, different: int, first: float, second: float) -> None:
    """Report that of the `again` answers that a reward scored twice, `different` got another number the second time,
    such as `second` after `first`."""
    attributes = {REWARD: reward, AGAIN: again, DIFFERENT: different, FIRST: first, SECOND: second}
    _report(current_scope(), UNREPEATED, attributes)


def report_shared_agent(name: str) -> None:
    """Report that the object called `name`, which runs in this rollout, ran in another one before."""
    _report(current_scope(), SHARED, {OBJECT: name})


def report_unseen_texts(rollout: RolloutScope) -> None:
    """Report the texts of a rollout's candidate that stood in none of its requests: they changed nothing in it."""
    candidate = rollout.candidate
    if candidate is None or not (unseen := candidate.unseen()):
        return
    for text in unseen:
        sink.say_once(
            f"unseen {text}",
            "lightning: %s stood in none of the %d requests of a rollout of candidate %r, so what replaces it changed "
            "nothing there. Either the agent did not use it for that task, or it leaves in other words than those",
            candidate.describe(text),
            candidate.requests,
            candidate.id,
        )
    attributes = {CANDIDATE: candidate.id, REQUESTS: candidate.requests, TEXTS: unseen}
    _report(Scope(rollout=rollout), UNSEEN, attributes)


def report_mark(name: str, text: str) -> None:
    """Report that `lightning.prompt` marks this text in the rollout that runs here."""
    _report(current_scope(), MARKED, {MARK: name, TEXT: text})


def _report(scope: Scope, name: str, attributes: dict[str, Any], *, error: str = "", started_ns: int = 0) -> None:
    now = time.time_ns()
    span = Span(
        id=new_span_id(),
        parent=scope.span,
        name=name,
        role=scope.role,
        started_ns=started_ns or now,
        ended_ns=now,
        status="error" if error else "ok",
        error=error,
        attributes=attributes,
    )
    sink.send_span(scope.rollout, span)
