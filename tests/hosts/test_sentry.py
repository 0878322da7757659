"""Sentry beside us: threads and pools run in both tools' contexts, whichever was set up first."""

import pytest

BOTH = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from tests.sdk.recorder import Recorder
import lightning_sdk as lightning, sentry_sdk
from lightning_sdk.stream import sink
from lightning_sdk.trace.scope import current_scope

sink.connect(Recorder())
events = []
def begin_sentry():
    sentry_sdk.init(dsn="http://key@localhost/1", transport=events.append, auto_enabling_integrations=False)
for begin in {"ours": (lightning.init, begin_sentry), "theirs": (begin_sentry, lightning.init)}[sys.argv[1]]:
    begin()

seen = []
def work(): seen.append((current_scope().role, sentry_sdk.get_isolation_scope()._tags.get("who")))

class Worker(threading.Thread):
    def run(self): work()

@lightning.agent(role="solver")
def solve():
    sentry_sdk.set_tag("who", "user 7")
    for thread in (threading.Thread(target=work), Worker(), threading.Timer(0, work)):
        thread.start(); thread.join(10)
        assert not thread.is_alive()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(10)

with lightning.rollout(): solve()
lightning.shutdown()
solve()
print(seen)
"""


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_threads_run_in_both_contexts(in_new_process, first: str) -> None:
    """Threads, subclasses, timers and pools keep the role and Sentry's tags; after `shutdown()` Sentry's alone."""
    solver, nobody = ("solver", "user 7"), ("", "user 7")
    assert in_new_process(BOTH, first).strip() == str([solver] * 4 + [nobody] * 4)
