"""Web pages: whether an HTTP request may come from a web page, which our servers always refuse.

A page in a browser can post to every port of its user's machine, and with DNS rebinding (a name that belongs to the
page and suddenly means 127.0.0.1) also read the answer. The headers that browsers send, Origin and Host, reveal both.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping

from lightning_sdk.system.addresses import is_loopback

_PORT = re.compile(r":\d+$")


def refusal(headers: Mapping[str, str], local: str) -> str:
    """Why a request is refused, '' if it is not.

    Args:
        headers: Of the request; names in any case, if the mapping does not mind.
        local: The address of this machine that it came in by. Only a loopback address is nobody else's business: any
            other has the names that its network gives it, so that Host says nothing.
    """
    origin = headers.get("Origin", "")
    if origin or headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return f"a request of the web page {origin or 'of another site'!r}: nothing here is for pages in a browser"
    host = _PORT.sub("", headers.get("Host", "")).strip("[]").lower()
    if not host or not is_loopback(local) or _is_own(host):
        return ""
    return f"Host {host!r} is not a name of this machine: use 127.0.0.1, localhost, or {socket.gethostname()!r}"


def _is_own(host: str) -> bool:
    """Whether it cannot be a name that somebody else's name server gave this machine."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host in {"localhost", socket.gethostname().lower()} or host.endswith(".localhost")
    return True
