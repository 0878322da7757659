"""Notices: spans that tell the hub what went past the seams, which integration is off, and what rewards give twice.

They travel with the other spans of a rollout, so that whoever diagnoses it finds them in their place.
"""

from __future__ import annotations

import time

from lightning_sdk.stream import sink
from lightning_sdk.trace.call import Span
from lightning_sdk.trace.scope import current_scope, effective_scope, new_span_id

#: Name of the span of a request to a model that no seam caught.
UNCAUGHT = "uncaught llm request"
#: Name of the span that says why an integration is off.
OFF = "integration off"
#: Name of the span that says that a reward gives different numbers for the same answer.
UNREPEATED = "reward not repeatable"

#: Begins the name of the span of a reward function that runs.
SCORING = "score"
#: Name of the span that says that several rollouts run one object of a framework.
SHARED = "agent shared by rollouts"

ADDRESS, PATH, MODEL = "server.address", "url.path", "gen_ai.request.model"
CLIENT, INTEGRATION, REASON = "lightning.client", "lightning.integration", "lightning.reason"
REWARD, AGAIN, DIFFERENT = "lightning.reward", "lightning.scored_again", "lightning.scored_differently"
OBJECT = "lightning.object"
FIRST, SECOND = "lightning.reward.first", "lightning.reward.second"


def report_uncaught(
    client: str, *, address: str, path: str, model: str, started_ns: int, error: BaseException | None = None
) -> None:
    """Tell of one request to a model that went out through `client`; `model` is '' where it is not known."""
    scope = effective_scope()
    told = "" if error is None else f"{type(error).__name__}: {error}"
    attributes = {ADDRESS: address, PATH: path, CLIENT: client, **({MODEL: model} if model else {})}
    now, status = time.time_ns(), "error" if told else "ok"
    span = Span(new_span_id(), scope.span, UNCAUGHT, scope.role, started_ns, now, status, told, attributes)
    sink.send_span(scope.rollout, span)


def report_integration_off(name: str, why: str) -> None:
    """Tell that the integration `name` is off from here on."""
    scope, now = current_scope(), time.time_ns()
    attributes = {INTEGRATION: name, REASON: why}
    sink.send_span(scope.rollout, Span(new_span_id(), scope.span, OFF, scope.role, now, now, "error", why, attributes))


def report_not_repeatable(reward: str, again: int, different: int, first: float, second: float) -> None:
    """Tell that so many of the answers that a reward scored again got another number, such as `second` for `first`."""
    scope, now = current_scope(), time.time_ns()
    attributes = {REWARD: reward, AGAIN: again, DIFFERENT: different, FIRST: first, SECOND: second}
    sink.send_span(
        scope.rollout, Span(new_span_id(), scope.span, UNREPEATED, scope.role, now, now, "ok", "", attributes)
    )


def report_shared_agent(name: str) -> None:
    """Tell that the object called `name` runs in this rollout and ran in another one before."""
    scope, now = current_scope(), time.time_ns()
    attributes = {OBJECT: name}
    sink.send_span(scope.rollout, Span(new_span_id(), scope.span, SHARED, scope.role, now, now, "ok", "", attributes))
