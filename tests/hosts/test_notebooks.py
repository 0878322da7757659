"""Trainings and reports in a notebook: a real kernel, with IPython's own output."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub import bandit_backend

AGENT = """
from openai import OpenAI
import lightning_sdk as lightning

client = OpenAI(api_key="not needed")

@lightning.agent(role="solver", trainable=True)
def solve(task):
    messages = [{"role": "user", "content": task["question"]}]
    return client.chat.completions.create(model="spark", messages=messages).choices[0].message.content or ""

def reward(task, answer):
    return int(answer) / 3, "<b>why</b>"

SMALL = {"rollouts.tasks_per_step": 2, "rollouts.group_size": 2, "evaluation.tasks": 2}
tasks = [{"question": f"question {number}"} for number in range(8)]
"""


class Kernel:
    """A notebook's kernel, and what its cells display."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, cell: str) -> list[dict[str, Any]]:
        """The messages of one cell, which has to succeed."""
        messages: list[dict[str, Any]] = []
        reply = self._client.execute_interactive(cell, timeout=240, output_hook=messages.append)
        assert reply["content"]["status"] == "ok", reply["content"]
        return messages


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    from jupyter_client.manager import start_new_kernel  # noqa: PLC0415 - of this environment alone

    bandit_backend.install(tmp_path / "site")
    paths = [str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.py").write_text(AGENT)
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


@pytest.mark.timeout(300)
def test_a_training_is_one_output_that_changes(kernel: Kernel) -> None:
    """A figure that grows and the last words, under one display id; a report and a run are figures too."""
    kernel.run("from agent import *; lightning.init()")
    messages = kernel.run(
        "report = lightning.train(solve, tasks, reward, backend='bandit', steps=3, name='solve', dashboard=False, "
        "show=1, **SMALL)"
    )
    shown = [each["content"] for each in messages if each["msg_type"] == "display_data"]
    updates = [each["content"] for each in messages if each["msg_type"] == "update_display_data"]
    assert len(shown) == 1 and updates
    assert {each["transient"]["display_id"] for each in updates} == {shown[0]["transient"]["display_id"]}
    last = updates[-1]["data"]["text/html"]
    assert "<svg" in last and "<polyline" in last and "held-out score" in last and "3 steps in" in last
    assert not [each for each in messages if each["msg_type"] == "stream" and "step 1" in each["content"]["text"]]
    every = "".join(each["data"]["text/html"] for each in updates)
    assert "&lt;b&gt;why&lt;/b&gt;" in every and "<b>" not in every
    for cell in ("report", "lightning.show('solve')"):
        [result] = [each["content"] for each in kernel.run(cell) if each["msg_type"] == "execute_result"]
        assert "<svg" in result["data"]["text/html"] and "text/plain" in result["data"]


def test_where_there_is_no_notebook_progress_is_text(kernel: Kernel) -> None:
    """IPython in a terminal is one of these places; and a kernel in which somebody asks for a stream."""
    messages = kernel.run(
        "import io, sys\nfrom lightning_sdk.commands.progress import Progress\n"
        "from lightning_sdk.hub.events import StatusEvent\nstream = io.StringIO()\n"
        "Progress(stream).show(StatusEvent('loading'))\nprint(stream.getvalue())"
    )
    assert "".join(each["content"]["text"] for each in messages if each["msg_type"] == "stream").strip() == "loading"
    assert not [each for each in messages if each["msg_type"] == "display_data"]
