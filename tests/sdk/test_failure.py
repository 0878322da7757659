"""Whose failure it is, and its words: the user's own lines, what a child printed, and what to do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx2 as httpx
import numpy
import openai
import pytest
import torch
from huggingface_hub import InferenceClient, constants

import lightning_sdk as lightning
from lightning_sdk.markers.reward import reward_functions
from lightning_sdk.rollouts.attempt import execute
from lightning_sdk.stream.wire import Event
from tests.sdk.recorder import Recorder

#: Nobody listens there.
NOWHERE = "http://127.0.0.1:9/v1"


def run(
    recorder: Recorder, agent: Callable[..., Any], *rewards: Callable[..., Any]
) -> tuple[str, str, list[tuple[Any, ...]]]:
    """Status and error of one rollout, run as a runner does, and its rewards as (number, role, name)."""
    message = {
        "id": "a" * 32,
        "key": os.urandom(16),
        "endpoint": {"url": NOWHERE, "model": "m", "key": "k"},
        "sampling": {},
        "roles": [],
        "task": {"question": "?"},
        "timeout": 60.0,
    }
    thread = threading.Thread(target=execute, args=(agent, reward_functions(rewards) if rewards else (), message))
    thread.start()
    thread.join()
    (end,) = recorder.of(Event.END)
    return end[2], end[3], [event[2:5] for event in recorder.of(Event.REWARD)]


def answering(task: dict[str, Any]) -> str:
    return "4"


def judge(task: dict[str, Any]) -> str:
    """An agent that gives its own reward."""
    lightning.emit_reward(0.25, name="own")
    return "4"


def giving(value: Any) -> Callable[..., Any]:
    def judge(task: dict[str, Any], answer: str) -> Any:
        return value

    return judge


def doing(action: Callable[[], Any]) -> Callable[..., Any]:
    def judge(task: dict[str, Any], answer: str) -> float:
        action()
        return 1.0

    return judge


def raise_error(error: BaseException) -> None:
    raise error


# --- what is a reward


@pytest.mark.parametrize(
    "value",
    [
        1,
        True,
        numpy.bool_(True),
        numpy.float16(1.0),
        numpy.array([1.0]),
        numpy.array([[1]]),
        torch.tensor(1.0),
        torch.ones(1, requires_grad=True),
        Decimal(1),
        {"": numpy.array([1.0])},
        (1.0, "good"),
        (numpy.array([1.0]), "good"),
        lightning.Reward(torch.tensor(1.0), why="good"),
    ],
    ids=repr,
)
def test_one_number_in_any_form_is_a_reward(recorder: Recorder, value: Any) -> None:
    """Arrays and tensors of one element are that number."""
    assert run(recorder, answering, giving(value)) == ("ok", "", [(1.0, "", "judge")])


class Odd:
    """It says that it is a number, and is none."""

    def __float__(self) -> float:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise RuntimeError


class OddDict(dict[str, float]):
    def items(self) -> Any:
        raise KeyError("lazy")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (numpy.array([0.5, 1.0]), "gave array([0.5, 1. ]) (ndarray of shape (2,))"),
        (torch.ones(2), "gave tensor([1., 1.]) (Tensor of shape (2,))"),
        (numpy.array(["1"]), "of shape (1,)"),
        (10**400, "gave 1000"),
        (10**5000, "its repr raised ValueError"),
        (Decimal("sNaN"), "gave Decimal('sNaN')"),
        (numpy.complex128(1), "complex128"),
        (1j, "gave 1j (complex)"),
        ("0.5", "gave '0.5' (str)"),
        ((1.0, 2.0), "gave (1.0, 2.0) (tuple)"),
        (("good", 1.0), "gave ('good', 1.0) (tuple)"),
        ((1.0, "good", "brief"), "gave (1.0, 'good', 'brief') (tuple)"),
        (float("nan"), "gave nan"),
        ({"solver": None}, "role 'solver' gave None"),
        ({"solver": 10**400}, "role 'solver' gave 1000"),
        (Odd(), "its repr raised RuntimeError"),
        (OddDict(a=1.0), "judge() raised KeyError: 'lazy'"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_value_that_is_not_a_reward_is_the_rewards_error(recorder: Recorder, value: Any, said: str) -> None:
    """Never the agent's: the function and the value are named, and what to return."""
    status, error, rewards = run(recorder, answering, giving(value))
    assert status == "reward_error" and not rewards
    assert "the reward function judge()" in error and said in error and len(error) < 1500
    assert "a reward is a finite number, or a dict of role to number" in error or "raised KeyError" in error


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (StopIteration(), "StopIteration"),
        (asyncio.CancelledError(), "CancelledError"),
        (BaseExceptionGroup("x", [SystemExit(3)]), "SystemExit: 3"),
    ],
    ids=repr,
)
def test_whatever_a_reward_raises_is_its_own_error(recorder: Recorder, error: BaseException, name: str) -> None:
    """With its line, also what ends a thread or a task in other code."""
    status, text, _ = run(recorder, answering, doing(lambda: raise_error(error)))
    assert status == "reward_error" and text.startswith(f"RewardError: the reward function judge() raised {name}")
    assert f"{__file__}:" in text and "in judge: action()" in text


# --- rewards from inside


def test_an_agent_that_rewards_itself_needs_no_function(recorder: Recorder) -> None:
    """What it emits is its reward."""
    assert run(recorder, judge) == ("ok", "", [(0.25, "", "own")])


def test_a_function_that_returns_none_adds_nothing(recorder: Recorder) -> None:
    """Beside what was given inside, or by another function; alone it is an error that names the function."""
    assert run(recorder, judge, giving(None)) == ("ok", "", [(0.25, "", "own")])
    recorder.events.clear()
    assert run(recorder, answering, giving(None), answer_length) == ("ok", "", [(1.0, "", "answer_length")])
    recorder.events.clear()
    status, error, _ = run(recorder, answering, giving(None))
    assert status == "reward_error" and "without a reward: the reward function judge() gave None" in error


def answer_length(task: dict[str, Any], answer: str) -> float:
    return float(len(answer))


def test_a_rollout_that_nothing_rewards(recorder: Recorder) -> None:
    """It does not count as 0, and both ways to give a reward are named."""
    status, error, _ = run(recorder, answering)
    assert status == "reward_error" and "no reward function" in error and "emit_reward()" in error


# --- the words


def test_the_users_own_lines_are_shown(recorder: Recorder) -> None:
    """A library's error comes with the line of the agent that led there, and with the library's last one."""

    def ask(task: dict[str, Any]) -> None:
        httpx.URL("http://a:port")

    status, error, _ = run(recorder, ask, giving(1.0))
    lines = error.splitlines()
    assert status == "agent_error" and lines[0].startswith("InvalidURL: ")
    assert lines[1].startswith(f"  {__file__}:") and lines[1].endswith('in ask: httpx.URL("http://a:port")')
    assert "site-packages" in lines[2] and len(lines) < 6


def test_a_child_process_has_the_last_word(recorder: Recorder) -> None:
    """What an agent in another language printed on its standard error before it failed."""

    def ask(task: dict[str, Any]) -> str:
        program = "import sys; sys.stderr.write('TypeError: tools is not iterable\\n    at agent.mjs:12'); sys.exit(1)"
        return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    status, error, _ = run(recorder, ask, giving(1.0))
    assert status == "agent_error" and error.startswith("CalledProcessError: ") and f"{__file__}:" in error
    assert "its stderr ended:\n    TypeError: tools is not iterable\n        at agent.mjs:12" in error


def test_what_caused_an_error_is_shown(recorder: Recorder) -> None:
    """The exception that another one was raised from, with its own line."""

    def ask(task: dict[str, Any]) -> None:
        try:
            task["customer"]
        except KeyError as error:
            raise RuntimeError("the tool failed") from error

    _, text, _ = run(recorder, ask, giving(1.0))
    assert text.startswith("RuntimeError: the tool failed\n") and "caused by KeyError: 'customer'" in text
    assert 'in ask: task["customer"]' in text


# --- what to do


def _openai() -> None:
    client = openai.OpenAI(base_url=NOWHERE, api_key="k", max_retries=0)
    client.chat.completions.create(model="judge", messages=[{"role": "user", "content": "?"}])


async def _slow() -> None:
    async with asyncio.timeout(0.01):
        await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("action", "where"),
    [
        (_openai, f" at {NOWHERE}/chat/completions"),
        (lambda: httpx.get(NOWHERE), f" at {NOWHERE}"),
        (lambda: urllib.request.urlopen(NOWHERE), ""),
        (lambda: raise_error(OSError(101, "Network is unreachable")), ""),
        (lambda: asyncio.run(_slow()), ""),
    ],
    ids=["openai", "httpx", "urllib", "socket", "timeout"],
)
@pytest.mark.parametrize("whose", ["reward", "agent"])
def test_a_service_that_is_not_there(recorder: Recorder, action: Callable[[], Any], where: str, whose: str) -> None:
    """It is told as that, with its address, and neither the reward function nor the agent is told to be mended."""
    agent, judge = (doing(action), giving(1.0)) if whose == "agent" else (answering, doing(action))
    status, error, _ = run(recorder, lambda task: agent(task) if whose == "reward" else agent(task, ""), judge)
    called = "the agent" if whose == "agent" else "the reward function"
    assert status == f"{whose}_error"
    last = error.splitlines()[-1]
    assert last.startswith(f"-> The service{where} that {called} calls was not reached")
    assert f"--set failure.{whose}_error=retry" in last


def test_a_hub_client_that_is_offline(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub sends nothing while it is offline: nobody is told to look at the network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def ask(task: dict[str, Any]) -> str:
        with InferenceClient(base_url=NOWHERE, api_key="none") as client:
            return str(client.chat_completion([{"role": "user", "content": "a"}]))

    status, error, _ = run(recorder, ask)
    assert status == "agent_error" and "OfflineModeIsEnabled" in error
    assert "start this process without them" in error.splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "said"), [(401, "check its API key"), (429, "lower rollouts.concurrency"), (503, "see what it logged")]
)
def test_a_service_that_refuses(recorder: Recorder, code: int, said: str) -> None:
    """A judge that answers with an error status is not a fault of the function that calls it."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(code)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        status, error, _ = run(recorder, answering, doing(lambda: httpx.get(url).raise_for_status()))
    assert status == "reward_error"
    assert error.splitlines()[-1].startswith(f"-> The service at {url} that the reward function calls answered with")
    assert f"HTTP status {code}" in error and said in error


# --- by hand


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SystemExit(3), "agent_error"),
        (asyncio.CancelledError(), "agent_error"),
        (GeneratorExit(), "agent_error"),
        (lightning.RewardError("none"), "reward_error"),
        (KeyboardInterrupt(), "infrastructure_error"),
    ],
    ids=repr,
)
def test_a_rollout_by_hand(recorder: Recorder, error: BaseException, status: str) -> None:
    """Whatever is raised passes through, and is whose it was: Ctrl-C is nobody's error."""
    with pytest.raises(type(error)), lightning.rollout({}):
        raise error
    (end,) = recorder.of(Event.END)
    assert end[2] == status and end[3].startswith(type(error).__name__) and f"{__file__}:" in end[3]
