"""Addresses: which machines an address can be reached from, and under which name."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit, urlunsplit

LOOPBACK = "127.0.0.1"
#: Connections that a server of ours keeps until it takes them. A step's rollouts call all at once; of those that find
#: no room, as with the 128 of aiohttp, each tries again a second later, and two seconds after that.
BACKLOG = 4096
_WILDCARDS = {"0.0.0.0", "::", "*"}
#: Seconds for somebody to answer at an address.
_ANSWER_SECONDS = 10.0


def host_of(address: str) -> str:
    """The host of tcp://HOST:PORT or of a URL, without brackets; loopback of ipc://, which stays on this machine."""
    return (urlsplit(address).hostname or LOOPBACK) if not address.startswith("ipc:") else LOOPBACK


def is_wildcard(host: str) -> bool:
    """Whether it stands for every interface: one can listen on it, and nobody can call it."""
    return host in _WILDCARDS


def is_loopback(host: str) -> bool:
    """Whether only processes of the same machine reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable_address(address: str, through: str) -> str:
    """`address`, where a wildcard host is replaced by the host of `through`, another address of the same machine."""
    if not is_wildcard(host_of(address)):
        return address
    parts = urlsplit(address)
    port = f":{parts.port}" if parts.port is not None else ""
    return urlunsplit(parts._replace(netloc=literal(host_of(through)) + port))


def literal(host: str) -> str:
    """A host as addresses have it."""
    return f"[{host}]" if ":" in host else host


def unreachable_reason(ray: str) -> str:
    """Why nobody can be asked at the address of a Ray (HOST:PORT, ray://HOST:PORT, auto), which itself tries for
    minutes; '' where somebody listens, and for 'auto', of which only Ray knows."""
    if ray == "auto":
        return ""
    host, _, port = ray.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def own_name() -> str:
    """A name by which other machines probably reach this one: its address on the way out, else its host name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of documentation (RFC 5737); a datagram socket sends nothing to connect
            found: str = probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
    return socket.gethostname() if is_loopback(found) or is_wildcard(found) else found
