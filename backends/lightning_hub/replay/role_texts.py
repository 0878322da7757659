"""Role texts: the prompts of each role, as the requests of a stored run show them.

`python -m lightning_hub.replay.role_texts FOLDER` prints them as one JSON object, given the marked texts as JSON on
standard input; `lightning-sdk prompts discover` does that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_hub.replay.stored_run import StoredRun
from lightning_sdk.errors import LightningError
from lightning_sdk.prompts.discovery import RoleRequest, RoleText, find_role_texts


def read_role_texts(run: StoredRun, marks: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each role that made a call, in the order of its first one: role, requests, tasks, and texts as plain data.

    Args:
        marks: Name of each text marked with `lightning.prompt` -> what it says.
    """
    by_role: dict[str, list[RoleRequest]] = {}
    for record in run.records():
        rollout = run.rollout(record)
        for call in () if rollout is None else rollout.calls:
            requests = by_role.setdefault(call.meta.role, [])
            if (body := _body(call.request)) is not None:
                requests.append(RoleRequest(task=str(record.entry.task_id), body=body))
    return [
        {
            "role": role,
            "requests": len(requests),
            "tasks": len({each.task for each in requests}),
            "texts": [_as_dict(text) for text in find_role_texts(requests, marks)],
        }
        for role, requests in by_role.items()
    ]


def _body(request: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(request)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _as_dict(text: RoleText) -> dict[str, Any]:
    return {
        "kind": text.kind,
        "tool": text.tool,
        "text": text.text,
        "holes": list(text.template.holes),
        "can_be_found": not text.template.holes or text.template.can_match,
        "requests": text.requests,
        "tasks": len(text.tasks),
        "marked": text.marked,
    }


def main() -> int:
    """Print the texts of a folder's run, or {"error": [class, message]}."""
    try:
        with StoredRun(Path(sys.argv[1])) as run:
            answer: object = {"roles": read_role_texts(run, json.load(sys.stdin))}
    except LightningError as error:
        answer = {"error": [type(error).__name__, str(error)]}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
