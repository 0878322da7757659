"""`lightning-sdk prompts discover` lists the texts of an agent's roles, from real rollouts through a real hub.

The provider is the stand-in of the seam's tests.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_sdk.commands.prompts import discover
from lightning_sdk.errors import SettingError
from lightning_sdk.rollouts import reference
from tests.sdk.provider import Provider

AGENT = Path(__file__).with_name("team_agent.py")
TASKS = [{"words": words} for words in ("noon", "red and green", "a loop", "stressed drawers")]
WRITE = "You turn words around, letter by letter.\nWords: {hole_1}\nAnswer with nothing else."


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with Provider() as provider:
        monkeypatch.setenv("TEAM_URL", provider.url)
        yield provider


def test_texts_templates_and_marks_of_each_role(provider: Provider) -> None:
    """What varies by task is a hole, a marked text is found in its frame, and what was not seen is named."""
    found = discover(reference.load(f"{AGENT}:solve"), TASKS, provider=True, quiet=True)
    assert len(provider.requests) == 12  # three calls in each of four rollouts, and no reward function
    roles = {each["role"]: each for each in found.values["roles"]}
    assert list(roles) == ["writer", "checker", "echo"]
    (write,), (check,) = roles["writer"]["texts"], roles["checker"]["texts"]
    assert (write["kind"], write["text"], write["holes"]) == ("system", WRITE, ["{hole_1}"])
    assert (write["requests"], write["tasks"], write["marked"], write["can_be_found"]) == (4, 4, {}, True)
    assert (check["holes"], check["marked"]) == ([], {"checker.goal": "part"})
    assert found.values["unseen_roles"] == {
        "echo": "its requests carry no instruction",
        "idle": "it made no call in these rollouts",
    }
    assert found.values["unseen_marks"] == ["checker.unused"] and not found.complete
    said = str(found)
    assert "role 'writer': 4 requests of 4 tasks\n\n  1. system text, 82 characters; varies in {hole_1}\n" in said
    assert "     | Words: {hole_1}\n" in said and "holds 'checker.goal'" in said
    assert "No text of role 'idle' was seen: it made no call in these rollouts." in said
    assert "The marked text 'checker.unused' stood in no request" in said


def test_the_command(provider: Provider, tmp_path: Path) -> None:
    """JSON on standard output; the exit code says that something was not seen."""
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps(task) + "\n" for task in TASKS[:2]))
    line = ["prompts", "discover", f"{AGENT}:plain", "--tasks", str(tasks), "--provider", "--json"]
    command = [sys.executable, "-m", "lightning_sdk.cli", *line]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    values = json.loads(done.stdout)
    assert [each["text"] for each in values["roles"][0]["texts"]] == [WRITE]
    assert set(values["unseen_roles"]) == {"checker", "echo", "idle"}


def test_rollouts_in_other_processes_are_refused() -> None:
    """What is marked there is not known here."""
    with pytest.raises(SettingError, match=r"rollouts.runner='2'.*discovered in this process"):
        discover(lambda task: "", TASKS, **{"rollouts.runner": "2"})
