"""The examples of frameworks train as they stand: their own main block, hub and engine in the backend's environment."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk import markers
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import Call
from tests.frameworks.captured import HubLog
from tests.frameworks.engine_process import BACKEND_PYTHON, ROOT
from tests.frameworks.wire_proxy import Wire

#: Enough for a reward that differs within a group, and no more.
SMALL: dict[str, Any] = {
    "steps": 2,
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
    folder = _train_two_steps(tmp_path, monkeypatch, name)
    assert folder == tmp_path / name
    calls = _calls_of_two_steps(folder)
    assert {call.meta.role for call in calls} == {"solver"} and all(call.meta.trainable for call in calls)
    assert any(b"tool_calls" in choice.message for call in calls for choice in call.choices)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "needs", "trained", "frozen", "options"),
    [
        ("calc_x", "mcp.server.fastmcp", {"calc"}, set(), []),
        ("calc_x", "autogen_ext.models.openai", {"calc"}, set(), ["--plain"]),
        ("text_to_sql", "langgraph", {"writer", "checker", "rewriter"}, set(), []),
        ("text_to_sql", "langgraph", {"writer", "rewriter"}, {"checker"}, ["--trained", "writer,rewriter"]),
        ("crewai_team", "crewai", {"solver"}, {"editor"}, []),
        ("handoffs", "agents.run", {"desk"}, set(), []),
    ],
)
def test_a_program_trains_its_roles_only(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wire: Wire,
    name: str,
    needs: str,
    trained: set[str],
    frozen: set[str],
    options: list[str],
) -> None:
    """Two steps run; calls of trained roles go to the engine, those of the others to the provider of the program."""
    pytest.importorskip(needs)
    monkeypatch.setenv("OPENAI_BASE_URL", wire.url)
    folder = _train_two_steps(tmp_path, monkeypatch, name, *options, is_graded_by_length=True)
    calls = _calls_of_two_steps(folder)
    assert trained <= {call.meta.role for call in calls if call.meta.trainable}
    assert frozen == {call.meta.role for call in calls if not call.meta.trainable}
    assert bool(wire.provider) == bool(frozen)


def has_odd_length(task: dict[str, Any], answer: object) -> float:
    """A reward that differs within a group, also where the model solves no task."""
    return float(len(str(answer)) % 2)


def _train_two_steps(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, *options: str, is_graded_by_length: bool = False
) -> Path:
    """Run an example's program, with small settings; the folder of its run."""
    train, reports = lightning.train, []

    def small(*args: Any, **settings: Any) -> Any:
        if is_graded_by_length:
            settings["reward"] = [*(each.function for each in markers.reward.marked), has_odd_length]
        reports.append(train(*args, **{**settings, **SMALL, "runs": folder}))
        return reports[0]

    monkeypatch.setattr(lightning, "train", small)
    monkeypatch.setattr(sys, "argv", ["agent.py", "--backend-python", BACKEND_PYTHON, *options])
    monkeypatch.syspath_prepend(str(ROOT / "examples" / name))
    runpy.run_path(str(ROOT / "examples" / name / "agent.py"), run_name="__main__")
    assert reports[0].steps == 2
    return Path(reports[0].folder)


def _calls_of_two_steps(run: Path) -> list[Call]:
    """The calls of a run of two steps, after a look at what every such run has to show."""
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(step["step"], step["version"]) for step in steps] == [(1, 1), (2, 2)]
    # OpenAI Agents refuses a call of a tool that is not there, which a model as small as this makes now and then.
    assert all(step["rollouts_ok"] >= 12 and step["loss"] == step["loss"] for step in steps)
    calls = list(_calls(run))
    assert not [call.problem for call in calls if call.meta.trainable and call.problem]
    versions = {version for call in calls for choice in call.choices for version, _ in choice.versions}
    assert versions == {0, 1, 2}
    return calls


def _calls(run: Path) -> Any:
    log = HubLog(run / "spans")
    log.events(b"")
    for events in log._events.values():
        yield from (Call.unpack(event[2]) for event in events if event[0] == Event.CALL)
