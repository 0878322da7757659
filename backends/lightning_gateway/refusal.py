"""The gateway's own errors, in the format of the caller's protocol."""

from __future__ import annotations

import json

from aiohttp import web

_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
}
_OPENAI = {401: "authentication_error", 403: "permission_error"}


class Refused(Exception):
    """The request is answered with this HTTP status and message."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def response(refused: Refused, *, anthropic: bool) -> web.Response:
    """`refused` as Anthropic's error object or as OpenAI's."""
    status, message = refused.status, refused.message
    body: dict[str, object]
    if anthropic:
        body = {"type": "error", "error": {"type": _ANTHROPIC.get(status, "api_error"), "message": message}}
    else:
        kind = _OPENAI.get(status, "invalid_request_error" if status < 500 else "server_error")
        body = {"error": {"message": message, "type": kind, "param": None, "code": refused.code or None}}
    return web.Response(body=json.dumps(body).encode(), status=status, content_type="application/json")
