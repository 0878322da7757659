"""Our SDK inside and beside real other tools: web servers, queues, notebooks, and what watches programs.

    make test-hosts                                             # all, in .venvs/hosts
    .venvs/hosts/bin/python -m pytest tests/hosts/test_sentry.py

What a tool changes in its process for good (a monkey patch, a global provider) is done in a process that the test
starts with `in_new_process`. There is no torch here: hubs run with the backend of `tests/hub/bandit_backend.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lightning_sdk
from lightning_sdk import markers
from lightning_sdk.stream import sink
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def isolate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test finds another's hub, roles or session, or the user's own; nothing is sent to the tools' makers."""
    monkeypatch.setenv("LIGHTNING_HOME", str(tmp_path / "home"))
    for name in ("LIGHTNING_HUB", "LIGHTNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (
        ("LOGFIRE_SEND_TO_LOGFIRE", "false"),
        ("TRACELOOP_TELEMETRY", "false"),
        ("DD_TRACE_ENABLED", "true"),
        ("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "false"),
        ("DD_REMOTE_CONFIGURATION_ENABLED", "false"),
    ):
        monkeypatch.setenv(name, value)
    yield
    lightning_sdk.shutdown(0.5)
    sink.connect(None)
    sink._said.clear()
    markers.agent.declared.clear()
    markers.reward.marked.clear()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Everything that this process would stream, in a list."""
    recorder = Recorder()
    sink.connect(recorder)
    yield recorder
    sink.connect(None)


@pytest.fixture
def in_new_process(tmp_path: Path) -> Callable[..., str]:
    """Run a program in a fresh process of this environment that sees what tests share; what it printed."""

    def run(code: str, *arguments: str, seconds: float = 60.0) -> str:
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(code))
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, str(program), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
