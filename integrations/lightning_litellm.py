"""The seam for LiteLLM: a trained role's calls are made with the OpenAI SDK, whose seam records them.

All of it sits below LiteLLM's public functions, so that a `completion` imported by name long before `init()`, a Router
and a proxy pass here as well. The provider of a call is chosen in one place, where a trained role gets "openai". Calls
of other roles are not changed; those that do not go through the OpenAI SDK leave through LiteLLM's
own HTTP handlers, where their raw replies are read.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from lightning_sdk.integration import (
    SEEN,
    Endpoint,
    OpenCall,
    Patches,
    UnsupportedVersion,
    Untranslatable,
    bypass_cache,
    effective_scope,
    harmless,
    open_call,
    parse_release,
    require_version,
    say_once,
    tap,
)

#: Functions of LiteLLM that ask for the provider of a call to a language model; embeddings and others ask too.
_CALLS = frozenset({"completion", "acompletion", "text_completion", "atext_completion"})
_TEXT = "text-completion-openai"
_MODEL_PATH = re.compile(
    r"/(chat/completions|completions|responses|messages|chat|generate|converse|converse-stream|invoke"
    r"|invoke-with-response-stream)$|:(stream)?(generateContent|rawPredict)$",
    re.IGNORECASE,
)

_REMEDY = "pip install 'litellm>=1.108.6,<2'"
#: Withdrawn from the index.
_MALICIOUS = frozenset({"1.82.7", "1.82.8"})
#: From the first to below the second, every call with tools imports what only mcp 2 has.
_FAILS_ON_TOOLS = ((1, 106), (1, 108, 4))
_MCP = (2, 1)  # the oldest that was tried

_posting: ContextVar[OpenCall | None] = ContextVar("lightning_litellm_call", default=None)


def instrument(patches: Patches) -> None:
    """Patch LiteLLM; run by `lightning_sdk.init()` once `litellm` is imported."""
    check_version()
    import litellm.main  # noqa: PLC0415 - loaded only where the user has litellm
    from litellm.caching.caching import Cache  # noqa: PLC0415
    from litellm.llms.custom_httpx import http_handler  # noqa: PLC0415
    from litellm.utils import ProviderConfigManager  # noqa: PLC0415

    needed = [
        (litellm.main, "get_llm_provider"),
        (ProviderConfigManager, "get_provider_responses_api_config"),
        (http_handler.HTTPHandler, "post"),
        (http_handler.AsyncHTTPHandler, "post"),
        (Cache, "should_use_cache"),
    ]
    if missing := [name for owner, name in needed if not hasattr(owner, name)]:
        raise UnsupportedVersion(f"this litellm has no {', '.join(missing)}; {_REMEDY}")
    patches.wrap(litellm.main, "get_llm_provider", _wrap_get_llm_provider)
    patches.wrap(ProviderConfigManager, "get_provider_responses_api_config", _hide_responses_api)
    bypass_cache(patches, Cache, "should_use_cache", instead=False)
    patches.wrap(http_handler.HTTPHandler, "post", _wrap_post)
    patches.wrap(http_handler.AsyncHTTPHandler, "post", _wrap_post_async)
    for client in (http_handler.httpx.Client, http_handler.httpx.AsyncClient):
        patches.wrap(client, "build_request", _wrap_build_request)
    harmless("readying log-probabilities", _ready_logprobs)


def check_version() -> None:
    """UnsupportedVersion for a release that is out of range or malicious; one warning for one that fails on tools."""
    version = _version("litellm")
    if version in _MALICIOUS:
        raise UnsupportedVersion(
            f"litellm {version} is a malicious release: replace every key that was on this machine, and {_REMEDY}"
        )
    require_version("litellm", "1.83", "2")
    if not _FAILS_ON_TOOLS[0] <= parse_release(version) < _FAILS_ON_TOOLS[1]:
        return
    mcp = _version("mcp")
    if parse_release(mcp) < _MCP:
        say_once(
            "litellm tools",
            "lightning: litellm %s fails on calls with tools %s; %s, or pip install 'mcp>=2.2'",
            version,
            f"with mcp {mcp}" if mcp else "without mcp",
            _REMEDY,
        )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _ready_logprobs() -> None:
    """The OpenAI SDK builds its models when they are first used, and LiteLLM cannot print a chunk that holds one which
    never was. Training asks for log-probabilities, so that such chunks come where none came before."""
    from openai.types.chat import chat_completion, chat_completion_chunk  # noqa: PLC0415

    for kind in (chat_completion.ChoiceLogprobs, chat_completion_chunk.ChoiceLogprobs):
        kind.model_rebuild()


# --- a role that is trained


def _endpoint() -> Endpoint | None:
    endpoint: Endpoint | None = harmless("asking who speaks", lambda: effective_scope().endpoint())
    return endpoint


def _wrap_get_llm_provider(original: Callable[..., Any]) -> Callable[..., Any]:
    """(model, provider, key, address) of a call: those of the engine, where a trained role speaks."""

    def get_llm_provider(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        if sys._getframe(1).f_code.co_name not in _CALLS or (endpoint := _endpoint()) is None:
            return found
        # The key is the OpenAI seam's to give; with one of a rollout here, LiteLLM would make a client for each.
        return endpoint.model, _TEXT if found[1] == _TEXT else "openai", "lightning", endpoint.url

    return get_llm_provider


def _hide_responses_api(original: Callable[..., Any]) -> Callable[..., Any]:
    """LiteLLM makes a call to the Responses API a chat completion itself, where a provider has no such API."""

    def get_provider_responses_api_config(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs) if _endpoint() is None else None

    return get_provider_responses_api_config


# --- what goes through LiteLLM's own HTTP handlers


def _wrap_post(original: Callable[..., Any]) -> Callable[..., Any]:
    def post(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = _try_open(*args, **kwargs)
        with _under_way(call):
            response = original(self, *args, **kwargs)
        _capture(call, response)
        return response

    return post


def _wrap_post_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def post(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = _try_open(*args, **kwargs)
        with _under_way(call):
            response = await original(self, *args, **kwargs)
        _capture(call, response)
        return response

    return post


@contextlib.contextmanager
def _under_way(call: OpenCall | None) -> Iterator[None]:
    """Let `_build` find the call, and close it with what is raised."""
    if call is None:
        yield
        return
    token = _posting.set(call)
    try:
        yield
    except BaseException as error:
        _fail(call, error)
        raise
    finally:
        _posting.reset(token)


def _capture(call: OpenCall | None, response: Any) -> None:
    if call is not None:
        harmless("capturing a LiteLLM reply", lambda: tap(call, response))


def _try_open(*args: Any, **kwargs: Any) -> OpenCall | None:
    call: OpenCall | None = harmless("opening a LiteLLM call", lambda: _open(str(kwargs.get("url") or args[0])))
    return call


def _open(url: str) -> OpenCall | None:
    path = urlsplit(url).path
    call = open_call("litellm", path) if _MODEL_PATH.search(path) else None
    if call is not None and call.endpoint is not None:
        say_once(
            f"litellm {call.role} {path}",
            "lightning: role %r calls %s through LiteLLM in a way that cannot be sent to the engine: it is recorded "
            "but not trained on; use litellm.completion or litellm.responses in this agent",
            call.role,
            url.split("?", maxsplit=1)[0],
        )
        call.endpoint = None
    return call


def _fail(call: OpenCall, error: BaseException) -> None:
    def close() -> None:
        response = getattr(error, "response", None)
        read = response is not None and getattr(response, "is_stream_consumed", False)
        call.fail(error, getattr(response, "status_code", 0) or 0, response.content if read else b"")  # type: ignore[union-attr]

    harmless("closing a failed LiteLLM call", close)


def _wrap_build_request(original: Callable[..., Any]) -> Callable[..., Any]:
    """Requests of an open call: their body is the call's, and the net below the SDKs need not tell of them."""

    def build_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = _posting.get()
        if call is not None and call.candidate is not None:
            kwargs = _with_prompts(call, kwargs)
        request = original(self, *args, **kwargs)
        if call is not None:
            request.extensions[SEEN] = True
            call.note_request(getattr(request, "_content", b""))  # a body that is streamed is not there
        return request

    return build_request


def _with_prompts(call: OpenCall, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a request whose body has the rollout's own prompts. Untranslatable where the body is signed."""
    changed: dict[str, Any] = {}
    if isinstance(body := options.get("json"), dict) and (new := call.with_prompts(body)) is not body:
        changed["json"] = new
    for name in ("content", "data"):
        if isinstance(text := options.get(name), str | bytes):
            raw = text.encode() if isinstance(text, str) else text
            if (prompted := call.with_prompts_bytes(raw)) is not raw:
                changed[name] = prompted
    signature = str({**(options.get("headers") or {})}.get("Authorization", ""))
    if changed and signature.startswith("AWS4-"):
        raise Untranslatable(
            f"role {call.role!r} calls a model of Amazon Bedrock through LiteLLM, whose requests are signed before "
            "they can be given another prompt; mark the text with lightning.prompt() and call it inside the agent"
        )
    return {**options, **changed}
