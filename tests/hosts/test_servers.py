"""Web servers, a queue and a notebook that record, with a hub that is there and one that is away."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_sdk.hub.client import HubClient
from lightning_sdk.hub.process import HubProcess

APP = """
import lightning_sdk as lightning

def wsgi(environ, start_response):
    lightning.init()
    with lightning.rollout({"path": environ["PATH_INFO"]}):
        pass
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        lightning.init()
        async with lightning.rollout({"path": scope["path"]}):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""
WORKERS = {"sync": "wsgi", "gthread": "wsgi", "gevent": "wsgi", "uvicorn_worker.UvicornWorker": "asgi"}
REQUESTS = 20


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubProcess]:
    (tmp_path / "run").mkdir()
    hub = HubProcess(tmp_path / "run")
    monkeypatch.setenv("LIGHTNING_HUB", hub.address)
    monkeypatch.setenv("LIGHTNING_KEY", hub.key)
    yield hub
    hub.stop()


def rollouts(hub: HubProcess) -> dict[str, int]:
    with HubClient(hub.address, hub.key) as client:
        found: dict[str, int] = client.ask("status")["rollouts"]
    return found


def serve(folder: Path, worker: str, *options: str) -> None:
    """Ask a gunicorn with two workers of this kind, and stop it as an operator does. Every request is answered."""
    (folder / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            f"app:{WORKERS[worker]}",
            "-k",
            worker,
            "-w",
            "2",
            *options,
            "-b",
            f"127.0.0.1:{port}",
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )
    try:
        deadline = time.monotonic() + 60
        while not (asked := _get(port, "/up")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert asked == b"ok"
        assert [_get(port, f"/{number}") for number in range(REQUESTS)] == [b"ok"] * REQUESTS
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def _get(port: int, path: str) -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            body: bytes = answer.read()
    except OSError:
        return b""
    return body


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_gunicorn_records_every_request(hub: HubProcess, tmp_path: Path, worker: str, options: tuple[str, ...]) -> None:
    """Whatever the kind of worker, all that was recorded is with the hub once the server has stopped."""
    serve(tmp_path, worker, *options)
    assert rollouts(hub) == {"ok": REQUESTS + 1}


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_gunicorn_answers_while_the_hub_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: str) -> None:
    """Nobody listens at the hub's address: requests are answered, and what was recorded waits on disk."""
    monkeypatch.setenv("LIGHTNING_HUB", "tcp://127.0.0.1:9")
    serve(tmp_path, worker)
    assert list((tmp_path / "home").rglob("*.spool"))


def test_celery_records_every_task(hub: HubProcess, tmp_path: Path) -> None:
    """Celery's prefork workers, which end with `os._exit`, lose nothing."""
    (tmp_path / "jobs.py").write_text("""
import celery
import lightning_sdk as lightning

app = celery.Celery("jobs", broker="filesystem://", broker_transport_options={
    "data_folder_in": "queue", "data_folder_out": "queue", "processed_folder": "done", "control_folder": "control"})
lightning.init()

@app.task
def work(number):
    with lightning.rollout({"number": number}):
        return number
""")
    for name in ("queue", "done", "control"):
        (tmp_path / name).mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ask = f"import jobs; [jobs.work.delay(number) for number in range({REQUESTS})]"
    subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, env=environment, check=True, timeout=60)
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "jobs",
            "worker",
            "-P",
            "prefork",
            "-c",
            "2",
            "-l",
            "warning",
            "--without-gossip",
            "--without-mingle",
            "--max-tasks-per-child",
            "7",
        ],
        cwd=tmp_path,
        env=environment,
    )
    try:
        deadline = time.monotonic() + 60
        while rollouts(hub).get("ok", 0) < REQUESTS and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    assert rollouts(hub) == {"ok": REQUESTS}


def run_cells(*cells: str) -> None:
    """In a real kernel, which is then shut down."""
    from jupyter_client.manager import start_new_kernel  # noqa: PLC0415 - of this environment alone

    kernel, client = start_new_kernel(kernel_name="python3")
    try:
        for cell in ("import lightning_sdk as lightning; lightning.init()", *cells):
            assert client.execute_interactive(cell, timeout=30)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        kernel.shutdown_kernel()


def test_a_notebook_records_every_cell(hub: HubProcess) -> None:
    """Cells of a real kernel are recorded, and a kernel that is shut down loses nothing."""
    run_cells(*(["with lightning.rollout({}): pass"] * 5))
    assert rollouts(hub) == {"ok": 5}


def test_a_notebook_that_is_shut_down_after_its_first_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the hub's address: what was recorded is on disk before a slow kernel is killed."""
    monkeypatch.setenv("LIGHTNING_HUB", "tcp://127.0.0.1:9")
    run_cells("with lightning.rollout({}): pass")
    assert list((tmp_path / "home").rglob("*.spool"))
