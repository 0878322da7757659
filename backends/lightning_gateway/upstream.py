"""The upstream: the server for requests that are not trained, with the headers and the proxy to use."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from lightning_gateway.caller import ROLE_HEADER
from lightning_sdk.errors import SettingError

_OPENAI, _ANTHROPIC = "https://api.openai.com", "https://api.anthropic.com"
KEY = "LIGHTNING_UPSTREAM_KEY"
"""Environment variable with the API key for the server given as upstream."""

#: Headers of a single connection (RFC 9110, 7.6.1), and headers that are set again for each request.
_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te",
                  "trailer", "transfer-encoding", "upgrade", "host", "expect"})  # fmt: skip
_CREDENTIALS = ("authorization", "x-api-key", "api-key")
#: Content encodings that can be decoded here.
_READABLE = frozenset({"gzip", "deflate", "identity"})
#: The only headers that our engines get from a caller; the rest is meant for the caller's provider.
_TO_ENGINE = ("user-agent", "accept", "x-request-id", "traceparent", "tracestate")


Headers = list[tuple[str, str]]


class Upstream:
    """The server for calls that are not trained."""

    def __init__(self, given: str | None = None) -> None:
        """`given` gets all calls. Without it, calls go where OPENAI_BASE_URL and ANTHROPIC_BASE_URL point, else to
        OpenAI and Anthropic. SettingError if it is not a URL."""
        if given is not None and (urlsplit(given).scheme not in {"http", "https"} or not urlsplit(given).netloc):
            raise SettingError(f"upstream {given!r}: expected a URL such as https://api.openai.com")
        self._given = given
        self.openai = (given or os.environ.get("OPENAI_BASE_URL") or _OPENAI).rstrip("/")
        self.anthropic = (given or os.environ.get("ANTHROPIC_BASE_URL") or _ANTHROPIC).rstrip("/")

    def url(self, path: str, query: str, *, anthropic: bool) -> str:
        """The server's URL for `path`, which begins with /v1 in both protocols."""
        base = self.anthropic if anthropic else self.openai
        if base.endswith("/v1"):
            base = base.removesuffix("/v1")
        elif urlsplit(base).path and not anthropic:  # a base URL with another version prefix
            path = path.removeprefix("/v1")
        return base + path + (f"?{query}" if query else "")

    def credential(self, *, anthropic: bool) -> tuple[str, str] | None:
        """Header and value of our own key for the server. A key is only sent to the host that it belongs to."""
        host = urlsplit(self.anthropic if anthropic else self.openai).netloc
        mine = [
            (os.environ.get("OPENAI_BASE_URL") or _OPENAI, os.environ.get("OPENAI_API_KEY")),
            (os.environ.get("ANTHROPIC_BASE_URL") or _ANTHROPIC, os.environ.get("ANTHROPIC_API_KEY")),
        ]
        keys = [os.environ.get(KEY) if self._given else None]
        keys += [each for url, each in (reversed(mine) if anthropic else mine) if urlsplit(url).netloc == host]
        key = next(filter(None, keys), None)
        if key is None:
            return None
        return ("x-api-key", key) if anthropic else ("authorization", f"Bearer {key}")

    def __str__(self) -> str:
        return self.openai if self.openai == self.anthropic else f"{self.openai} and {self.anthropic}"


def request_headers(
    headers: Iterable[tuple[bytes, bytes]], credential: tuple[str, str] | None, *, own: bool, recorded: bool
) -> Headers:
    """The caller's headers for the provider.

    Args:
        credential: Our own key, for callers without one.
        own: Pass the caller's own key on.
        recorded: The reply must be decodable here.
    """
    listed = _decode_headers(headers)
    drop = _HOP | _connection_headers(listed) | {ROLE_HEADER} | (frozenset() if own else frozenset(_CREDENTIALS))
    kept = [(name, value) for name, value in listed if name.lower() not in drop]
    if recorded:
        kept = [(name, _readable(value) if name.lower() == "accept-encoding" else value) for name, value in kept]
    return kept if own or credential is None else [*kept, credential]


def reply_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The provider's headers for the caller."""
    listed = _decode_headers(headers)
    drop = _HOP | _connection_headers(listed)
    return [(name, value) for name, value in listed if name.lower() not in drop]


def engine_headers(headers: Mapping[str, str], shown: Mapping[str, str]) -> Headers:
    """Headers of a trained call: those `shown` to the engine, and nothing that the caller meant for its provider."""
    kept = [(name, headers[name]) for name in _TO_ENGINE if name in headers]
    return [*kept, *shown.items(), ("content-type", "application/json"), ("accept-encoding", "identity")]


def proxy_for(url: str) -> str | None:
    """The proxy for this URL, from the environment."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in {"localhost", "127.0.0.1", "::1"} or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _decode_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers as text, in their original case."""
    return [(_decode(name), _decode(value)) for name, value in headers]


def _decode(part: bytes) -> str:
    return part.decode("utf-8", "surrogateescape")  # which aiohttp undoes


def _connection_headers(headers: Headers) -> frozenset[str]:
    values = ",".join(value for name, value in headers if name.lower() == "connection")
    return frozenset(name.strip().lower() for name in values.split(",") if name.strip())


def _readable(value: str) -> str:
    names = [each.strip() for each in value.split(",")]
    return ", ".join(each for each in names if each.split(";")[0].lower() in _READABLE) or "identity"
