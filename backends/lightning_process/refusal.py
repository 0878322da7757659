"""Refusals in OpenAI's shape, and the guard that puts every error of an application into it and asks for the key."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

#: Bodies larger than this are refused with 413.
MAX_BODY_BYTES = 64 * 1024 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadRequest(Exception):
    """A request that is answered with an error in OpenAI's shape."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, "invalid_request_error", param, code)


class Unavailable(RuntimeError):
    """Nothing is there that could answer: 503, which the SDK counts as a failure of ours and not of the agent."""


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def unknown_model(model: object, name: str) -> BadRequest:
    """The model `model` was asked for where only `name` is served."""
    return BadRequest(f"the model {model!r} is not served here; use {name!r}", "model", "model_not_found", 404)


def guard(key: str) -> Any:
    """Middleware: the bearer key on every route but /health, and every error in OpenAI's shape."""
    expected = f"Bearer {key}".encode()

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if request.path != "/health" and not hmac.compare_digest(given, expected):
                raise BadRequest(
                    "the key is missing or wrong: send 'Authorization: Bearer KEY'", None, "invalid_api_key", 401
                )
            return await handler(request)
        except BadRequest as error:
            return json_reply(error.body, error.status)
        except Unavailable as error:
            reply = json_reply(error_body(str(error), "server_error"), 503)
            reply.headers["x-should-retry"] = "false"  # of OpenAI's SDK: what could be tried again was
            return reply
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return json_reply(
                error_body(f"{request.method} {request.path}: {error.reason}", "invalid_request_error"), error.status
            )

    return guarded


def json_reply(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
