"""The front of several servers: pinning, holding, draining, servers that die, and stamps. Its servers are stand-ins."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from typing import Any

import openai
import pytest
from openai import OpenAI

import lightning_sdk as lightning
from lightning_sdk.failures.failure import status_of
from lightning_sdk.trace.call import Status
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope
from tests.front.fronted import MODEL, OURS, Fronted, request_counts
from tests.front.standin import KEY, stand_in


def nowhere() -> OpenAI:
    """A user's client, whose own address answers nothing."""
    return OpenAI(base_url="http://127.0.0.1:1/v1", api_key="user's")


def test_a_reply_is_the_server_s_with_its_version_next_to_the_ids(two: Fronted) -> None:
    """Each choice is stamped, and what only looks like ids inside a text is left alone."""
    reply = two.ask(n=2)
    assert reply.versions == [[[1, 3]], [[1, 3]]]
    assert reply.json()["choices"][0]["message"]["content"].endswith('says "token_ids":[7] and so on')
    assert reply.json()["prompt_token_ids"] == [1, 2]


def test_nothing_sampled_has_no_run_of_versions(one: Fronted) -> None:
    """A completion without tokens has an empty list of runs."""
    one.servers[0].words = 0
    assert one.ask().versions == [[]]


def test_a_stream_is_passed_on_as_it_comes_and_stamped(one: Fronted) -> None:
    """Each event carries the version of its tokens, however the pieces were cut."""
    with one.client() as client:
        stream = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a"}], stream=True)
        choices = [chunk.choices[0].model_dump() for chunk in stream]
    assert [(choice["token_ids"], choice["weight_versions"]) for choice in choices] == [
        ([number], [[1, 1]]) for number in range(3)
    ]


def test_the_servers_see_the_body_as_it_was_and_their_own_key(one: Fronted) -> None:
    """Nothing is taken from a body or added to it; the front's key stays at the front."""
    one.ask(temperature=0.5, odd={"a": 1})
    (server,) = one.servers
    assert server.requests == [
        {"model": MODEL, "messages": [{"role": "user", "content": "2+2"}], "temperature": 0.5, "odd": {"a": 1}}
    ]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_text_completions_pass_as_well(one: Fronted) -> None:
    """/v1/completions is the server's too."""
    assert one.ask(path="completions", prompt="a").versions == [[[1, 3]]]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [({"model": "other"}, 404, "model_not_found"), ({"model": 3}, 400, None), ({"model": None}, 400, "invalid_value")],
)
def test_a_request_for_another_model_is_refused_in_openai_s_shape(
    one: Fronted, fields: dict[str, Any], status: int, code: str | None
) -> None:
    """The server never sees it."""
    reply = one.ask(**fields)
    assert reply.status == status and reply.json()["error"]["code"] == code
    assert not one.servers[0].requests


def test_the_key_is_asked_for(one: Fronted) -> None:
    """Without it nothing but /health is answered."""
    assert one.ask(key="wrong").json()["error"]["code"] == "invalid_api_key"
    with urllib.request.urlopen(one.url.removesuffix("/v1") + "/health") as reply:
        health = json.load(reply)
    assert health["status"] == "ok" and health["version"] == 1
    with one.client() as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        assert client.models.retrieve(MODEL).owned_by == "lightning"
        with pytest.raises(openai.NotFoundError, match="use 'spark'"):
            client.models.retrieve("other")


def test_a_rollout_stays_with_its_server_and_rollouts_are_spread(two: Fronted) -> None:
    """All calls of a rollout reach one server, and half of the rollouts each."""
    for _ in range(3):
        for rollout in range(6):
            two.ask(f"rollout{rollout}", user=f"rollout{rollout}")
    seen = [{request["user"] for request in server.requests} for server in two.servers]
    assert request_counts(two.servers) == [9, 9] and not seen[0] & seen[1]


def test_without_a_rollout_s_name_its_first_messages_tell(two: Fronted) -> None:
    """A conversation that grows stays where it began."""
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    for turns in range(4):
        later = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}] * turns
        two.ask("", messages=[*messages, *later])
        two.ask("", messages=[{"role": "user", "content": "other"}, *messages])
    assert sorted(request_counts(two.servers)) == [4, 4]


def test_a_new_rollout_goes_to_the_server_with_less_to_do(two: Fronted) -> None:
    """Three that are stuck at one server make the other one take the next."""
    first, second = two.servers
    first.gate.clear()
    second.gate.clear()
    stuck = [two.later(f"r{number}") for number in range(4)]
    two.until(lambda: request_counts(two.servers) == [2, 2])
    second.gate.set()
    two.until(lambda: sum(each.done() for each in stuck) == 2)
    for number in range(5):
        two.ask(f"new{number}")
    first.gate.set()
    assert request_counts(two.servers) == [2, 7] and all(each.result().status == 200 for each in stuck)
    two.until(lambda: two.front.counts().in_flight == 0)
    assert [each.asked for each in two.front.counts().upstreams] == [2, 7]


def test_requests_wait_until_something_serves() -> None:
    """A front without servers keeps what it is asked, and answers with the version that it then has."""
    with ExitStack() as stack:
        fronted = Fronted(stack, 0, 20.0)
        server = stack.enter_context(stand_in("late"))
        waiting = fronted.later()
        fronted.until(lambda: fronted.front.counts().waiting == 1)
        fronted.front.serve([server.upstream], 7)
        assert waiting.result().versions == [[[7, 3]]]


def test_held_requests_wait_and_have_the_new_version(one: Fronted) -> None:
    """What is under way when a front is held keeps its version; what comes then waits for the next one."""
    (server,) = one.servers
    server.gate.clear()
    before = one.later()
    one.until(lambda: len(server.requests) == 1)
    one.front.hold()
    after = [one.later() for _ in range(3)]
    one.until(lambda: one.front.counts().waiting == 3)
    server.gate.set()
    assert one.front.drain(10.0) == 0
    assert len(server.requests) == 1 and not any(each.done() for each in after)
    one.front.resume(2)
    assert [each.result().versions for each in [before, *after]] == [[[[version, 3]]] for version in (1, 2, 2, 2)]


def test_what_is_left_after_a_drain_is_asked_again(one: Fronted) -> None:
    """Nobody sees an error: the reply is of the new weights alone."""
    (server,) = one.servers
    server.gate.clear()
    stuck = [one.later(f"r{number}") for number in range(3)]
    one.until(lambda: len(server.requests) == 3)
    one.front.hold()
    assert one.front.drain(0.05) == 3
    assert one.front.counts().in_flight == 0
    server.gate.set()
    one.front.resume(5)
    assert [each.result().versions for each in stuck] == [[[[5, 3]]]] * 3
    assert len(server.requests) == 6


def test_a_server_that_died_is_replaced_by_another_one(two: Fronted) -> None:
    """What a dying server had is asked again at the other, with every later call of the rollout."""
    two.ask("pinned")
    first = next(server for server in two.servers if server.requests)
    other = next(server for server in two.servers if server is not first)
    first.behave = lambda _: "half"
    assert two.ask("pinned").status == 503  # it accepts connections and never ends a reply: what they die of
    first.behave = lambda _: "500"
    assert two.ask("pinned").json()["choices"][0]["message"]["content"].startswith(other.name)
    first.behave = lambda _: ""
    assert two.ask("pinned").json()["choices"][0]["message"]["content"].startswith(other.name)


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_is_gone_is_waited_for(stream: bool) -> None:
    """Requests to a port where nothing listens wait for a server that takes its place."""
    with ExitStack() as stack:
        fronted = Fronted(stack, 0, 20.0)
        with stand_in("gone") as gone:
            pass
        fronted.front.serve([gone.upstream], 3)
        waiting = fronted.later(stream=stream)
        fronted.until(lambda: fronted.front.counts().upstreams[0].lost > 0)
        server = stack.enter_context(stand_in("back"))
        fronted.front.serve([server.upstream], 4)
        assert waiting.result().status == 200 and '"weight_versions":[[4,' in waiting.result().text


def test_a_server_without_its_engine_is_not_asked_until_it_is_well() -> None:
    """It would refuse each request at once; those that wait for it are not what it dies of."""
    with ExitStack() as stack:
        fronted = Fronted(stack, 1, 20.0)
        (server,) = fronted.servers
        server.behave, server.well = (lambda _: "500"), False
        waiting = [fronted.later(str(place)) for place in range(4)]
        fronted.until(lambda: fronted.front.counts().waiting == 4)
        time.sleep(1.5)  # several looks, each after the rest of half a second
        assert 1 <= len(server.requests) <= 4 and fronted.front.counts().waiting == 4
        server.behave, server.well = (lambda _: ""), True
        assert [each.result().status for each in waiting] == [200] * 4


def test_patience_ends_with_503_and_no_second_round(one: Fronted) -> None:
    """After its patience a front says 503 in OpenAI's shape, and tells the client's SDK not to try again."""
    one.servers[0].behave = lambda _: "reset"
    reply = one.ask()
    assert reply.status == 503 and reply.headers["x-should-retry"] == "false"
    assert reply.json()["error"]["type"] == "server_error"
    assert len(one.servers[0].requests) == 3  # it may be this request that they die of
    one.front.serve([], 1)
    assert "no server of the model was available for 0.6 s" in one.ask().json()["error"]["message"]


def test_a_server_s_own_failure_is_told_in_its_words_at_last(one: Fronted) -> None:
    """A 500 is asked again, and handed on when it does not go away."""
    one.servers[0].behave = lambda _: "500"
    assert one.ask().json()["error"]["message"] == "the engine died"


@pytest.mark.parametrize("stream", [False, True])
def test_a_rollout_that_loses_its_server_is_a_failure_of_ours(stream: bool, one: Fronted) -> None:
    """Through OpenAI's SDK and our seam it is an infrastructure error, which the hub tries again."""
    lightning.init()
    one.servers[0].behave = lambda _: "half" if stream else "reset"
    rollout = RolloutScope("a" * 32, bytes(16), Endpoint(one.url, MODEL, OURS))
    scope = Scope(rollout=rollout, role="solver", trainable=True)
    with use_scope(scope), nowhere() as client, pytest.raises(Exception) as raised:
        list(client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}], stream=stream))
    assert status_of(rollout, raised.value) is Status.INFRASTRUCTURE_ERROR


def test_the_seam_names_the_rollout(two: Fronted) -> None:
    """Calls of a rollout that begin with different messages, as two roles' do, reach one server."""
    lightning.init()
    for number in range(4):
        rollout = RolloutScope(f"{number:032}", bytes(16), Endpoint(two.url, MODEL, OURS))
        with use_scope(Scope(rollout=rollout, role="solver", trainable=True)), nowhere() as client:
            for said in range(3):
                messages = [{"role": "user", "content": f"{number}: {said}"}]
                client.chat.completions.create(model="m", messages=messages)  # type: ignore[arg-type]
    seen = [{request["messages"][0]["content"][0] for request in server.requests} for server in two.servers]
    assert request_counts(two.servers) == [6, 6] and not seen[0] & seen[1]


def test_a_stream_that_is_cut_off_is_not_a_whole_reply(one: Fronted) -> None:
    """What the client has read of it cannot be taken back: the connection breaks, and nobody takes it for the end."""
    (server,) = one.servers
    server.words = 5000
    with one.client() as client:
        stream = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a"}], stream=True)
        next(stream)
        one.front.hold()
        assert one.front.drain(0.0) == 1
        with pytest.raises(openai.APIConnectionError):
            list(stream)
    assert one.front.counts().in_flight == 0 and len(server.requests) == 1


def test_a_front_that_has_failed_says_why(one: Fronted) -> None:
    """Requests that wait are answered too, with 503."""
    one.front.hold()
    waiting = one.later()
    one.until(lambda: one.front.counts().waiting == 1)
    one.front.fail("every server is gone")
    for reply in (waiting.result(), one.ask()):
        assert reply.status == 503 and reply.json()["error"]["message"] == "every server is gone"


def test_a_client_that_hangs_up_frees_the_server(one: Fronted) -> None:
    """Nobody waits for it, so the server is not kept busy."""
    (server,) = one.servers
    server.gate.clear()
    with pytest.raises(TimeoutError):
        one.ask(seconds=0.2)
    one.until(lambda: one.front.counts().in_flight == 0)
    server.gate.set()


def test_many_threads_change_a_busy_front(two: Fronted) -> None:
    """Held, drained, resumed and given other servers while requests come: each is answered once, and well."""
    stop = threading.Event()

    def change() -> None:
        version = 1
        while not stop.is_set():
            two.front.hold()
            two.front.drain(0.01)
            version += 1
            two.front.serve([server.upstream for server in two.servers[:: 1 if version % 2 else -1]], version)
            two.front.resume(version)
            time.sleep(0.02)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        replies = [each.result() for each in [two.later(f"r{number}") for number in range(300)]]
    finally:
        stop.set()
        changing.join()
    assert [reply.status for reply in replies] == [200] * 300
    assert max(reply.versions[0][0][0] for reply in replies) > 2


def test_servers_are_asked_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A front asks its servers itself, whatever proxy the environment names: it would see their key."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "localhost")  # for who asks the front here; its servers have another name
    with ExitStack() as stack:
        fronted = Fronted(stack, 1, 2.0)
        assert all("127.0.0.1" in server.upstream.url for server in fronted.servers)
        fronted.url = fronted.url.replace("127.0.0.1", "localhost")
        assert fronted.ask().status == 200
