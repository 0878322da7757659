"""gevent and eventlet: greenlets belong to the rollout that starts them, work in pools to the one that submits it.

Programs that either has patched can train, and go on while their hub is away.
"""

import pytest

PROGRAM = """
PATCH
import threading
from concurrent.futures import ThreadPoolExecutor
from tests.sdk.recorder import Recorder
import lightning_sdk as lightning
from lightning_sdk.stream import sink
from lightning_sdk.trace.scope import current_scope

lightning.init()
sink.connect(Recorder())

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

OWN

@lightning.agent(role="solver")
def solve():
    sleep(0.01)
    return {"itself": work(), "thread": in_thread(), "executor": in_executor(), **own_ways()}

def run(number):
    with lightning.rollout() as rollout:
        return rollout.id, solve()

for rollout, seen in results([spawn(run, number) for number in range(2)]):
    assert set(seen.values()) == {("solver", rollout)}, (rollout, seen)
lightning.shutdown()
with lightning.rollout():
    assert results([spawn(work)]) == [("", None)]
print("done")
"""

PATCHES = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all(); import gevent",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
#: What each library calls its own ways to start work.
OWN = {
    "gevent": """
from gevent import sleep, spawn
from gevent.pool import Pool
from gevent.threadpool import ThreadPool

shared = []

def results(greenlets): return [greenlet.get(timeout=60) for greenlet in greenlets]

def own_ways():
    if not shared:
        shared.extend([Pool(2), ThreadPool(2)])
    greenlets, threads = shared
    return {
        "spawn": spawn(work).get(), "later": gevent.spawn_later(0.001, work).get(),
        "pool": greenlets.spawn(work).get(), "map": greenlets.map(work, [1])[0],
        "threads": threads.spawn(work).get(), "apply": threads.apply(work),
    }
""",
    "eventlet": """
from eventlet import sleep, spawn

pool = eventlet.GreenPool(3)

def results(greenlets): return [greenlet.wait() for greenlet in greenlets]

def without_result(spawn):
    seen = []
    spawn(lambda: seen.append(work()))
    while not seen:
        sleep(0.001)
    return seen[0]

def own_ways():
    return {
        "spawn": spawn(work).wait(), "later": eventlet.spawn_after(0.001, work).wait(),
        "pool": pool.spawn(work).wait(), "map": next(iter(pool.imap(work, [1]))),
        "spawn_n": without_result(eventlet.spawn_n), "pool_n": without_result(pool.spawn_n),
    }
""",
}


@pytest.mark.parametrize("library", PATCHES)
def test_greenlets_and_pools(in_new_process, library: str) -> None:
    """Two rollouts at once, in a program that the library has patched, share pools; `join` of a thread returns when it
    has ended; after `shutdown()` nothing is left."""
    program = PROGRAM.replace("PATCH", PATCHES[library]).replace("OWN", OWN[library])
    assert in_new_process(program).strip() == "done"


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
    while len(turns) < before + 20:  # it would stand still where its hub is waited for
        eventlet.sleep(0.01)
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


@pytest.mark.parametrize("library", PATCHES)
def test_a_training_in_a_patched_program(in_new_process, library: str) -> None:
    """Its rollouts run in greenlets, and other greenlets go on while it waits for the hub."""
    program = TRAINING.replace("PATCH", PATCHES[library]).replace("GREEN", library)
    assert in_new_process(program).strip().splitlines()[-1] == "done"
