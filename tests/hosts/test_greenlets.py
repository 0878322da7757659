"""gevent and eventlet: greenlets belong to the rollout that starts them, work in pools to the one that submits it.

Programs that either has patched can train, and go on while their hub is away.
"""

import pytest

PROGRAM = """
import gevent.monkey
gevent.monkey.patch_all()
import threading
from concurrent.futures import ThreadPoolExecutor
import gevent
from gevent.pool import Pool
from gevent.threadpool import ThreadPool
from tests.sdk.recorder import Recorder
import lightning_sdk as lightning
from lightning_sdk.stream import sink
from lightning_sdk.trace.scope import current_scope

lightning.init()
sink.connect(Recorder())
shared = []

def work(*_): return current_scope().role, current_scope().rollout and current_scope().rollout.id

def in_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(work()))
    thread.start()
    thread.join()
    return seen[0]

def in_executor():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()

@lightning.agent(role="solver")
def solve():
    gevent.sleep(0.01)
    if not shared:
        shared.extend([Pool(2), ThreadPool(2)])
    greenlets, threads = shared
    return {
        "itself": work(), "thread": in_thread(), "executor": in_executor(), "spawn": gevent.spawn(work).get(),
        "later": gevent.spawn_later(0.001, work).get(), "pool": greenlets.spawn(work).get(),
        "map": greenlets.map(work, [1])[0], "threads": threads.spawn(work).get(), "apply": threads.apply(work),
    }

def run(number):
    with lightning.rollout() as rollout:
        return rollout.id, solve()

for greenlet in [gevent.spawn(run, number) for number in range(2)]:
    rollout, seen = greenlet.get(timeout=20)
    assert set(seen.values()) == {("solver", rollout)}, (rollout, seen)
lightning.shutdown()
with lightning.rollout():
    assert gevent.spawn(work).get() == ("", None)
print("done")
"""


def test_greenlets_and_pools(in_new_process) -> None:
    """Two rollouts at once, in a program that gevent has patched, share pools; after `shutdown()` nothing is left."""
    assert in_new_process(PROGRAM).strip() == "done"


EVENTLET = """
import eventlet
eventlet.monkey_patch()
import threading
from concurrent.futures import ThreadPoolExecutor
from tests.sdk.recorder import Recorder
import lightning_sdk as lightning
from lightning_sdk.stream import sink
from lightning_sdk.trace.scope import current_scope

lightning.init()
sink.connect(Recorder())
pool = eventlet.GreenPool(3)

def work(*_): return current_scope().role, current_scope().rollout and current_scope().rollout.id

def in_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(work()))
    thread.start()
    thread.join()
    return seen[0]

def in_executor():
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()

def without_result(spawn):
    seen = []
    spawn(lambda: seen.append(work()))
    while not seen:
        eventlet.sleep(0.001)
    return seen[0]

@lightning.agent(role="solver")
def solve():
    eventlet.sleep(0.01)
    return {
        "itself": work(), "thread": in_thread(), "executor": in_executor(), "spawn": eventlet.spawn(work).wait(),
        "later": eventlet.spawn_after(0.001, work).wait(), "pool": pool.spawn(work).wait(),
        "map": next(iter(pool.imap(work, [1]))), "spawn_n": without_result(eventlet.spawn_n),
        "pool_n": without_result(pool.spawn_n),
    }

def run(number):
    with lightning.rollout() as rollout:
        return rollout.id, solve()

for greenlet in [eventlet.spawn(run, number) for number in range(2)]:
    rollout, seen = greenlet.wait()
    assert set(seen.values()) == {("solver", rollout)}, (rollout, seen)
lightning.shutdown()
with lightning.rollout():
    assert eventlet.spawn(work).wait() == ("", None)
print("done")
"""


def test_green_threads_and_pools(in_new_process) -> None:
    """The same in a program that eventlet has patched, where `join` returns when the thread has."""
    assert in_new_process(EVENTLET).strip() == "done"


AWAY = """
import eventlet
eventlet.monkey_patch()
import tempfile
import time
from pathlib import Path
import lightning_sdk as lightning
from lightning_sdk.hub.process import HubProcess

hub = HubProcess(Path(tempfile.mkdtemp()))
turns = []

def beat():
    while True:
        turns.append(1)
        eventlet.sleep(0.01)

eventlet.spawn(beat)
lightning.init(hub.address, hub.key)
with lightning.rollout():
    eventlet.sleep(0.01)
hub.stop()
before = len(turns)
with lightning.rollout():
    eventlet.sleep(1)
assert len(turns) - before > 20, "the program stood still while its hub was away"
lightning.shutdown(0.5)
print("done")
"""


def test_a_hub_that_is_away_stops_no_greenlet(in_new_process) -> None:
    """A program that eventlet has patched goes on, and ends."""
    assert in_new_process(AWAY).strip() == "done"


TRAINING = """
PATCH
import os
from pathlib import Path
from openai import OpenAI
from tests.hub import bandit_backend
import lightning_sdk as lightning

site = Path("site").absolute()
bandit_backend.install(site)
os.environ["PYTHONPATH"] = os.pathsep.join([str(site), os.environ["PYTHONPATH"]])
client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)
turns = []

def beat():
    while True:
        turns.append(1)
        GREEN.sleep(0.001)

@lightning.agent(role="solver", trainable=True)
def solve(task):
    messages = [{"role": "user", "content": task["question"]}]
    return client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content

GREEN.spawn(beat)
report = lightning.train(
    solve, [{"question": f"which arm? {number}"} for number in range(6)], lambda task, answer: float(answer == "3"),
    backend="bandit", steps=2, quiet=True,
    **{"rollouts.tasks_per_step": 2, "rollouts.group_size": 4, "evaluation.tasks": 2, "failure.flat_steps": 0},
)
assert report.values["rollouts_by_status"]["ok"] == 16, report.values
assert len(turns) > 20, "no other greenlet ran while this one waited for the hub"
print("done")
"""


PATCHES = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all(); import gevent",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("library", PATCHES)
def test_a_training_in_a_patched_program(in_new_process, library: str) -> None:
    """Its rollouts run in greenlets, and other greenlets go on while it waits for the hub."""
    program = TRAINING.replace("PATCH", PATCHES[library]).replace("GREEN", library)
    assert in_new_process(program).strip().splitlines()[-1] == "done"
