"""gevent: greenlets belong to the rollout that starts them, work in pools to the one that submits it; all can train."""

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


TRAINING = """
import gevent.monkey
gevent.monkey.patch_all()
import os
from pathlib import Path
import gevent
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
        gevent.sleep(0.001)

@lightning.agent(role="solver", trainable=True)
def solve(task):
    messages = [{"role": "user", "content": task["question"]}]
    return client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content

gevent.spawn(beat)
report = lightning.train(
    solve, [{"question": f"which arm? {number}"} for number in range(6)], lambda task, answer: float(answer == "3"),
    backend="bandit", steps=2, quiet=True,
    **{"rollouts.tasks_per_step": 2, "rollouts.group_size": 4, "evaluation.tasks": 2, "failure.flat_steps": 0},
)
assert report.values["rollouts_by_status"]["ok"] == 16, report.values
assert len(turns) > 20, "no other greenlet ran while this one waited for the hub"
print("done")
"""


def test_a_training_in_a_patched_program(in_new_process) -> None:
    """Its rollouts run in greenlets, and other greenlets go on while it waits for the hub."""
    assert in_new_process(TRAINING).strip().splitlines()[-1] == "done"
