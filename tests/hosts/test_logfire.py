"""Logfire beside us: its own carrying of context into pools stays on, whichever was set up first."""

import pytest

BOTH = """
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import multiprocessing
from tests.sdk.recorder import Recorder
import logfire, lightning_sdk as lightning
from opentelemetry import trace
from lightning_sdk.stream import sink
from lightning_sdk.trace.scope import current_scope

sink.connect(Recorder())
def begin_logfire(): logfire.configure(send_to_logfire=False, console=False)
for begin in {"ours": (lightning.init, begin_logfire), "theirs": (begin_logfire, lightning.init)}[sys.argv[1]]:
    begin()

def work(): return current_scope().role, trace.get_current_span().get_span_context().trace_id

@lightning.agent(role="solver")
def solve():
    with logfire.span("outer"):
        here = trace.get_current_span().get_span_context().trace_id
        for pool in (ThreadPoolExecutor(1), ProcessPoolExecutor(1, multiprocessing.get_context("fork"))):
            with pool: role, there = pool.submit(work).result(20)
            print(type(pool).__name__, role, here == there)

with lightning.rollout(): solve()
lightning.shutdown()
with logfire.span("afterwards"), ThreadPoolExecutor(1) as pool:
    print(trace.get_current_span().get_span_context().trace_id == pool.submit(work).result(20)[1])
"""


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_pools_run_in_both_contexts(in_new_process, first: str) -> None:
    """Work in pools of threads and of processes has our role and lies in Logfire's trace."""
    said = in_new_process(BOTH, first).splitlines()
    pools = ["ThreadPoolExecutor", "ProcessPoolExecutor"]
    assert said == [*(f"{pool} solver True" for pool in pools), "True"]
