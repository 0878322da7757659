"""One call: the request as it was sent, and the reply as it was read."""

from __future__ import annotations

from typing import Any

from lightning_dashboard.attempt_reader import read_attempt, read_json, read_reply, read_request
from lightning_dashboard.query import ViewQuery
from lightning_dashboard.runs import Runs
from lightning_sdk.trace.call import Call


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """LookupError if the attempt has no such call."""
    run = runs.open(query.require("run"))
    read = read_attempt(run, query.require("rollout"), query.integer("attempt"))
    wanted = query.require("call")
    call = next((each for each in read.calls if each.meta.id == wanted), None)
    if call is None:
        raise LookupError(f"the rollout has no call {wanted}")
    return describe_call(call)


def describe_call(call: Call) -> dict[str, Any]:
    """Its request as messages and as JSON, and its replies."""
    return {
        "id": call.meta.id,
        "request": read_json(call.request),
        "messages": read_request(call),
        "replies": [
            {
                "index": choice.index,
                "message": read_reply(choice),
                "raw": read_json(choice.message),
                "finish": choice.finish_reason,
                "tokens": len(choice.token_ids) // 4,
                "versions": choice.versions,
            }
            for choice in call.choices
        ],
        "response_id": call.response_id,
        "unread": call.reply.decode(errors="replace"),
    }
