"""The safety net: notices requests to language models that no seam caught, and reports them without touching them.

It sits where HTTP leaves a process: `send` of httpx and httpx2, aiohttp's session, and http.client, through which
requests, urllib3, botocore and urllib go. A seam marks what it saw with `SEEN`.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lightning_sdk.integration import (
    SEEN,
    Patches,
    cover_requests,
    harmless,
    is_covered,
    is_listening,
    report_uncaught,
    say_once,
)

#: Nobody serves anything but a language model here.
_SURE = re.compile(
    r"/chat/completions$|/v\d+/(completions|responses|messages)$|/api/(chat|generate)$|:(stream)?generatecontent$"
    r"|/(converse|invoke)(-with-response)?(-stream)?$",
    re.IGNORECASE,
)
#: Models that give no text, asked with bodies that look the same.
_OTHER = re.compile(r"/(embeddings?|rerank|moderations|classif\w+|score|tokenize|images/\w+|audio/\w+)$", re.IGNORECASE)
#: A body is looked into up to here.
_BODY_BYTES = 4 * 2**20
#: Begins the path of a call to the gateway, which records it.
_GATEWAY = "/rollout/lr-"


class _Request(NamedTuple):
    """What a net sees of a request."""

    method: str
    url: str
    body: Any = b""
    """Bytes or text as they are sent, or the value that becomes JSON."""


class _ModelRequest(NamedTuple):
    """A request to a language model."""

    address: str
    path: str
    model: str
    """'' where it is not known."""


def httpx(patches: Patches) -> None:
    """Watch httpx; run once it is imported."""
    _watch_httpx(patches, sys.modules["httpx"])


def httpx2(patches: Patches) -> None:
    """Watch httpx2; run once it is imported."""
    _watch_httpx(patches, sys.modules["httpx2"])


def _watch_httpx(patches: Patches, module: Any) -> None:
    name = module.__name__

    def describe(self: Any, request: Any, *_: Any, **__: Any) -> _Request | None:
        body = getattr(request, "_content", b"")  # a body that is streamed is not there, and is left alone
        return None if SEEN in request.extensions else _Request(request.method, str(request.url), body)

    patches.wrap(module.Client, "send", lambda original: _wrap(original, name, describe))
    patches.wrap(module.AsyncClient, "send", lambda original: _wrap_async(original, name, describe))


def aiohttp(patches: Patches) -> None:
    """Watch aiohttp's client; run once aiohttp is imported."""
    module = sys.modules["aiohttp"]

    def describe(self: Any, method: str, url: Any, *_: Any, **options: Any) -> _Request | None:
        if SEEN in (options.get("trace_request_ctx") or ()):  # aiohttp's word for what a request carries along
            return None
        base = getattr(self, "_base_url", None)
        whole = str(base.join(type(base)(url)) if base is not None else url)
        return _Request(method, whole, options.get("json") or options.get("data"))

    patches.wrap(module.ClientSession, "_request", lambda original: _wrap_async(original, "aiohttp", describe))


def http_client(patches: Patches) -> None:
    """Watch http.client, and so requests, urllib3, botocore and urllib; run once it is imported."""
    module = sys.modules["http.client"]

    def describe(self: Any, method: str, url: str, *_: Any, **__: Any) -> _Request:
        # The body follows later and is not waited for: here the path alone decides.
        host = getattr(self, "_tunnel_host", None) or self.host
        return _Request(method, url if "://" in url else f"//{host}{url}")

    patches.wrap(module.HTTPConnection, "putrequest", lambda original: _wrap(original, "http.client", describe))


# --- around a request


def _wrap(original: Callable[..., Any], client: str, describe: Callable[..., _Request | None]) -> Callable[..., Any]:
    def send(*args: Any, **kwargs: Any) -> Any:
        if not is_listening() or is_covered():
            return original(*args, **kwargs)
        with _notice(client, lambda: describe(*args, **kwargs)):
            return original(*args, **kwargs)

    return send


def _wrap_async(
    original: Callable[..., Any], client: str, describe: Callable[..., _Request | None]
) -> Callable[..., Any]:
    async def send(*args: Any, **kwargs: Any) -> Any:
        if not is_listening() or is_covered():
            return await original(*args, **kwargs)
        with _notice(client, lambda: describe(*args, **kwargs)):
            return await original(*args, **kwargs)

    return send


@contextlib.contextmanager
def _notice(client: str, describe: Callable[[], _Request | None]) -> Iterator[None]:
    """Tell of the request if it is one to a model; a client inside (aiohttp under httpx) does not tell again."""
    started = time.time_ns()
    asked = harmless(f"looking at a request of {client}", lambda: _model_request(describe()))
    error: BaseException | None = None
    try:
        with cover_requests():
            yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        if asked is not None:
            harmless("reporting an uncaught call", lambda: _tell(client, asked, started, error))


def _model_request(request: _Request | None) -> _ModelRequest | None:
    """The request if it is one to a language model; None for any other, and for one that a seam caught."""
    if request is None or request.method.upper() != "POST":
        return None
    place = urlsplit(request.url)
    path = place.path.rstrip("/")
    if path.startswith(_GATEWAY):
        return None
    if _OTHER.search(path):
        return None
    model = _model(request.body)
    if model is None and not _SURE.search(path):
        return None
    return _ModelRequest(place.hostname or "", place.path, model or "")


def _model(body: Any) -> str | None:
    """The model that a body asks to answer, None if it asks none."""
    if isinstance(body, str):
        body = body.encode()
    if isinstance(body, bytes):
        asks = any(name in body for name in (b'"messages"', b'"input"', b'"prompt"', b'"contents"'))
        if not (asks and b'"model"' in body and len(body) <= _BODY_BYTES):
            return None
        try:
            body = json.loads(body)
        except ValueError:
            return None
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return None
    return body["model"] if body.keys() & {"messages", "input", "prompt", "contents"} else None


def _tell(client: str, asked: _ModelRequest, started: int, error: BaseException | None) -> None:
    where = f"{asked.address}{asked.path}"
    say_once(
        f"uncaught {where}",
        "lightning: a call to a model at %s went out through %s, which no integration "
        "reads: it is not recorded, and cannot be trained on. Make it with the OpenAI SDK, the Anthropic SDK or "
        "LiteLLM, or send it through `lightning-sdk gateway`",
        where,
        client,
    )
    report_uncaught(client, address=asked.address, path=asked.path, model=asked.model, started_ns=started, error=error)
