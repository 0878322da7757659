"""Agents that a check should find something in, or nothing, in a file that the command line can load."""

import functools
import itertools
import os
import queue
import random
import threading
import time
from concurrent.futures import Future
from multiprocessing.pool import ThreadPool
from typing import Any

import httpx2
from openai import OpenAI

import lightning_sdk as lightning
from lightning_sdk import session
from lightning_sdk.capture.agent_names import wrap_agent
from lightning_sdk.commands import reward_probe

client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)
_turns: "dict[str, itertools.count[int]]" = {}


def ask(messages: list[Any]) -> str:
    return client.chat.completions.create(model="gpt", messages=messages, max_tokens=6).choices[0].message.content or ""


def question(task: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": task["question"]}]


@lightning.agent(role="solver", trainable=True)
def single(task: dict[str, Any]) -> str:
    return ask(question(task))


@lightning.agent(role="solver", trainable=True)
def good(task: dict[str, Any]) -> str:
    """Two turns of one conversation."""
    messages = question(task)
    messages += [{"role": "assistant", "content": ask(messages)}, {"role": "user", "content": "Sure?"}]
    return ask(messages)


@lightning.agent(role="solver", trainable=True)
def shouting(task: dict[str, Any]) -> str:
    """Sends its first answer back in capitals and with a mark."""
    messages = question(task)
    messages += [{"role": "assistant", "content": ask(messages).upper() + "!"}, {"role": "user", "content": "Sure?"}]
    return ask(messages)


_kept = functools.cache(lambda asked: ask([{"role": "user", "content": asked}]))


@lightning.agent(role="solver", trainable=True)
def cache(task: dict[str, Any]) -> str:
    """Asks once for each task."""
    return _kept(task["question"])


@lightning.agent(role="solver", trainable=True)
def offer_tool(task: dict[str, Any]) -> str:
    """Offers a tool."""
    tool: Any = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    reply = client.chat.completions.create(model="gpt", messages=question(task), max_tokens=6, tools=[tool])
    return reply.choices[0].message.content or ""


@lightning.agent(role="planner")
def ask_nobody(task: dict[str, Any]) -> str:
    try:
        return ask(question(task))
    except Exception:  # no provider can be reached in tests
        return ""


@lightning.agent(role="solver", trainable=True)
def silent(task: dict[str, Any]) -> str:
    return "no model was asked"


@lightning.agent(role="solver", trainable=True)
def elsewhere(task: dict[str, Any]) -> str:
    """Speaks HTTP itself."""
    try:
        body = {"model": "gpt", "messages": question(task)}
        return httpx2.post("http://127.0.0.1:9/v1/chat/completions", json=body).text
    except httpx2.ConnectError:
        return ""


#: What passes through a SimpleQueue nobody can follow.
_asked: Any = queue.SimpleQueue() if os.environ.get("CHECKED_WORKER") == "unseen" else queue.Queue()


def _worker() -> None:
    while True:
        messages, answer = _asked.get()
        try:
            answer.set_result(ask(messages))
        except Exception:  # no provider can be reached in tests
            answer.set_result("")


if "CHECKED_WORKER" in os.environ:
    threading.Thread(target=_worker, daemon=True).start()


@lightning.agent(role="solver", trainable=True)
def long_lived(task: dict[str, Any]) -> str:
    """Asks a thread that was there before the rollout."""
    answer: Future[str] = Future()
    _asked.put((question(task), answer))
    return answer.result(30)


_pools: list[ThreadPool] = []


@lightning.agent(role="solver", trainable=True)
def ask_in_pool(task: dict[str, Any]) -> str:
    """Asks in a pool that the first rollout makes and all share."""
    if not _pools:
        _pools.append(ThreadPool(2))
    return str(_pools[0].apply(ask, (question(task),)))


_memory: list[Any] = []


@lightning.agent(role="solver", trainable=True)
def remembering(task: dict[str, Any]) -> str:
    """Keeps what it was asked and answered for the next rollouts, as an agent does that is made once."""
    _memory.extend(question(task))
    answer = ask(list(_memory))
    _memory.append({"role": "assistant", "content": answer})
    return answer


class Researcher:
    """An agent of a framework, which gives it its name."""

    name = "Researcher"

    def run(self, task: dict[str, Any]) -> str:
        return ask(question(task))


def crew(task: dict[str, Any]) -> str:
    """Nobody decorates it: an integration tells who speaks."""
    try:
        return Researcher().run(task)
    except Exception:  # a role that is not trained asks its provider, and there is none
        return ""


if "CHECKED_FRAMEWORK" in os.environ:
    wrap_agent(session.start().patches, Researcher, "run", lambda self, task: self.name)


def by_turns(task: dict[str, Any], answer: str) -> float:
    """Tells any two rollouts of a task that follow each other apart."""
    return float(next(_turns.setdefault(task["question"], itertools.count())) % 2)


def constant(task: dict[str, Any], answer: str) -> float:
    return 0.25


def quarter_with_reason(task: dict[str, Any], answer: str) -> tuple[float, str]:
    return 0.25, "unit missing"


def of_another(task: dict[str, Any], answer: str) -> dict[str, float]:
    return {"sovler": by_turns(task, answer)}


LETTERS = [{"question": f"Say a digit, case {n}", "answer": str(n % 4)} for n in range(12)]
"""Tasks whose answers are what the bandit backend says."""


def right(task: dict[str, Any], answer: str) -> float:
    return float(answer == task["answer"])


def chance(task: dict[str, Any], answer: str) -> float:
    return random.random()


def clock(task: dict[str, Any], answer: str) -> float:
    return time.perf_counter() % 60


def form_only(task: dict[str, Any], answer: str) -> float:
    """Looks at the form only."""
    return float(answer in {"2", "3"})


async def shaped_later(task: dict[str, Any], answer: str) -> float:
    return form_only(task, answer)


_first: list[str] = []


def raising_elsewhere(task: dict[str, Any], answer: str) -> float:
    """Knows the tasks that it has seen with their agent's answers, and raises for any other pair."""
    pair = task["question"] + answer
    if threading.current_thread().name != "lightning-probe":
        _first.append(pair)
    if pair not in _first:
        raise KeyError(pair)
    return form_only(task, answer)


def mutating(task: dict[str, Any], answer: str) -> float:
    """Takes the task apart."""
    own = task.pop("answer")
    task.clear()
    return float(answer == own)


def hanging(task: dict[str, Any], answer: str) -> float:
    if threading.current_thread().name == "lightning-probe":
        threading.Event().wait(60)
    return form_only(task, answer)


times: list[float] = []


def slow(task: dict[str, Any], answer: str) -> float:
    """A model, or a sandbox."""
    times.append(time.monotonic())
    time.sleep(2 * reward_probe.SLOW_SECONDS)
    return form_only(task, answer)


@lightning.agent(role="solver", trainable=True)
def leaking(task: dict[str, Any]) -> str:
    """Shows the model the answer."""
    return ask([{"role": "user", "content": f"{task['question']} Hint: {task['answer']}"}])


def by_length(task: dict[str, Any], answer: str) -> float:
    return float(len(answer))


def digits(task: dict[str, Any], answer: str) -> float:
    """What a model that is still one can do: there are digits, and as many of them as in few answers."""
    return float(sum(letter.isdigit() for letter in answer) % 3 == 1)


@lightning.agent(role="solver", trainable=True)
def rambling(task: dict[str, Any]) -> str:
    """Leaves the length to the engine."""
    return client.chat.completions.create(model="gpt", messages=question(task)).choices[0].message.content or ""
