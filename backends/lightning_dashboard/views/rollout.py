"""One rollout: its spans on a time axis, the conversation, rewards with their reasons, and every attempt at it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_dashboard.attempt_reader import ReadAttempt, read_attempt, read_json, read_reply, read_request
from lightning_dashboard.query import ViewQuery
from lightning_dashboard.rollout_table import RolloutColumns
from lightning_dashboard.runs import Runs
from lightning_dashboard.views.rollouts import describe
from lightning_sdk.stream import notices
from lightning_sdk.trace import genai
from lightning_sdk.trace.call import Call, Span, root_span_id

_NOTICES = frozenset({
    notices.UNCAUGHT, notices.OFF, notices.UNREPEATED, notices.UNSEEN, notices.SHARED,
})  # fmt: skip
_MS = 1e6
#: Rollouts of its group that are listed.
_MOST_MATES = 256


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """One attempt at a rollout, by default the last."""
    run = runs.open(query.require("run"))
    read = read_attempt(run, query.require("rollout"), query.integer("attempt"))
    columns, attempt = run.rollouts(), read.attempt
    start = _start_ns(read)
    place = columns.places.get(attempt.key)
    return {
        "id": attempt.id,
        "attempt": attempt.attempt,
        "attempts": [_describe_try(each) for each in read.tries],
        "status": attempt.status,
        "error": attempt.error,
        "task": read_json(attempt.task),
        "answer": attempt.output or read.found.answer,
        "place": None if place is None else describe(columns, place, columns.scores()),
        "roles": _role_rewards(columns, place, read.calls),
        "rewards": [
            {**each._asdict(), "at": (each.time_ns - start) / _MS if each.time_ns else None} for each in read.rewards
        ],
        "weights": dict(columns.settings.credit.rewards),
        "started": start / 1e9,
        "spans": _spans(read, start),
        "turns": _turns(read.calls),
        "missing": read.missing,
        "group": _mates(columns, place),
    }


def _start_ns(read: ReadAttempt) -> int:
    times = [each.meta.started_ns for each in read.calls] + [each.started_ns for each in read.found.spans]
    if read.attempt.started:
        times.append(int(read.attempt.started * 1e9))
    return min((each for each in times if each), default=0)


def _describe_try(each: Any) -> dict[str, Any]:
    seconds = each.ended - each.started if each.started and each.ended else None
    return {
        "attempt": each.attempt,
        "status": each.status,
        "error": each.error,
        "started": each.started,
        "seconds": seconds,
        "runner": each.runner,
    }


def _role_rewards(columns: RolloutColumns, place: int | None, calls: Sequence[Call]) -> dict[str, float | None]:
    """What each role that spoke, or was rewarded, earned."""
    if place is None:
        return {}
    roles = dict.fromkeys([call.meta.role for call in calls if call.meta.trainable])
    roles |= dict.fromkeys(role for role, _, _ in columns.patterns[columns.given[place]])
    earned = {role: float(columns.scores(role)[place]) for role in roles if role}
    return {role: value if math.isfinite(value) else None for role, value in earned.items()}


def _mates(columns: RolloutColumns, place: int | None) -> list[dict[str, Any]]:
    """The rollouts of its group, itself among them."""
    if place is None:
        return []
    same = (columns.groups == columns.groups[place]) & (columns.modes == columns.modes[place])
    found = [describe(columns, each, columns.scores()) for each in np.flatnonzero(same)[:_MOST_MATES].tolist()]
    last = {each["id"]: each for each in sorted(found, key=lambda each: each["attempt"])}
    return [{name: each[name] for name in ("id", "attempt", "status", "reward")} for each in last.values()]


# --- the tree


def _spans(read: ReadAttempt, start: int) -> list[dict[str, Any]]:
    """The attempt itself, then every span and call in the order in which they began; times in milliseconds."""
    attempt, root = read.attempt, root_span_id(read.attempt.key)
    items = [_describe_span(each, start) for each in read.found.spans]
    items += [_describe_call(each, start) for each in read.calls]
    end = (attempt.ended * 1e9 - start) / _MS if attempt.ended else max((each["end"] for each in items), default=0.0)
    whole = {
        "id": root,
        "parent": "",
        "kind": "rollout",
        "name": "rollout",
        "role": "",
        "start": 0.0,
        "end": max(end, 0.0),
        "status": attempt.status,
        "error": attempt.error,
    }
    known = {root, *(each["id"] for each in items)}
    for each in items:  # what encloses it may be of a process that sent nothing
        each["parent"] = each["parent"] if each["parent"] in known else root
    return [whole, *sorted(items, key=lambda each: (each["start"], -each["end"]))]


def _describe_span(span: Span, start: int) -> dict[str, Any]:
    return {
        "id": span.id,
        "parent": span.parent,
        "kind": _kind(span),
        "name": span.name,
        "role": span.role,
        "start": (span.started_ns - start) / _MS,
        "end": (span.ended_ns - start) / _MS,
        "status": span.status,
        "error": span.error,
        "attributes": {name: _short(value) for name, value in span.attributes.items()},
    }


def _kind(span: Span) -> str:
    operation = span.attributes.get(genai.OPERATION)
    if span.name in _NOTICES:
        return "notice"
    if genai.FOREIGN in span.attributes:
        return "foreign"
    if operation == genai.EXECUTE_TOOL:
        return "tool"
    if span.name.startswith(notices.SCORING):
        return "reward"
    return "agent" if operation == genai.INVOKE_AGENT or span.role else "span"


def _short(value: Any, most: int = 4000) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _describe_call(call: Call, start: int) -> dict[str, Any]:
    meta = call.meta
    logprobs = np.concatenate([np.frombuffer(each.logprobs, "<f4") for each in call.choices] or [np.zeros(0)])
    versions = [version for each in call.choices for version, _ in each.versions]
    return {
        "id": meta.id,
        "parent": meta.parent,
        "kind": "call",
        "name": call.model or meta.path,
        "role": meta.role,
        "start": (meta.started_ns - start) / _MS,
        "end": (meta.ended_ns - start) / _MS,
        "status": meta.status,
        "error": meta.error,
        "problem": call.problem,
        "trainable": meta.trainable,
        "http_status": meta.http_status,
        "streamed": meta.streamed,
        "path": meta.path,
        "framework": meta.framework,
        "candidate": meta.candidate,
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "finish": [each.finish_reason for each in call.choices],
        "versions": [min(versions), max(versions)] if versions else None,
        "logprob": float(logprobs.mean()) if len(logprobs) else None,
    }


# --- the conversation


def _turns(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """For each call the messages that its role had not been sent before, and the replies."""
    before: dict[str, list[list[dict[str, Any]]]] = {}
    found = []
    for call in calls:
        messages = read_request(call)
        earlier = before.setdefault(call.meta.role, [])
        shared = max((_count_shared(each, messages) for each in earlier), default=0)
        replies = [read_reply(each) for each in call.choices]
        found.append(
            {
                "call": call.meta.id,
                "role": call.meta.role,
                "shared": shared,
                "messages": messages[shared:],
                "replies": replies,
                "error": call.meta.error or call.problem if call.meta.status != "ok" else "",
            }
        )
        earlier.append([*messages, *replies[:1]])
    return found


def _count_shared(before: Sequence[Any], now: Sequence[Any]) -> int:
    count = 0
    for one, other in zip(before, now, strict=False):
        if one != other:
            break
        count += 1
    return count
