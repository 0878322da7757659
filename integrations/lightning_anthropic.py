"""The seam for the Anthropic SDK: all calls are recorded, and those of a trained role go to the engine as chat.

Requests that count tokens, and batches, are not treated as calls to a model and pass untouched.
"""

from __future__ import annotations

from typing import Any

from lightning_sdk.integration import BaseClientSeam, Patches, Untranslatable, require_version, translate_messages

#: Clients that sign each request for AWS after everything else, and read AWS's own framing of streams.
_SIGNING = ("anthropic.lib.bedrock", "anthropic.lib.aws")


class _Anthropic(BaseClientSeam):
    def check_client(self, client: Any) -> None:
        if any(kind.__module__.startswith(_SIGNING) for kind in type(client).__mro__):
            raise Untranslatable(
                f"a trained role makes its calls through {type(client).__name__}, which signs them for AWS, so they "
                "cannot be sent elsewhere; use anthropic.Anthropic() in this agent while it is trained"
            )


seam = _Anthropic(
    "anthropic",
    # Of the SDK's own server; then as its clients for Google's and Amazon's clouds write it.
    paths=dict.fromkeys(
        ("/v1/messages", ":rawPredict", ":streamRawPredict", "/invoke", "/invoke-with-response-stream"),
        translate_messages,
    ),
)


def instrument(patches: Patches) -> None:
    """Patch the Anthropic SDK; run by `lightning_sdk.init()` once `anthropic` is imported."""
    require_version("anthropic", "0.40", "3")
    from anthropic import _base_client  # noqa: PLC0415 - loaded only where the user has anthropic

    seam.instrument(patches, _base_client)
