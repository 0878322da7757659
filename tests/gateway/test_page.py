"""The page about the gateway: what it shows is run as it stands there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import lightning_sdk as lightning
from lightning_gateway.gateway import Gateway
from lightning_sdk.stream.wire import Event
from tests.docs.pages import block
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder

PAGE = "docs/gateway.md"


def test_the_shell_commands(gateway: Gateway, recorder: Recorder) -> None:
    """A rollout with curl: task, a streamed call, a reward, the end."""
    environment = {"PATH": os.environ["PATH"], "GATEWAY": gateway.url, "TOKEN": gateway.token}
    script = "set -eu\n" + block(PAGE, "sh", "/rollouts")
    done = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert [event[0] for event in recorder.events] == [Event.BEGIN, Event.REPLY, Event.REWARD, Event.END]
    assert recorder.calls[0].meta.role == "solver" and '"calls": 1' in done.stdout


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine: the language of the example")
def test_the_program_in_another_language(
    provider: Provider, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python function starts the Node program; its two calls lie in the rollout under their roles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
    Path("agent.mjs").write_text(block(PAGE, "js", "fetch"))
    names: dict[str, object] = {}
    exec(compile(block(PAGE, "python", "gateway_environment"), PAGE, "exec"), names)
    solve = names["solve"]
    assert callable(solve)
    with lightning.rollout({"question": "abc"}):
        answer = solve({"question": "abc"})
    assert answer == "abc :netrohS\n"  # the provider turns "abc" round, and then "Shorten: cba"
    assert [call.meta.role for call in recorder.calls] == ["solver", "editor"]
    assert recorder.events[0][0] == Event.BEGIN and recorder.events[-1][0] == Event.END
