"""Two real vLLM servers behind the front: what they say, who gets what, new weights in place, and a kill -9."""

from __future__ import annotations

import copy
import signal
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.vllm.served import LONG, Served, group, kill_group_member, metric
from tests.waiting import wait_for

TOLERANCE = 1e-3


def test_replies_have_what_training_needs(two: Served) -> None:
    """Ids, log-probs and versions, equal to what the learner computes, also at another temperature and with top_p."""
    reply = two.ask()
    (choice,) = reply["choices"]
    assert choice["weight_versions"] == [[two.version, len(choice["token_ids"])]]
    assert two.gaps(reply).max() < TOLERANCE
    warm = two.ask(temperature=1.7)
    prompt, sampled = warm["prompt_token_ids"], warm["choices"][0]["token_ids"]
    with torch.no_grad():
        logits = two.model(torch.tensor([prompt + sampled])).logits[0, len(prompt) - 1 : -1] / 1.7
    ours = torch.log_softmax(logits, -1).gather(1, torch.tensor(sampled)[:, None])[:, 0]
    theirs = torch.tensor([token["logprob"] for token in warm["choices"][0]["logprobs"]["content"]])
    assert (ours - theirs).abs().max() < TOLERANCE


def test_streams_have_them_too(two: Served) -> None:
    """Each chunk's ids have their version."""
    chunks = [chunk.model_dump() for chunk in two.ask(stream=True)]
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice.get("token_ids")]
    assert choices and all(choice["weight_versions"] == [[two.version, len(choice["token_ids"])]] for choice in choices)


def test_tool_calls_are_parsed(two: Served) -> None:
    """spark writes them as Hermes does, which is read off its chat template."""
    properties = {"expression": {"type": "string"}}
    function = {"name": "calculator", "parameters": {"type": "object", "properties": properties}}
    tools = [{"type": "function", "function": function}]
    asked = [two.later("Calculate 12 * 7 + 3.", f"t{n}", tools=tools, max_tokens=96) for n in range(48)]
    replies = [each.result() for each in asked]
    called = [reply["choices"][0] for reply in replies if reply["choices"][0]["message"]["tool_calls"]]
    assert called and all(choice["finish_reason"] == "tool_calls" for choice in called)
    assert "calculator" in {choice["message"]["tool_calls"][0]["function"]["name"] for choice in called}


def test_a_rollout_s_calls_reach_one_server(two: Served) -> None:
    """By vLLM's own counts: one server answered all of a rollout's calls, and found the beginning in its cache."""
    done, hits = "vllm:request_success_total", "vllm:prefix_cache_hits_total"
    for rollout in ("first", "second", "third"):
        before = [(metric(server, done), metric(server, hits)) for server in two.servers]
        for turn in range(4):
            two.ask(f"{LONG} {rollout} {turn}", rollout)
        after = [(metric(server, done), metric(server, hits)) for server in two.servers]
        gained = [(now[0] - then[0], now[1] - then[1]) for then, now in zip(before, after, strict=True)]
        assert sorted(calls for calls, _ in gained) == [0, 4]
        assert max(found for _, found in gained) > 0


def test_after_an_update_nothing_is_of_the_old_weights(two: Served) -> None:
    """A prompt that was cached before it is computed again, on every server."""
    rollouts = [f"pinned{number}" for number in range(4)]
    for rollout in rollouts * 2:
        two.ask(LONG, rollout)
    assert all(metric(server, "vllm:prefix_cache_hits_total") > 0 for server in two.servers)
    two.change()
    assert two.gaps(two.ask(LONG, rollouts[0])).max() > TOLERANCE  # not yet published: the test would see it
    two.publish()
    for rollout in rollouts:
        reply = two.ask(LONG, rollout)
        assert two.gaps(reply).max() < TOLERANCE
        assert {version for version, _ in reply["choices"][0]["weight_versions"]} == {two.version}


def test_requests_under_way_are_kept_and_go_on_with_the_new_weights(two: Served) -> None:
    """Nobody sees an error: first come tokens of the old weights, then of the new, and the stamp is the lower one."""
    old, before = copy.deepcopy(two.model), two.version
    running = [two.later(LONG, f"kept{n}", max_tokens=1200, extra={"ignore_eos": True}) for n in range(4)]
    wait_for(lambda: two.fleet.front.counts().in_flight == 4, "all under way")
    time.sleep(1.0)
    two.change()
    two.fleet.pause()
    two.publish()
    waiting = two.later(LONG, "waits")
    time.sleep(0.3)
    assert not waiting.done()
    two.fleet.resume()
    for reply in [each.result() for each in running]:
        assert reply["choices"][0]["weight_versions"] == [[before, 1200]]
        of_old, of_new = two.gaps(reply, old) < TOLERANCE, two.gaps(reply) < TOLERANCE
        switch = int(of_old.long().cumprod(0).sum())
        assert 0 < switch < 1200 and of_new[switch:].all()
    assert two.gaps(waiting.result()).max() < TOLERANCE


def test_control_endpoints_ask_for_the_key(two: Served) -> None:
    """Nobody else on this machine puts weights into a server, or reads its counts."""
    base = two.servers[0].upstream.url.removesuffix("/v1")
    for path in ("/pause", "/collective_rpc", "/metrics", "/v1/models"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(urllib.request.Request(base + path, b"{}" if path[1] in "pc" else None))


@pytest.mark.parametrize("victim", ["api_server", "EngineCore"])
def test_a_killed_server_comes_back_with_the_current_weights(two: Served, victim: str) -> None:
    """kill -9 in the middle of requests: all are answered well, nothing of the dead one is left, and the new one has
    the weights of now."""
    two.change()
    two.publish()
    dead, restarts = two.servers[0].pid, two.fleet.restarts
    asked = [two.later(LONG, f"k{victim}{n}", max_tokens=600, extra={"ignore_eos": True}) for n in range(12)]
    wait_for(lambda: two.fleet.front.counts().in_flight >= 6, "all under way")
    kill_group_member(dead, victim, signal.SIGKILL)
    for each in asked:
        reply = each.result()
        assert len(reply["choices"][0]["token_ids"]) == 600 and two.gaps(reply).max() < TOLERANCE
    wait_for(lambda: not group(dead), "nothing is left of the dead server")
    wait_for(lambda: len(two.fleet.front.counts().upstreams) == 2, "both serve again", 400)
    assert two.fleet.restarts == restarts + 1
    fresh = two.servers[0].upstream.url
    replies = [two.ask(LONG, f"new{victim}{n}") for n in range(6)]
    assert all(two.gaps(reply).max() < TOLERANCE for reply in replies)
    assert next(each for each in two.fleet.front.counts().upstreams if each.url == fresh).asked > 0


def test_a_server_that_is_killed_before_it_has_the_weights_comes_back_with_them(two: Served) -> None:
    """vLLM's API server never answers what its engine did not answer: the publication does not wait for it."""
    two.change()
    dead, restarts = two.servers[0].pid, two.fleet.restarts
    kill_group_member(dead, "EngineCore", signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        published = threads.submit(two.publish)
        wait_for(lambda: two.fleet.front._held, "the publication has begun")
        kill_group_member(dead, "EngineCore", signal.SIGKILL)
        published.result(60)
    wait_for(lambda: len(two.fleet.front.counts().upstreams) == 2, "both serve again", 400)
    assert two.fleet.restarts == restarts + 1
    assert all(two.gaps(two.ask(LONG, f"late{n}")).max() < TOLERANCE for n in range(6))


def test_an_idle_fleet_uses_little_of_the_processor(two: Served) -> None:
    """The learner has the cores while the servers wait for it."""

    def cpu_used() -> float:
        return sum(cpu_seconds(pid) for server in two.servers for pid in group(server.pid))

    two.fleet.pause()
    threading.Event().wait(3.0)  # a worker looks out for work for a second before it sleeps
    before, began = cpu_used(), time.monotonic()
    threading.Event().wait(4.0)
    share = (cpu_used() - before) / (time.monotonic() - began)
    two.fleet.resume()
    assert share < 0.5


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
