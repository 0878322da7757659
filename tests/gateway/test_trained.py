"""Trained calls: sent to the real engine in every protocol, answered in the caller's own, recorded with every id."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

import lightning_sdk as lightning
from lightning_embedded.engine.engine import Engine
from lightning_embedded.serving.chat import Chat
from lightning_gateway.gateway import Gateway
from lightning_process.model import load
from lightning_sdk import markers
from lightning_sdk.stream import sink
from lightning_sdk.stream.wire import unpack_floats, unpack_ints
from lightning_sdk.trace.call import Call
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope
from tests.engine.served_engine import KEY, Service, serve
from tests.gateway.asking import ask, error
from tests.gateway.raw_server import Scripted
from tests.sdk.recorder import Recorder

QUESTION = "What is 12 + 30?"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
SAMPLING = {"temperature": 0.0, "max_tokens_default": 8}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The shipped model behind the embedded engine's own server."""
    torch.set_num_threads(1)
    loaded = load("spark")
    engine = Engine(loaded.model, loaded.tokenizer, max_slots=16)
    service, stop = serve(engine, Chat(loaded.tokenizer, engine.decode), loaded.model)
    yield service
    stop()
    engine.close()


@pytest.fixture
def rollout(service: Service) -> RolloutScope:
    return RolloutScope("r" * 32, b"k" * 16, Endpoint(service.url, "tiny", KEY), SAMPLING)


@pytest.fixture
def trained_environment(start: Callable[..., Gateway], rollout: RolloutScope) -> dict[str, str]:
    """The environment of a trainable role; nobody else's server is there."""
    scope = Scope(rollout=rollout, role="solver", trainable=True, named=True)
    return start("http://127.0.0.1:9").environment(scope)


def whole(call: Call, service: Service) -> tuple[list[int], str]:
    """The ids and the text that were sampled, once it is sure that all is there that training needs."""
    assert call.problem == "" and call.meta.trainable and call.meta.role == "solver"
    (choice,) = call.choices
    ids = list(unpack_ints(choice.token_ids))
    assert ids and len(unpack_floats(choice.logprobs)) == len(ids) and call.prompt_ids
    assert choice.versions == [[0, len(ids)]]
    return ids, json.loads(choice.message)["content"]


def greedy(service: Service) -> tuple[list[int], list[int], str]:
    """Prompt ids, sampled ids and text of the same question asked at the engine itself."""
    with service.client() as client:
        reply: Any = client.chat.completions.create(
            model="tiny", messages=MESSAGES, temperature=0, max_tokens=8, extra_body={"return_token_ids": True}
        )
    return reply.prompt_token_ids, reply.choices[0].token_ids, reply.choices[0].message.content


def chat(environment: dict[str, str], stream: bool) -> str:
    with openai.OpenAI(
        base_url=environment["OPENAI_BASE_URL"], api_key=environment["OPENAI_API_KEY"], max_retries=0
    ) as client:
        reply: Any = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=stream)
        if not stream:
            return str(reply.choices[0].message.content)
        return "".join(chunk.choices[0].delta.content or "" for chunk in reply if chunk.choices)


def responses(environment: dict[str, str], stream: bool) -> str:
    with openai.OpenAI(
        base_url=environment["OPENAI_BASE_URL"], api_key=environment["OPENAI_API_KEY"], max_retries=0
    ) as client:
        reply: Any = client.responses.create(model="gpt-4o", input=QUESTION, stream=stream)
        if not stream:
            return str(reply.output_text)
        events = list(reply)
        assert events[-1].type in {"response.completed", "response.incomplete"}
        return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def messages(environment: dict[str, str], stream: bool) -> str:
    data = {"model": "claude", "max_tokens": 8, "messages": MESSAGES, "stream": stream}
    headers = {"x_api_key": environment["ANTHROPIC_API_KEY"], "anthropic_version": "2023-06-01"}
    status, _, answer = ask(f"{environment['ANTHROPIC_BASE_URL']}/v1/messages", data, **headers)
    assert status == 200, answer
    if not stream:
        return str(json.loads(answer)["content"][0]["text"])
    events = [json.loads(line[6:]) for line in answer.decode().splitlines() if line.startswith("data: ")]
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("speak", [chat, responses, messages])
def test_every_protocol_is_trained_on_what_was_sampled(
    speak: Callable[..., str], stream: bool, trained_environment: dict[str, str], service: Service, recorder: Recorder
) -> None:
    """Ids, log-probs and text are the engine's; the caller reads the same text in its own protocol."""
    text = speak(trained_environment, stream)
    (call,) = recorder.calls
    ids, recorded = whole(call, service)
    prompt, expected, content = greedy(service)
    assert (list(unpack_ints(call.prompt_ids)), ids) == (prompt, expected)
    assert text == recorded == content and text
    assert call.meta.streamed is stream and call.meta.framework == "gateway"
    assert json.loads(call.request)["temperature"] == 0.0  # the training's, and not the provider's default


def test_a_fixed_seed_is_taken_out(
    start: Callable[..., Gateway],
    service: Service,
    recorder: Recorder,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine would draw the same for every rollout of a group; agents of other languages lose theirs too."""
    monkeypatch.setattr(sink, "_said", set())
    sampling = {"temperature": 1.0, "whole_distribution": 1.0, "max_tokens_default": 8}
    rollout = RolloutScope("r" * 32, b"k" * 16, Endpoint(service.url, "tiny", KEY), sampling)
    scope = Scope(rollout=rollout, role="solver", trainable=True, named=True)
    environment = start("http://127.0.0.1:9").environment(scope)
    data = {"model": "x", "messages": MESSAGES, "temperature": 0.7, "seed": 5, "top_k": 1}
    bearer = f"Bearer {environment['OPENAI_API_KEY']}"
    status, _, answer = ask(f"{environment['OPENAI_BASE_URL']}/chat/completions", data, authorization=bearer)
    assert status == 200, answer
    sent = json.loads(recorder.calls[0].request)
    assert "seed" not in sent and (sent["temperature"], sent["top_k"], sent["top_p"]) == (1.0, -1, 1.0)
    assert "asks for temperature=0.7, top_k=1, seed=5; while" in caplog.text


def test_text_completions_are_trained(
    trained_environment: dict[str, str], service: Service, recorder: Recorder
) -> None:
    """The older endpoint keeps its own shape."""
    status, _, answer = ask(
        f"{trained_environment['OPENAI_BASE_URL']}/completions", {"model": "x", "prompt": "12 + 30 ="}
    )
    assert status == 200
    assert json.loads(answer)["choices"][0]["text"] == whole(recorder.calls[0], service)[1]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_text_completions_of_several_prompts(
    trained_environment: dict[str, str], service: Service, recorder: Recorder, stream: bool
) -> None:
    """Each prompt's completions are under that prompt, with n > 1 too."""
    prompts = ["What is 1 + 1?", "Who?"]
    with openai.OpenAI(
        base_url=trained_environment["OPENAI_BASE_URL"], api_key=trained_environment["OPENAI_API_KEY"]
    ) as client:
        reply = client.completions.create(model="gpt", prompt=prompts, n=2, stream=stream)
        if stream:
            list(reply)
    (call,) = recorder.calls
    assert call.problem == "" and [choice.index for choice in call.choices] == [0, 1, 2, 3]
    expected = [service.chat.encode(prompts[index // 2], special=True) for index in range(4)]
    assert [list(unpack_ints(choice.prompt_ids)) for choice in call.choices] == expected


def test_the_engine_sees_nothing_meant_for_the_provider(
    start: Callable[..., Gateway], rollout: RolloutScope, recorder: Recorder
) -> None:
    """Model, key and endpoint are the engine's; other credentials, cookies and the query stay behind."""
    with Scripted(lambda c: c.answer(b'{"choices": []}')) as engine:
        rollout.endpoint = Endpoint(f"{engine.url}/v1", "spark", "engine-key")
        environment = start("http://127.0.0.1:9").environment(Scope(rollout=rollout, role="a", trainable=True))
        headers = {"authorization": "Bearer sk-mine", "cookie": "a=b", "openai_organization": "org", "api_key": "azure"}
        ask(f"{environment['OPENAI_BASE_URL']}/chat/completions?api-version=7", {"messages": MESSAGES}, **headers)
        request = engine.requests[0]
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    shown = {name.lower(): value for name, value in request.headers}
    assert shown["authorization"] == "Bearer engine-key"
    assert not shown.keys() & {"cookie", "openai-organization", "api-key"}
    assert json.loads(request.body)["model"] == "spark" and json.loads(request.body)["return_token_ids"] is True


def test_models_are_the_engines(trained_environment: dict[str, str]) -> None:
    """A client that looks which models there are finds the one that answers."""
    status, _, answer = ask(f"{trained_environment['OPENAI_BASE_URL']}/models", method="GET")
    assert status == 200 and [each["id"] for each in json.loads(answer)["data"]] == ["tiny"]


def test_the_engine_is_asked_past_the_proxy(
    start: Callable[..., Gateway], service: Service, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine of another machine too, and its list of models: a proxy would see its key."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # for this test's own client; the engine has another name here
    elsewhere = Endpoint(service.url.replace("127.0.0.1", "0.0.0.0"), "tiny", KEY)
    scope = Scope(rollout=RolloutScope("r" * 32, b"k" * 16, elsewhere, SAMPLING), role="solver", trainable=True)
    environment = start("http://127.0.0.1:9").environment(scope)
    assert chat(environment, False) == greedy(service)[2]
    with openai.OpenAI(base_url=environment["OPENAI_BASE_URL"], api_key=environment["OPENAI_API_KEY"]) as client:
        assert [each.id for each in client.models.list()] == ["tiny"]
    assert [call.problem for call in recorder.calls] == [""]


def test_what_cannot_be_said_in_chat_completions(trained_environment: dict[str, str], recorder: Recorder) -> None:
    """An error in the caller's protocol that names the value; the call is an error and the engine is not blamed."""
    data = {"model": "x", "input": "?", "background": True}
    status, _, answer = ask(f"{trained_environment['OPENAI_BASE_URL']}/responses", data)
    assert status == 400 and "background" in error(answer)
    assert recorder.calls[0].meta.status == "error"


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"messages": 3}'])
def test_bad_requests_are_the_agents_fault(
    data: bytes, trained_environment: dict[str, str], rollout: RolloutScope, recorder: Recorder
) -> None:
    """400, recorded as an error, and the rollout is not ours to answer for."""
    status, _, answer = ask(f"{trained_environment['OPENAI_BASE_URL']}/chat/completions", data)
    assert status == 400 and error(answer)
    assert recorder.calls[0].meta.status == "error" and rollout.broken == ""


def test_an_engine_that_is_away_is_our_fault(
    trained_environment: dict[str, str], rollout: RolloutScope, recorder: Recorder
) -> None:
    """The agent gets 502 and the rollout is known to have failed through us."""
    assert rollout.endpoint is not None
    rollout.endpoint = Endpoint("http://127.0.0.1:9/v1", "tiny", KEY)
    assert ask(f"{trained_environment['OPENAI_BASE_URL']}/chat/completions", {"messages": MESSAGES})[0] == 502
    assert "127.0.0.1:9" in rollout.broken


def test_an_untrained_role_goes_elsewhere(
    start: Callable[..., Gateway], rollout: RolloutScope, recorder: Recorder, provider: Any
) -> None:
    """In one rollout the trained role's calls go to the engine, and the other's to the provider, unchanged."""
    rollout.roles = frozenset({"solver"})
    environment = start(provider.url).environment(Scope(rollout=rollout, role="solver"))
    data = {"model": "gpt", "messages": MESSAGES}
    ask(f"{environment['OPENAI_BASE_URL']}/chat/completions", data)
    ask(f"{environment['OPENAI_BASE_URL']}/chat/completions", data, x_lightning_role="judge")
    assert [(call.meta.role, call.meta.trainable) for call in recorder.calls] == [("solver", True), ("judge", False)]
    assert [json.loads(request.raw) for request in provider.requests] == [data]


#: An agent in another process that knows nothing of this SDK.
AGENT = """
import json, os, sys, urllib.request
data = {"model": "gpt-4o", "messages": [{"role": "user", "content": sys.argv[1]}]}
headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
request = urllib.request.Request(url, json.dumps(data).encode(), headers)
print(json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"])
"""


@lightning.agent(role="solver", trainable=True)
def solve(task: dict[str, Any]) -> str:
    environment = {**os.environ, **lightning.gateway_environment()}
    command = [sys.executable, "-S", "-c", AGENT, task["question"]]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def length(task: dict[str, Any], answer: str) -> float:
    return float(len(answer) % 7)


def test_a_program_is_trained(tmp_path: Path) -> None:
    """`lightning.train` on an agent that launches another program: its calls are what the step learns from."""
    markers.agent.declared["solver"] = True  # cleared between tests
    tasks = [{"question": f"What is {i} + {i + 1}?"} for i in range(12)]
    settings: dict[str, Any] = {
        "rollouts.tasks_per_step": 2,
        "rollouts.group_size": 2,
        "rollouts.concurrency": 4,
        "evaluation.tasks": 2,
        "sampling.max_tokens": 8,
    }
    report = lightning.train(solve, tasks, length, steps=1, name="program", runs=tmp_path, quiet=True, **settings)
    assert report.values["steps"] == 1
    assert report.values["held_out"]["after"]["n"] == 2
