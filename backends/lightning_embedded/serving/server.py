"""The HTTP server: OpenAI's API over an engine, as an aiohttp application.

The engine's thread passes all news of a decoding step with one call into the event loop. A request that is not streamed
is woken only once, at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Hashable, Iterable
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web

from lightning_embedded.constraints.constraint import Constraint
from lightning_embedded.constraints.json_schema import GrammarError
from lightning_embedded.engine.engine import Engine, EngineClosed, PromptTooLong
from lightning_embedded.engine.sequence import Params, Sequence
from lightning_embedded.serving.chat import Chat
from lightning_embedded.serving.protocol import ChatRequest, TextRequest, read_body, read_chat, read_text
from lightning_embedded.serving.reply import Reply, ReplyChoice
from lightning_embedded.text.growing_text import Text
from lightning_embedded.text.tool_calls import ToolReader
from lightning_process.openai import application
from lightning_process.refusal import BadRequest, error_body, unknown_model
from lightning_process.refusal import json_reply as _json
from lightning_sdk.capture.seam import ROLLOUT_HEADER
from lightning_sdk.errors import ModelError
from lightning_sdk.translation.sse import DONE, MEDIA_TYPE, event

#: Time between checks for requests whose client has disconnected.
_REAP_SECONDS = 0.25
#: No text has more characters per token on average, not even blanks or JSON escapes.
_CHARACTERS_PER_TOKEN = 256
#: Additional characters of a request: tools, options.
_MOST_CHARACTERS = 2**20


def make_app(engine: Engine, chat: Chat, model_name: str, key: str) -> web.Application:
    """The engine's API, as `lightning_process.openai.application`."""
    server = _Server(engine, chat, model_name)
    app = application(
        key,
        health=server.health,
        models=server.models,
        model=server.model,
        chat=server.chat_completions,
        completions=server.completions,
    )
    app.cleanup_ctx.append(server.reaping)
    return app


class _Waiter:
    """A request that waits for its sequences."""

    __slots__ = ("gone", "news", "open", "reply", "transport")

    def __init__(self, reply: Reply, transport: asyncio.Transport | None) -> None:
        self.reply = reply
        self.open = {choice.index for choice in reply.choices}
        """Choices that have not ended. A set, since the end of a stream may be seen with the token before it."""
        self.news = asyncio.Event()
        self.gone = False
        self.transport = transport


class _Server:
    def __init__(self, engine: Engine, chat: Chat, model_name: str) -> None:
        self._engine = engine
        self._chat = chat
        self._name = model_name
        self._constraints = chat.constraints(engine.decoder.vocabulary)
        self._created = int(time.time())
        self._waiters: set[_Waiter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def health(self, request: web.Request) -> web.Response:
        engine = self._engine
        state = {
            "status": "ok" if engine.alive else "failed",
            "model": self._name,
            "version": engine.version,
            "running": engine.running,
            "waiting": engine.waiting,
            "failure": engine.failure,
        }
        return _json(orjson.dumps(state), 200 if engine.alive else 503)

    async def models(self, request: web.Request) -> web.Response:
        return _json(orjson.dumps({"object": "list", "data": [self._card()]}))

    async def model(self, request: web.Request) -> web.Response:
        self._check_model(request.match_info["model"])
        return _json(orjson.dumps(self._card()))

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        self._refuse_long(len(data), "messages")
        body = read_chat(read_body(data))
        self._check_model(body.common.model)
        self._reader(body)  # raises errors before anything is computed
        try:
            rollout = request.headers.get(ROLLOUT_HEADER, "")
            options = self._chat.reasoning(body.effort, body.template_options)
            text, ids = self._chat.prompt(body.messages, body.tools, options, rollout=rollout)
        except ValueError as error:  # TemplateRefused among them
            raise BadRequest(str(error), "messages") from None
        reply = self._start(body, _client(request), [ids], "messages", text)
        reply.rollout = rollout
        return await self._answer(request, reply)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = read_text(read_body(await request.read()))
        self._check_model(body.common.model)
        for one in body.prompts:
            self._refuse_long(len(one), "prompt")
        # In a thread, so that other requests are answered while a long text is encoded.
        prompts = await asyncio.to_thread(self._encode, body.prompts)
        return await self._answer(request, self._start(body, _client(request), prompts, "prompt"))

    def _card(self) -> dict[str, Any]:
        return {
            "id": self._name,
            "object": "model",
            "created": self._created,
            "owned_by": "lightning",
            "max_model_len": self._engine.max_length,
        }

    def _check_model(self, model: str) -> None:
        if model != self._name:
            raise unknown_model(model, self._name)

    def _encode(self, prompts: Iterable[str | list[int]]) -> list[list[int]]:
        return [self._chat.encode(one, special=True) if isinstance(one, str) else one for one in prompts]

    def _refuse_long(self, characters: int, param: str) -> None:
        """Raise BadRequest for a request that is too long for any tokenization: reading it would block all others."""
        if characters > _MOST_CHARACTERS + _CHARACTERS_PER_TOKEN * self._engine.max_length:
            raise BadRequest(
                f"the request has {characters:,} characters; this model takes at most {self._engine.max_length} "
                "tokens, completion included",
                param,
                "context_length_exceeded",
            )

    def _start(
        self, body: ChatRequest | TextRequest, client: Hashable, prompts: list[list[int]], param: str, text: str = ""
    ) -> Reply:
        """The reply with its sequences, which are not submitted yet."""
        try:
            for prompt in prompts:
                self._engine.check(prompt)
        except PromptTooLong as error:
            raise BadRequest(str(error), param, "context_length_exceeded") from None
        except ValueError as error:
            raise BadRequest(str(error), param) from None
        reply = Reply(request=body, decode=self._engine.decode, prompts=prompts, prompt_text=text)
        common = body.common
        for prompt in prompts:
            for index in range(common.n):
                sequence = Sequence(
                    prompt, _with_index(common.params, index), self._hear, stream=common.stream, client=client
                )
                sequence.constraint = self._constraint(body)
                own = Text(self._engine.decode, common.params.stop, common.params.stop_ids)
                place, tools = len(reply.choices), self._reader(body)
                reply.choices.append(ReplyChoice(index=place, sequence=sequence, text=own, tools=tools))
        return reply

    def _reader(self, body: ChatRequest | TextRequest) -> ToolReader | None:
        """A reader of a choice's tool calls, if they are to be parsed. BadRequest if this model cannot call tools."""
        if isinstance(body, TextRequest) or not body.parse_tools or self._chat.tools is None:
            return None
        try:
            return self._chat.tools.reader(body.tools or [], self._name)
        except ModelError as error:
            raise BadRequest(str(error), "tools", "tools_unsupported") from None

    def _constraint(self, body: ChatRequest | TextRequest) -> Constraint | None:
        """The constraint of one completion. BadRequest if it is not supported."""
        if isinstance(body, TextRequest) or not body.constraint:
            return None
        try:
            return self._constraints.start(body.constraint)
        except GrammarError as error:
            raise BadRequest(str(error), error.param, "unsupported_parameter") from None

    async def _answer(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        self._loop = asyncio.get_running_loop()
        waiter = _Waiter(reply, request.transport)
        for choice in reply.choices:
            choice.sequence.owner = (waiter, choice.index)
        sequences = [choice.sequence for choice in reply.choices]
        self._engine.submit(sequences)
        self._waiters.add(waiter)
        try:
            if reply.common.stream:
                return await self._stream(request, waiter)
            await waiter.news.wait()
            if waiter.gone:
                return web.Response(status=499)
            self._check_finished(sequences)
            self._remember(reply)
            return _json(orjson.dumps(reply.whole()))
        finally:
            self._waiters.discard(waiter)
            if waiter.open:
                self._engine.abort(sequences)

    async def _stream(self, request: web.Request, waiter: _Waiter) -> web.StreamResponse:
        reply = waiter.reply
        response = web.StreamResponse(headers={"Content-Type": MEDIA_TYPE, "Cache-Control": "no-cache"})
        await response.prepare(request)
        try:
            if reply.chat:
                await response.write(_event(reply.opening()))
            while waiter.open and not waiter.gone:
                await waiter.news.wait()
                waiter.news.clear()
                chunk = b"".join(_event(body) for body in _news(reply))
                if chunk:
                    await response.write(chunk)
            if any(choice.sequence.finish in ("error", "") for choice in reply.choices):
                await response.write(event(error_body(self._failure(), "server_error")))
                return response
            self._remember(reply)  # before the end is sent, since the next turn may follow at once
            if reply.common.include_usage:
                await response.write(_event(reply.closing()))
            await response.write(event(DONE))
            await response.write_eof()
        except ConnectionError:
            pass  # the client is gone; `_answer` frees the slots
        return response

    def _hear(self, sequences: list[Sequence]) -> None:
        """Runs on the engine's thread, once per step."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                self._loop.call_soon_threadsafe(_wake, sequences)

    async def reaping(self, app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._reap())
        yield
        task.cancel()

    async def _reap(self) -> None:
        """Abort requests whose client has disconnected: aiohttp does not tell handlers that are not writing."""
        while True:
            await asyncio.sleep(_REAP_SECONDS)
            for waiter in list(self._waiters):
                if waiter.transport is not None and waiter.transport.is_closing():
                    self._engine.abort(choice.sequence for choice in waiter.reply.choices)
                    waiter.gone = True
                    waiter.news.set()

    def _remember(self, reply: Reply) -> None:
        if reply.chat:
            for choice in reply.choices:
                sequence = choice.sequence
                self._chat.remember(reply.prompt_text, sequence.prompt, sequence.token_ids, rollout=reply.rollout)

    def _check_finished(self, sequences: list[Sequence]) -> None:
        if any(sequence.finish == "error" for sequence in sequences):
            raise EngineClosed(self._failure())

    def _failure(self) -> str:
        return self._engine.failure or "the engine was closed while the request ran"


def _news(reply: Reply) -> list[dict[str, Any]]:
    bodies = []
    for choice in reply.choices:
        if not choice.done and (choice.sequence.finish or len(choice.sequence.token_ids) > choice.sent):
            body = reply.news(choice)
            if body is not None:
                bodies.append(body)
    return bodies


def _wake(sequences: list[Sequence]) -> None:
    for sequence in sequences:
        waiter, index = sequence.owner
        if sequence.finish:
            waiter.open.discard(index)
        if sequence.stream or not waiter.open:
            waiter.news.set()


def _client(request: web.Request) -> Hashable:
    """The client with which slots are shared fairly: the rollout, or else this request."""
    return request.headers.get(ROLLOUT_HEADER) or object()


def _with_index(params: Params, index: int) -> Params:
    return replace(params, index=index) if index else params


def _event(body: dict[str, Any]) -> bytes:
    return event(orjson.dumps(body))
