"""The caller of a request: its rollout and role, from the URL, the headers and the API key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote

from lightning_gateway.grant import PREFIX, Grant, Grants
from lightning_gateway.refusal import Refused
from lightning_sdk.markers.agent import declared
from lightning_sdk.trace.scope import Scope

ROLE_HEADER = "x-lightning-role"
_PATH = re.compile(r"(?:/rollout/(?P<key>[^/]+))?(?:/role/(?P<role>[^/]+))?(?P<rest>/.*|$)")
_LONGEST_ROLE = 200


@dataclass(frozen=True)
class Caller:
    """The caller of a request."""

    scope: Scope
    grant: Grant | None
    """None: the request names no rollout, and the call is recorded outside of any."""
    path: str
    """Path of the request for the provider, still percent-encoded."""
    has_key: bool
    """Whether the request has its own API key, which is passed on."""


def caller(grants: Grants, raw_path: str, headers: Mapping[str, str], default_role: str) -> Caller:
    """The caller of this request.

    The role is taken from the header, else from the URL, else from the API key's label, else from the code that made
    the key.

    Raises:
        Refused: the key is unknown, its rollout has ended, or URL and API key name different rollouts.
    """
    found = _PATH.fullmatch(raw_path)
    assert found is not None  # the pattern matches every path
    in_url = unquote(found["key"] or "")
    shown = api_key(headers)
    in_key, _, label = shown.partition(".") if shown.startswith(PREFIX) else ("", "", "")
    if in_url and in_key and in_url != in_key:
        raise Refused(
            401,
            "the URL and the API key name two different rollouts: use one rollout's URL with its own "
            "key, or with your provider's key",
            "two_rollouts",
        )
    grant = _grant(grants, in_url, in_key)
    said = headers.get(ROLE_HEADER, "") or unquote(found["role"] or "") or label
    if len(said) > _LONGEST_ROLE:
        raise Refused(400, f"the role is {len(said)} characters long; at most {_LONGEST_ROLE} are allowed", "role")
    scope = grant.scope if grant is not None else Scope()
    if said:
        scope = replace(scope, role=said, named=True, trainable=declared.get(said, scope.trainable))
    elif not scope.role:
        scope = replace(scope, role=default_role)
    return Caller(scope, grant, found["rest"] or "/", bool(shown) and not in_key)


def _grant(grants: Grants, in_url: str, in_key: str) -> Grant | None:
    if not in_url and not in_key:
        return None
    grant = grants.find(in_url or in_key)
    if grant is not None:
        return grant
    where, status = ("URL", 404) if in_url else ("API key", 401)
    raise Refused(
        status,
        f"the {where} names no rollout that is running here: it has ended, or its key is incomplete; begin one with "
        "POST /rollouts or lightning.gateway_environment()",
        "rollout_not_found",
    )


def api_key(headers: Mapping[str, str]) -> str:
    """The API key of a request, or ''."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value:
        return value.strip()
    return headers.get("x-api-key", "") or headers.get("api-key", "")
