"""Errors in OpenAI's format, and the guard that checks the key and returns every error in that format."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from lightning_hub import rollout_key
from lightning_sdk.capture.seam import ROLLOUT_HEADER
from lightning_sdk.system.web_pages import refusal

#: Completions that one request may ask for: its prompts times `n`.
MAX_COMPLETIONS = 2048
#: Bodies larger than this are refused with 413.
MAX_BODY_BYTES = 64 * 1024 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadRequest(Exception):
    """A request that is answered with an error in OpenAI's format."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, "invalid_request_error", param, code)


class Unavailable(RuntimeError):
    """Nothing can answer: 503, which the SDK counts as an infrastructure failure and not as the agent's."""


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def refuse_too_many(prompts: int, n: int) -> None:
    """Raise BadRequest if one request asks for more completions than allowed."""
    if prompts * n > MAX_COMPLETIONS:
        raise BadRequest(
            f"the request asks for {prompts * n:,} completions (prompts: {prompts:,}, n: {n}); at most "
            f"{MAX_COMPLETIONS:,} are allowed: split them into several requests",
            "prompt" if prompts > 1 else "n",
            "too_many_completions",
        )


def unknown_model(model: object, name: str) -> BadRequest:
    """For a request that asks for `model` where only `name` is served."""
    return BadRequest(f"the model {model!r} is not served here; use {name!r}", "model", "model_not_found", 404)


def guard(key: str, *, of_rollouts: bool = False) -> Any:
    """Middleware: requires the bearer key on every route except /health, refuses web pages, and returns every error in
    OpenAI's format.

    With `of_rollouts`, keys derived from it by `lightning_hub.rollout_key` are accepted too, each for its own rollout.
    """

    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if why := refusal(request.headers, _local(request)):
                raise BadRequest(why, None, "not_for_pages", 403)
            if request.path != "/health" and not _is_authorized(request, key, of_rollouts):
                raise BadRequest(
                    "the key is missing or wrong, or its rollout is over: send 'Authorization: Bearer KEY'",
                    None,
                    "invalid_api_key",
                    401,
                )
            return await handler(request)
        except BadRequest as error:
            return json_reply(error.body, error.status)
        except Unavailable as error:
            reply = json_reply(error_body(str(error), "server_error"), 503)
            reply.headers["x-should-retry"] = "false"  # for OpenAI's SDK: retries have already been made here
            return reply
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return json_reply(
                error_body(f"{request.method} {request.path}: {error.reason}", "invalid_request_error"), error.status
            )

    return handle


def _is_authorized(request: web.Request, key: str, of_rollouts: bool) -> bool:
    """Whether a request has this key, or the key of the rollout that it belongs to."""
    given = request.headers.get("Authorization", "")
    if hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {key}".encode()):
        return True
    rollout = rollout_key.owner(key, given.removeprefix("Bearer ")) if of_rollouts else None
    return rollout is not None and request.headers.get(ROLLOUT_HEADER, rollout) == rollout


def _local(request: web.Request) -> str:
    """The address of this machine at which a request arrived."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return str(name[0]) if name else ""


def json_reply(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
