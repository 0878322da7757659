"""However a process ends short of a kill, what it recorded is with the hub: children, pools, os._exit, open replies."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

import lightning_sdk as lightning
from lightning_sdk.hub.client import HubClient
from lightning_sdk.hub.discovery import state_folder
from lightning_sdk.hub.process import HubProcess
from lightning_sdk.stream.spool import Spool
from lightning_sdk.stream.undelivered import Leftovers
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import Call
from tests.hub.hubs import read_log
from tests.sdk.provider import Provider

WORK = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
import lightning_sdk as lightning

def work(number):
    with lightning.rollout({"number": number}):
        return number

def give(queue):
    queue.put(work(1))
    time.sleep(60)

if __name__ == "__main__":
    forking = multiprocessing.get_context("fork")
    lightning.init()
    work(0)
"""
#: How children end -> the program, and how many rollouts it records.
WAYS = {
    "process": ("process = forking.Process(target=work, args=(1,)); process.start(); process.join()", 2),
    "pool": ("with forking.Pool(2) as pool: pool.map(work, range(10), chunksize=1)", 11),
    "executor": ("with ProcessPoolExecutor(2, mp_context=forking) as pool: list(pool.map(work, range(10)))", 11),
    "killed after its result": (
        "queue = forking.Queue(); process = forking.Process(target=give, args=(queue,)); process.start(); "
        "queue.get(); process.kill(); process.join()",
        2,
    ),
    "os._exit": ("child = os.fork(); child or (work(1), os._exit(0)); os.waitpid(child, 0)", 2),
    "sys.exit": ("child = os.fork(); child or (work(1), sys.exit(0)); os.waitpid(child, 0)", 2),
    "grandchild": ("child = os.fork(); child or (os.fork() or work(1), work(2), os._exit(0)); os.wait()", 4),
    "main process": ("os._exit(0)", 1),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubProcess]:
    (tmp_path / "run").mkdir()
    hub = HubProcess(tmp_path / "run")
    monkeypatch.setenv("LIGHTNING_HUB", hub.address)
    monkeypatch.setenv("LIGHTNING_KEY", hub.key)
    yield hub
    hub.stop()


def waiting(address: str) -> int:
    """Events that wait on disk for the hub at `address`."""
    events = 0
    for path in Leftovers(state_folder() / "spool", address).folder.glob("*.spool"):
        with path.open("rb", buffering=0) as file:
            events += Spool.open(file).events
    return events


def run(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, timeout=60)


def test_what_a_child_recorded_leaves_before_it_does(hub: HubProcess, subtests: pytest.Subtests) -> None:
    """Children of every kind, with and without `atexit`, lose nothing."""
    expected = 0
    for name, (program, rollouts) in WAYS.items():
        with subtests.test(name):
            run(f"{WORK}    {program}\n")
            expected += rollouts
            with HubClient(hub.address, hub.key) as client:
                assert client.ask("status")["rollouts"] == {"ok": expected}


def test_work_of_a_rollout_is_with_the_hub_before_its_result_is_there(hub: HubProcess, tmp_path: Path) -> None:
    """A pool kills its processes as soon as it has their results."""
    run(f"""{WORK}
    with lightning.rollout({{}}), forking.Pool(1) as pool:
        pool.apply(lightning.emit_reward, (0.5,))
""")
    hub.stop()
    assert [event[2] for event in read_log(tmp_path / "run") if event[0] == Event.REWARD] == [0.5]


def test_what_a_child_recorded_while_the_hub_was_away_is_not_lost(hub: HubProcess, tmp_path: Path) -> None:
    """A child that ends then leaves it behind at once, and its parent delivers it when the hub is back."""
    hub.stop()
    run(f"""{WORK}
    for number in range(3):
        process = forking.Process(target=work, args=(number,)); process.start(); process.join()
    from lightning_sdk.hub.process import HubProcess
    from lightning_sdk.hub.keys import HubKeys
    from pathlib import Path
    back = HubProcess(Path({str(tmp_path / "run")!r}), bind={hub.address!r}, keys=HubKeys(**{asdict(hub.keys)!r}))
    while any(Path(os.environ["LIGHTNING_HOME"]).rglob("*.spool")): time.sleep(0.01)
    lightning.shutdown()
    back.stop()
""")
    assert sum(event[0] == Event.END for event in read_log(tmp_path / "run")) == 4


def test_a_process_that_ends_at_once_leaves_what_its_hub_did_not_take(hub: HubProcess, tmp_path: Path) -> None:
    """Its first event is younger than the silence by which a hub is known to be away. What started it does not wait
    long before it kills it, as notebook servers do."""
    hub.stop()
    program = f"{WORK}    print('ending', flush=True)\n"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ending\n"
    try:
        process.wait(4)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    assert waiting(hub.address) == 2  # a rollout's BEGIN and END


def test_an_interrupted_shutdown_leaves_what_its_hub_did_not_take(hub: HubProcess) -> None:
    """Ctrl-C while it waits for a hub that is away."""
    hub.stop()
    lightning.init()
    with lightning.rollout():
        pass
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            lightning.shutdown(30)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert waiting(hub.address) == 2


STREAM = """
import os, sys, threading, time
import openai
import lightning_sdk as lightning

lightning.init()
client = openai.OpenAI(base_url=sys.argv[1], api_key="k")
ask = {"model": "m", "messages": [{"role": "user", "content": "What is 2+2?"}]}
stream = iter(client.chat.completions.create(**ask, stream=True))
next(stream)
"""
ENDS = {
    "returns": "",
    "exits": "sys.exit(0)",
    "os._exit": "os._exit(0)",
    "forks": "child = os.fork(); child or sys.exit(0); os.waitpid(child, 0)",
    "forks and collects": "child = os.fork(); child or (globals().pop('stream'), os._exit(0)); os.waitpid(child, 0)",
}


def test_a_reply_that_is_open_at_exit_is_recorded_once(hub: HubProcess, provider: Provider, tmp_path: Path) -> None:
    """What came of a streamed reply is kept as a cancelled call, by the process that began it."""
    for end in ENDS.values():
        run(STREAM + end, provider.url)
    hub.stop()
    calls = [Call.unpack(event[2]) for event in read_log(tmp_path / "run") if event[0] == Event.CALL]
    assert [call.meta.status for call in calls] == ["cancelled"] * len(ENDS)
    assert [call.meta.error for call in calls] == ["closed before its end"] * len(ENDS)
    assert all(call.choices for call in calls)


def test_a_call_without_a_reply_at_exit_is_recorded(hub: HubProcess, tmp_path: Path) -> None:
    """A thread waits for a server that never answers while the program ends: the call is there, as cancelled."""
    run("""
import socket, threading, time
import openai
import lightning_sdk as lightning

lightning.init()
server = socket.create_server(("127.0.0.1", 0))
client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.getsockname()[1]}/v1", api_key="k")
ask = {"model": "m", "messages": [{"role": "user", "content": "What is 2+2?"}]}
threading.Thread(target=client.chat.completions.create, kwargs=ask, daemon=True).start()
connection, _ = server.accept()
connection.recv(1000)
""")
    hub.stop()
    (call,) = [Call.unpack(event[2]) for event in read_log(tmp_path / "run") if event[0] == Event.CALL]
    assert call.meta.status == "cancelled" and "ended before the reply" in call.meta.error
