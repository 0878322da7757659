"""The examples of frameworks train as they stand: their own main block, hub and engine in the backend's environment."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import Call
from tests.frameworks.captured import HubLog
from tests.frameworks.engine_process import BACKEND_PYTHON, ROOT

#: Enough for a reward that differs within a group, and no more.
SMALL: dict[str, Any] = {
    "rollouts.tasks_per_step": 4,
    "rollouts.group_size": 4,
    "rollouts.concurrency": 16,
    "evaluation.tasks": 2,
    "quiet": True,
}


@pytest.mark.timeout(300)  # a whole training, where many tests may run beside it
@pytest.mark.parametrize(
    ("name", "needs"),
    [("langgraph", "langgraph"), ("autogen", "autogen_ext"), ("crewai", "crewai"), ("openai_agents", "agents.run")],
)
def test_an_example_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, needs: str) -> None:
    """Two steps run on calls of the role that the framework names, each makes a new version, and calls use it."""
    pytest.importorskip(needs)
    train, reports = lightning.train, []

    def small(*args: Any, **settings: Any) -> Any:
        reports.append(train(*args, **{**settings, **SMALL, "runs": tmp_path}))
        return reports[0]

    monkeypatch.setattr(lightning, "train", small)
    monkeypatch.setattr(sys, "argv", ["agent.py", "--steps", "2", "--backend-python", BACKEND_PYTHON])
    runpy.run_path(str(ROOT / "examples" / name / "agent.py"), run_name="__main__")
    assert reports[0].steps == 2 and reports[0].folder == tmp_path / name
    steps = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    assert [(step["step"], step["version"]) for step in steps] == [(1, 1), (2, 2)]
    # OpenAI Agents refuses a call of a tool that is not there, which a model as small as this makes now and then.
    assert all(step["rollouts_ok"] >= 12 and step["loss"] == step["loss"] for step in steps)

    calls = list(_calls(tmp_path / name))
    assert {call.meta.role for call in calls} == {"solver"} and all(call.meta.trainable for call in calls)
    assert not [call.problem for call in calls if call.problem]
    versions = {version for call in calls for choice in call.choices for version, _ in choice.versions}
    assert versions == {0, 1, 2}
    assert any(b"tool_calls" in choice.message for call in calls for choice in call.choices)


def _calls(run: Path) -> Any:
    log = HubLog(run / "spans")
    log.events(b"")
    for events in log._events.values():
        yield from (Call.unpack(event[2]) for event in events if event[0] == Event.CALL)
