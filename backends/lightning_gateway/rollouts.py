"""Rollouts over HTTP: begin one with a task, give it rewards, and end it, from any language."""

from __future__ import annotations

import hmac
import json
import os
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web

from lightning_gateway.caller import api_key
from lightning_gateway.grant import Grant, Grants
from lightning_gateway.refusal import Refused
from lightning_sdk.errors import RewardError
from lightning_sdk.markers.reward import as_reason, as_rewards
from lightning_sdk.markers.rollout import end
from lightning_sdk.stream import sink
from lightning_sdk.stream.plain_data import NotPlain, plain_object
from lightning_sdk.trace.call import Status
from lightning_sdk.trace.scope import RolloutScope, Scope


class RolloutRoutes:
    """The endpoints under /rollouts. They send the same events as `lightning.rollout`."""

    def __init__(self, grants: Grants, token: str, environment: Callable[[Grant], dict[str, str]]) -> None:
        """`token` is required to begin a rollout; the key of a rollout to reward and end it."""
        self._grants, self._environment = grants, environment
        self._expected = token.encode()

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/rollouts", self.begin)
        app.router.add_post("/rollouts/{key}/reward", self.reward)
        app.router.add_post("/rollouts/{key}/end", self.end)

    async def begin(self, request: web.Request) -> web.Response:
        """{"task": object, "role": text} -> 201 {"id", "key", "base_url", "environment"}."""
        if not hmac.compare_digest(api_key(request.headers).encode("utf-8", "surrogateescape"), self._expected):
            raise Refused(
                401,
                "beginning a rollout needs the gateway's token, which it printed when it started: "
                "send 'Authorization: Bearer TOKEN'",
                "invalid_token",
            )
        body = await _body(request, {"task": dict, "role": str})
        try:
            task = plain_object(body.get("task", {}))
        except NotPlain as error:
            raise Refused(400, f"'task'{error}", "task") from None
        rollout = RolloutScope(uuid.uuid4().hex, os.urandom(16))
        grant = self._grants.begin(Scope(rollout=rollout, role=body.get("role", "")))
        sink.send_begin(rollout, task)
        environment = self._environment(grant)
        answer = {
            "id": rollout.id,
            "key": grant.key,
            "base_url": environment["OPENAI_BASE_URL"],
            "environment": environment,
        }
        return _answer(answer, 201)

    async def reward(self, request: web.Request) -> web.Response:
        """{"value": number or {role: number}, "role": text, "name": text, "why": text} -> {}."""
        _, rollout = self._of(request)
        body = await _body(request, {"value": object, "role": str, "name": str, "why": str})
        role, name = body.get("role", ""), body.get("name", "step")
        try:
            numbers = as_rewards(body.get("value"), "the field 'value'")
        except RewardError as error:
            raise Refused(400, str(error), "reward") from None
        if role and list(numbers) != [""]:
            raise Refused(400, "'value' already names its roles: leave 'role' out", "reward")
        why = as_reason(body.get("why", ""), "the field 'why'")
        for each, number in numbers.items():
            sink.send_reward(rollout, number, each or role, name, "", why=why)
        return _answer({})

    async def end(self, request: web.Request) -> web.Response:
        """{"status": text, "error": text, "answer": anything} -> {"id", "calls"}. Running calls are cancelled."""
        grant, rollout = self._of(request)
        body = await _body(request, {"status": str, "error": str, "answer": object})
        if not grant.closable:
            raise Refused(403, "the program that began this rollout ends it, when its agent returns", "ended")
        try:
            status = Status(body.get("status", "ok"))
        except ValueError:
            known = ", ".join(Status)
            raise Refused(400, f"unknown status {body['status']!r}; expected one of: {known}", "status") from None
        end(rollout, status, body.get("error", ""), body.get("answer"))
        return _answer({"id": rollout.id, "calls": grant.calls})

    def abandon(self) -> None:
        """End the rollouts that nobody can end after the gateway has stopped."""
        for grant in self._grants.active():
            if grant.closable and grant.scope.rollout is not None:
                end(
                    grant.scope.rollout, Status.INFRASTRUCTURE_ERROR, "the gateway was stopped before the rollout ended"
                )

    def _of(self, request: web.Request) -> tuple[Grant, RolloutScope]:
        grant = self._grants.find(request.match_info["key"])
        if grant is None or grant.scope.rollout is None:
            raise Refused(
                404,
                "no rollout with this key is running: it has ended, or its key is incomplete",
                "rollout_not_found",
            )
        return grant, grant.scope.rollout


async def _body(request: web.Request, fields: dict[str, type]) -> dict[str, Any]:
    """The JSON object of a request, with fields of these types. Refused if it is anything else."""
    raw = await request.read()
    try:
        body = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, f"the body is a JSON {type(body).__name__}: expected an object with {', '.join(fields)}")
    for name, value in body.items():
        if name not in fields:
            raise Refused(400, f"unknown field {name!r}; expected: {', '.join(fields)}")
        if not isinstance(value, fields[name]):
            raise Refused(400, f"{name!r} is a JSON {type(value).__name__}: expected {fields[name].__name__}")
    return body


def _answer(value: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), status=status, content_type="application/json")
