"""Health: whether a vLLM server and its engine are alive."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from lightning_vllm.pool import ServerAddress


def is_healthy(upstream: ServerAddress, seconds: float) -> bool:
    """Whether its /health, which needs no key, answers 200 within `seconds`. Proxies are not used."""
    connection = HTTPConnection(urlsplit(upstream.url).netloc, timeout=seconds)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
