"""Task lists on their way to a hub: a list that is too long for one message is sent ahead, in parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lightning_sdk.hub.client import HubClient
from lightning_sdk.hub.run_request import RunRequest
from lightning_sdk.stream import wire

#: Bytes of one part, about: the hub has checked it long before its answer is missed.
PART_BYTES = 4 * 2**20


def send_ahead(client: HubClient, request: RunRequest) -> RunRequest:
    """The request, in which each long list of tasks is the name of one that the hub has by now."""
    tasks, held_out = (_send(client, "tasks", request.tasks), _send(client, "held_out", request.held_out))
    return replace(request, tasks=tasks, held_out=held_out)


def _send(client: HubClient, name: str, tasks: Any) -> Any:
    parts = list(_parts(tasks)) if isinstance(tasks, list) else []
    if len(parts) < 2:
        return tasks
    number, first = os.urandom(8).hex(), 0
    for part in parts:
        client.ask("tasks", list=number, name=name, first=first, tasks=part)
        first += len(part)
    return {"list": number}


def _parts(tasks: list[Any]) -> Iterator[list[Any]]:
    part, size = list[Any](), 0
    for task in tasks:
        part.append(task)
        size += len(wire.pack(task))
        if size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
