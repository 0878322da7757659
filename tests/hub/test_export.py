"""Spans from a real hub process to a real OTLP/HTTP receiver: what arrives, what does not, and what it may not cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_hub.export.exporter import Exporter, ExportTarget
from lightning_hub.storage.index import Index
from lightning_hub.storage.log import Log
from lightning_hub.storage.rows import BeginRow, EndRow
from lightning_hub.storage.store import Store
from lightning_sdk.stream.wire import NO_ROLLOUT, Event
from lightning_sdk.trace.call import root_span_id
from tests.hub.hubs import KEY, Client, Hub, begin, end, raw_call, reply, reward, span
from tests.hub.otlp_collector import Collector, plain, tree
from tests.hub.runners import Runner, good
from tests.waiting import wait_for

ROLLOUT = "ab" * 16


def a_rollout(key: bytes, status: str = "ok") -> list[Any]:
    """An agent that calls a model, uses a tool that another instrumentor saw, calls again inside it, and is scored."""
    agent, tool = "a" * 16, "b" * 16
    now = time.time_ns()
    turn = [agent, "", "invoke_agent solver", "solver", now, now + 9, "ok", "", {"gen_ai.agent.name": "solver"}]
    used = [tool, agent, "search", "solver", now, now + 5, "ok", "", {"otel.scope.name": "retrieval"}]
    return [
        begin(key, ROLLOUT),
        raw_call(key, reply(), id="c" * 16, parent=agent),
        raw_call(key, reply(), id="d" * 16, parent=tool),
        [int(Event.SPAN), key, used],
        [int(Event.SPAN), key, turn],
        [int(Event.REWARD), key, 0.5, "solver", "step", agent, now],
        reward(key, 1.0),
        end(key, status),
    ]


def test_a_rollout_is_one_tree(collector: Collector, start: Callable[..., Hub]) -> None:
    """A root, its agent and its calls under GenAI names, in the rollout's trace; a span that others export is not."""
    hub, key = start("my-run"), os.urandom(16)
    with Client(hub) as client:
        client.deliver(1, a_rollout(key))
        collector.wait(lambda found: len(found.of(ROLLOUT)) == 4)
        wait_for(lambda: client.ask("status")["export"]["exported"])  # it counts what the collector has answered
        status = client.ask("status")["export"]
    spans = {span.span_id.hex(): span for span in collector.of(ROLLOUT)}
    root, agent, call, in_tool = (spans[each] for each in (root_span_id(key), "a" * 16, "c" * 16, "d" * 16))
    assert [root.name, agent.name, call.name] == ["invoke_workflow my-run", "invoke_agent solver", "chat spark"]
    parents = [each.parent_span_id.hex() for each in (root, agent, call, in_tool)]
    assert parents == ["", root_span_id(key), "a" * 16, "b" * 16]
    assert root.start_time_unix_nano <= agent.start_time_unix_nano
    assert root.end_time_unix_nano >= call.end_time_unix_nano
    assert plain(root.attributes) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "my-run",
        "gen_ai.conversation.id": ROLLOUT,
        "lightning.rollout.id": ROLLOUT,
        "lightning.rollout.attempt": 1,
        "lightning.rollout.mode": "observe",
        "lightning.rollout.status": "ok",
        "lightning.rollout.group": ROLLOUT,
        "lightning.task.id": -1,
    }
    assert plain(call.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lightning",
        "gen_ai.agent.name": "solver",
        "lightning.role": "solver",
        "lightning.framework": "openai",
        "lightning.trainable": True,
        "gen_ai.request.model": "spark",
        "gen_ai.request.temperature": 1.0,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "spark",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "lightning.model.versions": [0],
    }
    assert [plain(each.attributes) for each in agent.events] == [
        {"gen_ai.evaluation.name": "step", "gen_ai.evaluation.score.value": 0.5, "lightning.role": "solver"}
    ]
    assert [(each.name, plain(each.attributes)) for each in root.events] == [
        ("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "final", "gen_ai.evaluation.score.value": 1.0})
    ]
    assert collector.services == {"lightning-sdk"}
    assert collector.requests[0][0] == "/v1/traces"
    assert (status["exported"], status["dropped"], status["error"]) == (4, 0, "")


def test_failures_are_errors(collector: Collector, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed rollout, a failed call and a failed agent are errors with their words; the rest is not."""
    key = os.urandom(16)
    failed = [os.urandom(8).hex(), "", "invoke_agent a", "a", 1, 2, "error", "ValueError: no", {}]
    no = b'{"error": {"message": "slow down"}}'
    with Client(hub) as client:
        client.deliver(
            1,
            [
                begin(key, ROLLOUT),
                [int(Event.SPAN), key, failed],
                raw_call(key, no, http_status=429, status="error", error="RateLimitError: slow down"),
                raw_call(key, b"", http_status=0, status="cancelled", error="abandoned before a reply was read"),
                end(key, "agent_error", "ValueError: no"),
            ],
        )
        collector.wait(lambda found: len(found.of(ROLLOUT)) == 4)
    found = [(span.status.code, span.status.message, plain(span.attributes)) for span in collector.of(ROLLOUT)]
    told = [(code, message, attributes.get("error.type")) for code, message, attributes in found]
    assert told == [
        (2, "ValueError: no", "agent_error"),
        (2, "ValueError: no", "ValueError"),
        (2, "RateLimitError: slow down", "429"),
        (0, "", None),
    ]
    assert found[3][2]["lightning.cancelled"] is True


def test_the_users_trace_is_linked(collector: Collector, hub: Hub) -> None:
    """Where a rollout began inside a trace of the user's, its root links there."""
    key = os.urandom(16)
    at = {"lightning.link.trace_id": "e" * 32, "lightning.link.span_id": "f" * 16}
    link = [int(Event.SPAN), key, [root_span_id(key), "", "invoke_workflow", "", 0, 0, "ok", "", at]]
    with Client(hub) as client:
        client.deliver(1, [begin(key, ROLLOUT), link, end(key)])
        collector.wait(lambda found: bool(found.of(ROLLOUT)))
    (root,) = collector.of(ROLLOUT)
    assert [(each.trace_id.hex(), each.span_id.hex()) for each in root.links] == [("e" * 32, "f" * 16)]
    assert root.start_time_unix_nano > 1


def test_outside_of_rollouts_too(collector: Collector, hub: Hub) -> None:
    """A call that belongs to no rollout is in the trace that it names, or in a new one."""
    inside = raw_call(NO_ROLLOUT, reply(), id="1" * 16, parent="2" * 16, trace="3" * 32)
    alone = raw_call(NO_ROLLOUT, reply(), id="4" * 16)
    with Client(hub) as client:
        client.deliver(1, [inside, alone, span("turn")])
        collector.wait(lambda found: len(found.spans) == 3)
    found = {span.span_id.hex(): (span.trace_id.hex(), span.parent_span_id.hex()) for span in collector.spans}
    assert found["1" * 16] == ("3" * 32, "2" * 16)
    assert found["4" * 16] == ("4" * 32, "")


@pytest.mark.parametrize("asked", ["", "true", "SPAN_ONLY", "EVENT_ONLY"])
def test_messages_only_if_asked(
    collector: Collector, start: Callable[..., Hub], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was said is exported only when the convention's variable says so, and then as it says."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", asked)
    hub, key = start(), os.urandom(16)
    call = raw_call(key, reply("four"))
    question = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "?"}]},
    ]
    used = {"id": "t1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    question += [{"role": "assistant", "tool_calls": [used]}, {"role": "tool", "tool_call_id": "t1", "content": "4"}]
    call[3] = json.dumps({"model": "spark", "messages": question, "tools": [{"type": "function"}]}).encode()
    with Client(hub) as client:
        client.deliver(1, [begin(key, ROLLOUT), call, end(key)])
        collector.wait(lambda found: len(found.of(ROLLOUT)) == 2)
    attributes = plain(collector.of(ROLLOUT)[1].attributes)
    if asked not in {"true", "SPAN_ONLY"}:
        assert not {"gen_ai.input.messages", "gen_ai.output.messages"} & set(attributes)
        assert b"four" not in b"".join(each.SerializeToString() for each in collector.spans)
        return
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "?"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "t1", "name": "add", "arguments": "{}"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "t1", "response": "4"}]},
    ]
    assert json.loads(attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "four"}], "finish_reason": "stop"}
    ]
    assert json.loads(attributes["gen_ai.tool.definitions"]) == [{"type": "function"}]


@pytest.mark.parametrize("asked", ["", "true"])
def test_the_reason_of_a_reward_only_if_messages_are_asked_for(
    collector: Collector, start: Callable[..., Hub], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may quote the answer, so it is exported where messages are."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", asked)
    hub, key = start(), os.urandom(16)
    with Client(hub) as client:
        client.deliver(1, [begin(key, ROLLOUT), [*reward(key, 0.5), True, "unit missing"], end(key)])
        collector.wait(lambda found: bool(found.of(ROLLOUT)))
    (told,) = (plain(each.attributes) for each in collector.of(ROLLOUT)[0].events)
    assert told["gen_ai.evaluation.score.value"] == 0.5
    assert told.get("gen_ai.evaluation.explanation") == ("unit missing" if asked else None)


def test_a_training_is_exported(train: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name a collector and ask for tokens: every rollout of the training arrives, with its ids."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    collector = Collector()
    runner = train()
    settings = {"steps": 1, "export.otlp_endpoint": collector.url, "export.tokens": True}
    assert runner.train(good, settings, declared_roles={"solver": True})["type"] == "finished"
    rollouts = {each["id"] for each in runner.leased}
    collector.wait(lambda found: len(found.spans) == 2 * len(rollouts))
    assert {span.trace_id.hex() for span in collector.spans} == rollouts
    calls = [plain(span.attributes) for span in collector.spans if span.name == "chat bandit"]
    assert all(call["lightning.prompt.token_ids"] == [1, 2, 3] for call in calls)
    assert all(len(call["lightning.completion.0.token_ids"]) == 1 for call in calls)
    assert all(call["lightning.completion.0.logprobs"][0] < 0.0 for call in calls)
    modes = {plain(span.attributes)["lightning.rollout.mode"] for span in collector.spans if not span.parent_span_id}
    assert modes == {"train", "evaluate"}
    collector.close()


def test_attempts_share_the_rollouts_trace(train: Callable[..., Runner], collector: Collector) -> None:
    """An attempt whose runner gave up is a failed root beside the next attempt's, in one trace."""
    runner = train(lease_seconds=60.0)
    runner.begin({"steps": 1}, held_out=[])
    first: list[dict[str, Any]] = []
    while not first:
        first = runner.lease(1, 1.0)
    runner.client.ask("release", runner=runner.name)
    runner.play(good)
    rollout = first[0]["id"]
    collector.wait(lambda found: len(found.of(rollout)) == 3)
    roots = [plain(span.attributes) for span in collector.of(rollout) if not span.parent_span_id]
    told = {(root["lightning.rollout.attempt"], root["lightning.rollout.status"]) for root in roots}
    assert told == {(1, "infrastructure_error"), (2, "ok")}


def test_attempts_that_the_hub_did_not_survive(train: Callable[..., Runner], collector: Collector) -> None:
    """What was under way when the hub was killed is exported by the next one, as what it became."""
    runner = train()
    runner.begin({"steps": 1}, held_out=[])
    leased: list[dict[str, Any]] = []
    while not leased:
        leased = runner.lease(1, 1.0)
    runner.hub.kill()
    assert not collector.of(leased[0]["id"])
    runner.hub.start()
    collector.wait(lambda found: bool(found.of(leased[0]["id"])))
    (root,) = collector.of(leased[0]["id"])
    assert root.status.message == "the hub stopped while the rollout was under way"


# --- a collector that does not answer


def test_a_dead_collector_is_said_and_costs_nothing(start: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: events are durable as ever, what was dropped is counted and said once, and the hub stops."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
    hub = start()
    with Client(hub) as client:
        number = 1
        for _ in range(20):
            events = a_rollout(os.urandom(16))
            client.deliver(number, events)
            number += len(events)
        wait_for(lambda: client.ask("status")["export"]["dropped"], "spans that are dropped")
        status = client.ask("status")
        warnings = [event["text"] for event in client.ask("watch", after=0) if event["type"] == "warning"]
    assert status["events"] == number - 1
    assert "refused" in status["export"]["error"]
    assert len(warnings) == 1
    assert warnings[0].startswith("spans cannot be exported to http://127.0.0.1:9 and are dropped: ")
    assert hub.stop() == 0
    assert hub.log().count("Traceback") == 0


def test_a_hanging_collector_holds_nothing_back(start: Callable[..., Hub], collector: Collector) -> None:
    """It takes a request and never answers: events are acknowledged all the same, and what waits goes out later."""
    collector.hang.set()
    hub, rollouts, number = start(), [os.urandom(16) for _ in range(30)], 1
    with Client(hub) as client:
        for key in rollouts:
            client.deliver(number, [begin(key, key.hex()), end(key)])
            number += 2
        assert client.ask("status")["events"] == number - 1
        assert not collector.spans
        collector.hang.clear()
        collector.wait(lambda found: {span.trace_id for span in found.spans} == set(rollouts))


def test_what_waits_is_bounded(tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the oldest is dropped and counted."""
    monkeypatch.setattr("lightning_hub.export.exporter._MAX_WAITING", 5)
    collector.hang.set()
    store, log = Store(tmp_path / "hub.sqlite"), Log(tmp_path / "spans")
    index = Index(log, store, lambda _: True)
    target = ExportTarget.of(None, False, os.environ)
    assert target is not None
    exporter = Exporter(target, index=index, store=store, workflow="w", warn=lambda _: None)
    keys = [number.to_bytes(16, "big") for number in range(1, 13)]
    store.begin(BeginRow(key, key.hex(), 1, "observe", -1, "{}", "g", "", 1.0) for key in keys)
    store.end(EndRow("ok", "", "", 2.0, key) for key in keys)
    for key in keys:
        exporter.add_rollouts([key])
    assert (exporter.status()["waiting"], exporter.status()["dropped_rollouts"]) == (5, 7)
    collector.hang.clear()
    collector.wait(lambda found: len(found.spans) == 5)
    exporter.close()
    assert {span.trace_id for span in collector.spans} == set(keys[-5:])
    store.close()
    log.close()


def test_the_last_spans_go_out_when_the_hub_stops(collector: Collector, hub: Hub) -> None:
    """A rollout that ended an instant before the hub was stopped is exported."""
    key = os.urandom(16)
    with Client(hub) as client:
        client.deliver(1, [begin(key, ROLLOUT), end(key)])
    assert hub.stop() == 0
    assert len(collector.of(ROLLOUT)) == 1


# --- from a user's program to the user's collector


PROGRAM = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
import lightning_sdk as lightning
from lightning_sdk.capture.seam import open_call

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("tools")
lightning.init(sys.argv[1], sys.argv[2], integrations=frozenset())

@lightning.agent(role="solver")
def solve():
    with tracer.start_as_current_span("execute_tool search"):
        call = open_call("openai", "/v1/chat/completions")
        call.request = b'{"model": "m"}'
        call.finish(b'{"id": "x", "model": "m", "choices": []}')

with tracer.start_as_current_span("request"):
    with lightning.rollout() as rollout:
        solve()
print(rollout.id)
lightning.shutdown()
provider.shutdown()
"""


def test_both_exporters_make_one_tree(collector: Collector, start: Callable[..., Hub]) -> None:
    """The user's exporter and ours meet in the collector: each span once, agents, tools and calls in one tree."""
    hub = start("solve")
    command = [sys.executable, "-c", PROGRAM, hub.address, KEY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rollout = done.stdout.strip()
    collector.wait(lambda found: len(found.of(rollout)) == 4)
    assert hub.stop() == 0
    assert tree(collector.of(rollout)) == {
        "invoke_workflow solve": "",
        "invoke_agent solver": "invoke_workflow solve",
        "execute_tool search": "invoke_agent solver",
        "chat m": "execute_tool search",
    }
    (root,) = [span for span in collector.of(rollout) if not span.parent_span_id]
    (request,) = [span for span in collector.spans if span.name == "request"]
    assert [(each.trace_id, each.span_id) for each in root.links] == [(request.trace_id, request.span_id)]
    assert len(collector.spans) == 5
