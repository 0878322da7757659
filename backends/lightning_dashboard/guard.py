"""The guard: which requests are answered, and what a browser is told never to do with the answers.

The page shows what agents and models wrote, so all of it is taken for hostile: only scripts and styles of this server
run, nothing is loaded from elsewhere, and no other page may read, frame or post anything.
"""

from __future__ import annotations

import hmac
from email.message import Message
from urllib.parse import urlsplit

from lightning_sdk.system.addresses import is_loopback

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Sent with every answer."""


def refusal(headers: Message) -> str:
    """Why a request is refused whatever it asks for, '' if it is not.

    A name that another page's name server points at this machine shows in Host, and another page in Origin.
    """
    host = headers.get("Host", "")
    if not _is_here(f"//{host}"):
        return f"Host {host!r} is not this machine: use 127.0.0.1 or localhost"
    origin = headers.get("Origin")
    if origin is not None and (not _is_here(origin) or urlsplit(origin).netloc != host):
        return f"a request of the web page {origin!r}: only the dashboard's own page is answered"
    if headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return "a request of another web page: only the dashboard's own page is answered"
    return ""


def is_authorized(headers: Message, token: str) -> bool:
    """Whether the request shows the token."""
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    return scheme == "Bearer" and hmac.compare_digest(given.encode(), token.encode())


def _is_here(address: str) -> bool:
    try:
        name = urlsplit(address).hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)
