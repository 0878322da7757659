"""No request takes the engine from everybody: its size is bounded, slots are shared, and it ends with its client."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from openai import BadRequestError

from lightning_embedded.engine.fair_queue import FairQueue
from lightning_embedded.engine.sequence import Params, Sequence
from lightning_sdk.capture.seam import ROLLOUT_HEADER
from tests.engine.served_engine import KEY, Service
from tests.waiting import wait_for


def test_too_many_completions_are_refused(service: Service) -> None:
    """One request of 100 kB cannot ask for millions of completions; nothing of it is begun."""
    with pytest.raises(
        BadRequestError, match=r"2,560,000 completions \(prompts: 20,000, n: 128\); at most 2,048 are allowed"
    ):
        service.client().completions.create(model="tiny", prompt=["a"] * 20_000, n=128, max_tokens=4)
    assert service.engine.waiting == service.engine.running == 0
    found = service.client().completions.create(model="tiny", prompt=["a", "b"], n=3, max_tokens=2)
    assert len(found.choices) == 6


def test_what_would_keep_everybody_waiting_is_refused(service: Service) -> None:
    """Text that is too long whatever its tokens are, and more stop texts than anybody has."""
    with pytest.raises(BadRequestError, match="characters; this model takes at most") as refused:
        service.client().chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a" * 2**21}])
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(BadRequestError, match="stop has 65 strings; at most 64 are allowed"):
        service.client().completions.create(model="tiny", prompt="a", stop=[str(n) for n in range(65)])


def test_a_client_that_leaves_frees_the_engine(service: Service) -> None:
    """The largest request that is allowed ends within moments of its client's hanging up."""
    body = json.dumps({"model": "tiny", "prompt": ["a b"] * 1024, "n": 2, "max_tokens": 200}).encode()
    host, port = service.url.removeprefix("http://").partition("/")[0].split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"Host: {host}:{port}\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\n" + head.encode() + body)
        wait_for(lambda: service.engine.running > 0)
    wait_for(lambda: service.engine.waiting == service.engine.running == 0)
    assert service.engine.stats.generated < 2048 * 200


def test_nobody_waits_for_all_of_another_request(service: Service) -> None:
    """While a request of 300 completions is served, another client's only one is answered."""
    prompts, done = ["a b"] * 150, threading.Event()

    def ask() -> None:
        service.client().completions.create(model="tiny", prompt=prompts, n=2, max_tokens=8)
        done.set()

    large = threading.Thread(target=ask)
    large.start()
    wait_for(lambda: service.engine.running > 0)
    service.client().completions.create(model="tiny", prompt="c", max_tokens=8)
    assert not done.is_set()
    assert service.engine.waiting > 50
    large.join()


def test_slots_are_given_in_turn() -> None:
    """To each client one after another; what had a slot before goes first, and what nobody waits for is dropped."""
    queue = FairQueue()
    made = {
        name: Sequence([1], Params(max_tokens=1), lambda _: None, client=name[0])
        for name in ("a1", "a2", "a3", "b1", "c1", "r")
    }
    queue.extend(made[name] for name in ("a1", "a2", "a3", "b1", "c1"))
    queue.put_back([made["r"]])
    made["c1"].aborted = True
    queue.drop_aborted()
    names = {id(sequence): name for name, sequence in made.items()}
    assert len(queue) == 5
    assert [names[id(queue.take())] for _ in range(5)] == ["r", "a1", "b1", "a2", "a3"]
    assert not queue


def test_the_completions_of_a_rollout_share_a_turn(service: Service) -> None:
    """A rollout is one client, however many requests it sends at once."""
    seen = []
    submit = service.engine.submit

    def watch(sequences: list[Sequence]) -> None:
        seen.extend(sequence.client for sequence in sequences)
        submit(sequences)

    service.engine.submit = watch  # type: ignore[method-assign]
    for rollout in ("one", "one", ""):
        headers = {ROLLOUT_HEADER: rollout} if rollout else {}
        service.client().completions.create(model="tiny", prompt="a", n=2, max_tokens=1, extra_headers=headers)
    assert seen[:4] == ["one"] * 4
    assert seen[4] == seen[5] != "one"
