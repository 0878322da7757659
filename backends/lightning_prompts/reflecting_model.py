"""The reflecting model behind an address, of OpenAI's chat completions or Anthropic's Messages API, or in the run."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urldefrag, urlsplit

from lightning_hub.backend import Endpoint
from lightning_prompts.asking import Answer, ModelFailed, ModelUnavailable, ReflectingModel
from lightning_sdk.errors import SettingError
from lightning_sdk.settings.prompts import Prompts

ENGINE = "engine"
"""Names the run's own engine in `prompts.reflect_with`."""
_OPENAI, _ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com/v1"
_TIMEOUT_SECONDS = 300.0
_TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_ANTHROPIC_VERSION = "2023-06-01"
_SHOWN = 300
_MOST_WAIT_SECONDS = 60.0
"""A server that asks for more is asked again after this time."""


class HttpModel(ReflectingModel):
    """One model of one server."""

    def __init__(
        self, url: str, model: str, key: str, anthropic: bool, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        self.url, self.model, self._key, self.anthropic = url.rstrip("/"), model, key, anthropic
        self._timeout_seconds = timeout_seconds
        # OpenAI's newer models refuse the old name, and many other servers know no other one.
        self._limit = "max_completion_tokens" if url.startswith(_OPENAI) else "max_tokens"

    is_own = False
    """Whether the run serves it itself, so that its name, address and key are right."""

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.model} at {self.url}"

    def ask(self, question: str) -> Answer:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            self._limit: self.reply_tokens,
        }
        path = "/messages" if self.anthropic else "/chat/completions"
        reply = self._request(self.url + path, json.dumps(body).encode())
        try:
            return _anthropic_answer(reply) if self.anthropic else _openai_answer(reply)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise ModelFailed(
                f"{self.url} answered something else than a reply: {json.dumps(reply)[:_SHOWN]}", is_free=False
            ) from None

    def find_model(self) -> str:
        """The only model that the server lists. SettingError if there is another number of them."""
        try:
            listed = [str(each["id"]) for each in self._request(f"{self.url}/models", None)["data"]]
        except Exception as error:
            raise SettingError(
                f"prompts.reflect_with={self.url!r}: its models cannot be listed ({error}); name one: {self.url}#MODEL"
            ) from None
        if len(listed) != 1:
            names = ", ".join(listed[:8]) or "none"
            raise SettingError(f"prompts.reflect_with={self.url!r}: it serves {names}; name one: {self.url}#MODEL")
        return listed[0]

    def _request(self, url: str, body: bytes | None) -> Any:
        request = urllib.request.Request(url, body, self._headers())
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_seconds) as reply:
                return _read_json(url, reply.read())
        except urllib.error.HTTPError as error:
            told = f"HTTP {error.code} from {url}: {error.read().decode(errors='replace')[:_SHOWN]}"
            after = _seconds_to_wait(error.headers.get("Retry-After"))
            raise (ModelUnavailable(told, after) if error.code in _TRANSIENT else ModelFailed(told)) from None
        except TimeoutError:
            # It was given all the time there is: another attempt would keep the user waiting as long again.
            raise ModelFailed(f"{url} did not answer within {self._timeout_seconds:g} s", is_free=False) from None
        except (urllib.error.URLError, ConnectionError) as error:
            raise ModelUnavailable(f"{url} cannot be reached: {getattr(error, 'reason', error)}") from None

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self.anthropic:
            headers |= {"x-api-key": self._key, "anthropic-version": _ANTHROPIC_VERSION}
        elif self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers


class EngineModel(HttpModel):
    """The model that also answers the roles to tune. Nothing that it says here is trained on."""

    is_own = True

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint.url, endpoint.model, endpoint.key, anthropic=False)
        self.reply_tokens = min(self.reply_tokens, self._context() // 2)

    @property
    def name(self) -> str:
        return f"{self.model} in the run's own engine"

    def _context(self) -> int:
        """Tokens of question and reply together."""
        (card,) = self._request(f"{self.url}/models", None)["data"]
        return int(card["max_model_len"])


def open_model(settings: Prompts, endpoint: Endpoint | None = None) -> HttpModel:
    """The model that `prompts.reflect_with` names: a model's name, an address, ADDRESS#MODEL, or 'engine', which is the
    one behind `endpoint`.

    The key is read from the environment variable that `prompts.reflect_key` names, and is written down nowhere.

    Raises:
        SettingError: none is named, or its key is not in the environment.
    """
    if not settings.reflect_with:
        raise SettingError(
            "tuning prompts needs a model that reads what the agent did and proposes better texts: --reflect-with gpt-5"
            " (and OPENAI_API_KEY), --reflect-with claude-sonnet-4-5 (and ANTHROPIC_API_KEY), or "
            "--reflect-with http://127.0.0.1:8000/v1#MODEL, or with --model --reflect-with engine"
        )
    if settings.reflect_with == ENGINE and endpoint is not None:
        return EngineModel(endpoint)
    url, model = settings.reflect_with, ""
    if "://" in url:
        url, model = urldefrag(url)
        anthropic = (urlsplit(url).hostname or "").endswith("anthropic.com") or model.startswith("claude")
        own = False
    else:
        model, anthropic, own = url, url.startswith("claude"), True
        base = os.environ.get("ANTHROPIC_BASE_URL" if anthropic else "OPENAI_BASE_URL", "")
        url = base or (_ANTHROPIC if anthropic else _OPENAI)
    if anthropic and not urlsplit(url).path.strip("/"):
        url = url.rstrip("/") + "/v1"
    found = HttpModel(url, model, _key(settings.reflect_key, anthropic, own), anthropic)
    found.model = model or found.find_model()
    return found


def _key(named: str, anthropic: bool, needed: bool) -> str:
    name = named or ("ANTHROPIC_API_KEY" if anthropic else "OPENAI_API_KEY")
    key = os.environ.get(name, "")
    if not key and (needed or named):
        raise SettingError(
            f"prompts.reflect_with: the environment variable {name} has no key for it (prompts.reflect_key)"
        )
    return key


def _read_json(url: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        shown = " ".join(data.decode(errors="replace")[:_SHOWN].split())
        raise ModelFailed(
            f"{url} answered something that is not JSON, so it is not the address of a model: {shown or '(nothing)'}"
        ) from None


def _seconds_to_wait(header: str | None) -> float:
    """How long a server asks to be left alone; 0 if it does not say so in seconds."""
    return min(float(header), _MOST_WAIT_SECONDS) if header is not None and header.strip().isdecimal() else 0.0


def _openai_answer(reply: dict[str, Any]) -> Answer:
    usage = reply.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    text = reply["choices"][0]["message"].get("content") or ""
    return Answer(text, int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0), int(cached))


def _anthropic_answer(reply: dict[str, Any]) -> Answer:
    usage = reply.get("usage") or {}
    text = "".join(part.get("text", "") for part in reply["content"] if part["type"] == "text")
    cached, written = (int(usage.get(f"cache_{each}_input_tokens") or 0) for each in ("read", "creation"))
    read = int(usage.get("input_tokens") or 0) + cached + written
    return Answer(text, read, int(usage.get("output_tokens") or 0), cached, written)
