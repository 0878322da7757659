"""The seam for the OpenAI SDK, 2.x and 3.x: every call of every framework that uses it passes here.

Calls of a trained role to the Responses API go to the engine as chat completions, because only these return token ids.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from lightning_sdk.integration import (
    BaseClientSeam,
    Patches,
    Translation,
    Untranslatable,
    effective_scope,
    require_version,
    translate_responses,
)

_NAMED = re.compile(r"/responses/(\w+)")
#: Ids of the translated responses that are remembered as such, the latest ones.
_MOST_IDS = 10_000
_made: OrderedDict[str, None] = OrderedDict()
_lock = threading.Lock()


def _translate(body: Mapping[str, Any], rollout: str) -> Translation:
    translation = translate_responses(body, rollout)
    with _lock:
        _made[translation.id] = None
        if len(_made) > _MOST_IDS:
            _made.popitem(last=False)
    return translation


class _OpenAI(BaseClientSeam):
    def building(self, original: Callable[..., Any]) -> Callable[..., Any]:
        build = super().building(original)

        def _build_request(client: Any, options: Any, **kwargs: Any) -> Any:
            if "/responses" in options.url:
                self._check_ids(options)
            return build(client, options, **kwargs)

        return _build_request

    def _check_ids(self, options: Any) -> None:
        """No provider knows a response that was translated here: its 404 would be a riddle."""
        named = _NAMED.search(options.url)
        if named and named[1] in _made:
            raise Untranslatable(
                f"{options.method.upper()} {options.url}: the response {named[1]} was made by the engine of a role "
                "that is trained, and no provider keeps it; use the object that responses.create() returned"
            )
        body = options.json_data if isinstance(options.json_data, Mapping) else {}
        previous = body.get("previous_response_id")
        if isinstance(previous, str) and previous in _made and effective_scope().endpoint() is None:
            raise Untranslatable(
                f"previous_response_id={previous!r} was made by the engine of a role that is trained, and the provider "
                "of this call does not know it; send the whole conversation in input instead"
            )


seam = _OpenAI(
    "openai",
    paths={"/chat/completions": None, "/completions": None, "/responses": _translate},
)


def instrument(patches: Patches) -> None:
    """Patch the OpenAI SDK; run by `lightning_sdk.init()` once `openai` is imported."""
    require_version("openai", "2.20", "4")
    from openai import _base_client  # noqa: PLC0415 - loaded only where the user has openai

    seam.instrument(patches, _base_client)
