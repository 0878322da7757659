"""The seam for the OpenAI SDK, 2.x and 3.x: every call of every framework that uses it passes here."""

from __future__ import annotations

from typing import Any

from lightning_sdk.patches import Patches
from lightning_sdk.seam import OpenCall
from lightning_sdk.sink import say_once
from lightning_sdk.speaking import require
from lightning_sdk.stainless import Seam


class _OpenAI(Seam):
    def _open_call(self, options: Any) -> OpenCall | None:
        call = super()._open_call(options)
        if call is not None and call.endpoint is not None and options.url.split("?")[0].endswith("/responses"):
            say_once(
                f"responses {call.role}",
                "lightning: role %r speaks the Responses API, which gives no token ids: its calls are recorded but "
                "cannot be trained on; use chat.completions in this agent",
                call.role,
            )
            call.endpoint = None
        return call


seam = _OpenAI(
    "openai",
    paths={"/chat/completions": None, "/completions": None, "/responses": None},
    private=(b"api-key", b"openai-organization", b"openai-project", b"cookie"),
)


def instrument(patches: Patches) -> None:
    """Patch the OpenAI SDK; run by `lightning_sdk.init()` once `openai` is imported."""
    require("openai", "2.20", "4")
    from openai import _base_client  # noqa: PLC0415 - loaded only where the user has openai

    seam.instrument(patches, _base_client)
