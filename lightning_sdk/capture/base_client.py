"""The seam of SDKs that Stainless generates, OpenAI's and Anthropic's: each of their calls passes one base client.

A request is rewritten in `_build_request` and its reply captured in `_process_response`, because every tool that also
patches such an SDK leaves those two alone. `request` only opens and closes the call around retries and errors. The
calling thread keeps the raw bytes and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from lightning_sdk.capture.engine_transport import route_to_engine
from lightning_sdk.capture.patches import Patches
from lightning_sdk.capture.response_tap import replace_content, tap
from lightning_sdk.capture.seam import SEEN, OpenCall, open_call
from lightning_sdk.capture.unasked_fields import UnaskedFields
from lightning_sdk.errors import UnsupportedVersion
from lightning_sdk.stream.sink import harmless
from lightning_sdk.translation import Translation

#: Where a request carries its call and its translation, on its way to its response.
_KEY = "lightning_call"
#: The one path that needs no logprobs flag but a number; every other goes to chat completions.
_TEXT = "/completions"
_CHAT = "/chat/completions"


class BaseClientSeam:
    """The seam of one SDK.

    Args:
        framework: The SDK's distribution, on spans and in messages.
        paths: How the path of a call to a model ends -> how its request, and the id of its rollout, is put in terms
            of chat completions; None: it is in those terms. The first that fits counts.
    """

    def __init__(
        self,
        framework: str,
        paths: Mapping[str, Callable[[Mapping[str, Any], str], Translation] | None],
    ) -> None:
        self.framework = framework
        self._paths, self._ends = paths, tuple(paths)
        self._open: ContextVar[tuple[OpenCall, Any] | None] = ContextVar(f"lightning_{framework}_call", default=None)

    def instrument(self, patches: Patches, base: Any) -> None:
        """Patch `base`, the module `_base_client` of the SDK; UnsupportedVersion if it is not as we know it."""
        needed = [
            (base.SyncAPIClient, "request"),
            (base.AsyncAPIClient, "request"),
            (base.BaseClient, "_build_request"),
            (base.SyncAPIClient, "_process_response"),
            (base.AsyncAPIClient, "_process_response"),
        ]
        if missing := [name for owner, name in needed if not hasattr(owner, name)]:
            raise UnsupportedVersion(f"this {self.framework} has no {', '.join(missing)} in its base client")
        patches.wrap(base.BaseClient, "_build_request", self.building)
        if hasattr(base.BaseClient, "_make_status_error_from_response"):
            patches.wrap(base.BaseClient, "_make_status_error_from_response", self.refusing)
        for client, bracket, process in (
            (base.SyncAPIClient, self.requesting, self.processing),
            (base.AsyncAPIClient, self.arequesting, self.aprocessing),
        ):
            patches.wrap(client, "_process_response", process)
            # Other tools may have put their own `request` on a subclass; ours must still be the outermost.
            for owner in (client, *(each for each in _subclasses(client) if "request" in vars(each))):
                patches.wrap(owner, "request", bracket)

    # --- request: open, and close on errors

    def requesting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def request(client: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
            call = None if self._is_inner(options) else self._try_open_call(options)
            if call is None:
                return original(client, cast_to, options, **kwargs)
            token = self._open.set((call, options))
            try:
                return original(client, cast_to, options, **kwargs)
            except BaseException as error:
                self._fail_call(call, error)
                raise
            finally:
                self._open.reset(token)

        return request

    def arequesting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def request(client: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
            call = None if self._is_inner(options) else self._try_open_call(options)
            if call is None:
                return await original(client, cast_to, options, **kwargs)
            token = self._open.set((call, options))
            try:
                return await original(client, cast_to, options, **kwargs)
            except BaseException as error:
                self._fail_call(call, error)
                raise
            finally:
                self._open.reset(token)

        return request

    def _is_inner(self, options: Any) -> bool:
        """Both a subclass's `request` and its base's are ours: only the outer one opens the call."""
        opened = self._open.get()
        return opened is not None and opened[1] is options

    def _try_open_call(self, options: Any) -> OpenCall | None:
        opened: OpenCall | None = harmless(f"opening a call of {self.framework}", lambda: self._open_call(options))
        return opened

    def _open_call(self, options: Any) -> OpenCall | None:
        path = options.url.split("?")[0]
        if options.method.lower() != "post" or not path.endswith(self._ends):
            return None
        return open_call(self.framework, path if path.startswith("/") else urlsplit(path).path)

    def _fail_call(self, call: OpenCall, error: BaseException) -> None:
        harmless(f"closing a failed call of {self.framework}", lambda: _close_failed(call, error))

    # --- _build_request: rewrite

    def building(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _build_request(client: Any, options: Any, **kwargs: Any) -> Any:
            request = self._build(lambda options: original(client, options, **kwargs), client, options)
            request.extensions[SEEN] = True
            return request

        return _build_request

    def _build(self, build: Callable[[Any], Any], client: Any, options: Any) -> Any:
        path = options.url.split("?")[0]
        if not path.endswith(self._ends):
            return build(options)
        opened = self._open.get()
        # Without `request` (another tool hid it from us) the call opens here.
        call = opened[0] if opened else self._try_open_call(options)
        if call is None:
            return build(options)
        if call.candidate is not None:
            options = _with_prompts(options, call)
        translation: Translation | None = None
        if call.endpoint is not None:
            # Not harmless on purpose: a trainable call that went elsewhere would train on another model's tokens.
            end = next(end for end in self._ends if path.endswith(end))
            if translate := self._paths[end]:
                self.check_client(client)
                # What the SDK would have sent, since its options may contain its own objects.
                call.request = build(options).content
                translation = translate(json.loads(call.request), call.rollout_id)
            else:
                translation = UnaskedFields(_body(options))
            options = _redirect(options, call, end, translation.chat)
        request = build(options)
        if call.endpoint is not None:
            route_to_engine(client._client, request, call.headers())
        request.extensions[_KEY] = (call, translation)
        call.request = request.content
        return request

    def check_client(self, client: Any) -> None:
        """Untranslatable if this client of the SDK cannot read an engine's reply or would sign the request again."""

    # --- _process_response: capture

    def processing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _process_response(client: Any, *, response: Any, **kwargs: Any) -> Any:
            _capture(response)
            return original(client, response=response, **kwargs)

        return _process_response

    def aprocessing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def _process_response(client: Any, *, response: Any, **kwargs: Any) -> Any:
            _capture(response)
            return await original(client, response=response, **kwargs)

        return _process_response

    def refusing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Errors: recorded, and an engine's put in the words of the SDK's own server."""

        def _make_status_error_from_response(client: Any, response: Any) -> Any:
            call, translation = _carried_call(response)
            if translation is not None and hasattr(response, "_content"):
                replace_content(response, translation.reply(response.content, response.status_code))
            error = original(client, response)
            if call is not None:  # for when another tool hid `request` from us
                self._fail_call(call, error)
            return error

        return _make_status_error_from_response


def _close_failed(call: OpenCall, error: BaseException) -> None:
    try:
        response = getattr(error, "response", None)
        reply = getattr(response, "content", b"") if response is not None else b""
        status = getattr(error, "status_code", 0) or 0
    except Exception:  # a class of the user's own, raised by a hook of their client
        reply, status = b"", 0
    unreachable = status >= 500 or type(error).__name__ in {"APIConnectionError", "APITimeoutError"}
    call.fail(error, status, reply, unreachable=unreachable)


def _subclasses(owner: type[Any]) -> Iterator[type[Any]]:
    for each in owner.__subclasses__():
        yield each
        yield from _subclasses(each)


def _body(options: Any) -> dict[str, Any]:
    """What the SDK was told to send, which may contain its own objects."""
    return {**(options.json_data if isinstance(options.json_data, Mapping) else {}), **(options.extra_json or {})}


def _with_prompts(options: Any, call: OpenCall) -> Any:
    """The request's options with the rollout's own prompts; those very options if they hold none to replace.

    Not harmless on purpose: a rollout that speaks with other prompts than its candidate's would be scored as if it did.
    """
    changed: dict[str, Any] = {}
    for name in ("json_data", "extra_json"):
        body = getattr(options, name, None)
        if isinstance(body, dict) and (new := call.with_prompts(body)) is not body:
            changed[name] = new
    return options.model_copy(update=changed) if changed else options


def _redirect(options: Any, call: OpenCall, end: str, body: Mapping[str, Any]) -> Any:
    """A copy of the request's options that goes to the engine and asks for what training needs."""
    assert call.endpoint is not None
    url = call.endpoint.url + (_TEXT if end == _TEXT else _CHAT)
    return options.model_copy(
        update={"json_data": call.rewrite(body, chat=end != _TEXT), "extra_json": None, "url": url}
    )


def _carried_call(response: Any, *, take: bool = False) -> tuple[OpenCall | None, Translation | None]:
    """The call and the translation that the request of `response` carries."""
    extensions = response.request.extensions
    sent: tuple[OpenCall, Translation | None] | None = extensions.pop(_KEY, None) if take else extensions.get(_KEY)
    return sent or (None, None)


def _capture(response: Any) -> None:
    if response.status_code >= 400:  # `request` will raise it, or try again
        return
    call, translation = _carried_call(response, take=True)
    if call is None:
        return
    if translation is None:
        harmless("capturing a reply", lambda: tap(call, response))
    else:
        tap(call, response, translation)
