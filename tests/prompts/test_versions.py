"""Promoted prompts: versions that never change, one that counts, and code that reads it at its next start."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import lightning_sdk as lightning
from lightning_sdk import cli
from lightning_sdk.errors import PromptError
from lightning_sdk.markers.prompt import marked
from lightning_sdk.prompts.store import PromptStore
from lightning_sdk.stream import sink
from tests.sdk.candidates import Candidate, with_candidate

DEFAULT, BETTER, BEST = "Write about {topic}.", "Write three lines about {topic}.", "Three lines on {topic}, please."


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PromptStore:
    monkeypatch.setenv("LIGHTNING_PROMPTS", str(tmp_path / "promoted"))
    return PromptStore.here()


def ask(default: str = DEFAULT) -> str:
    """What the code gets at its next start."""
    marked.clear()
    return lightning.prompt("writer.system", default=default)


def test_a_promoted_version_is_what_the_code_gets(store: PromptStore) -> None:
    """From the next start on; a rollback goes to the one before, and at last to what the code says."""
    assert ask() == DEFAULT
    assert store.promote("writer.system", BETTER, DEFAULT, "by hand").current == 1
    assert store.promote("writer.system", BEST, DEFAULT).current == 2
    assert ask() == BEST
    assert store.roll_back("writer.system").current == 1 and ask() == BETTER
    assert store.roll_back("writer.system").current == 0 and ask() == DEFAULT
    with pytest.raises(PromptError, match="nothing to roll back"):
        store.roll_back("writer.system")
    assert store.roll_back("writer.system", 2).current == 2 and ask() == BEST
    assert store.promote("writer.system", BETTER, DEFAULT).current == 3
    found = store.find("writer.system")
    assert found is not None and [each.text for each in found.versions] == [BETTER, BEST, BETTER]


def test_it_is_read_once(store: PromptStore) -> None:
    """A process keeps the text that it began with."""
    assert lightning.prompt("writer.system", default=DEFAULT) == DEFAULT
    store.promote("writer.system", BETTER, DEFAULT)
    assert lightning.prompt("writer.system", default=DEFAULT) == DEFAULT


def test_a_candidate_replaces_the_promoted_text(store: PromptStore) -> None:
    """What is tuned is what the agent says now."""
    store.promote("writer.system", BETTER, DEFAULT)
    assert with_candidate(ask, Candidate("c", {BETTER: BEST})) == BEST


def test_a_default_that_changed_since_is_told(store: PromptStore, caplog: pytest.LogCaptureFixture) -> None:
    """The promoted text is used if it still fits, and not if it lacks what the code fills in now."""
    store.promote("writer.system", BETTER, DEFAULT)
    assert ask("Tell about {topic}.") == BETTER
    assert "version 1 of the prompt 'writer.system' was promoted when the code said something else" in caplog.text
    lightning.shutdown()
    caplog.clear()
    sink._said.clear()  # what was said once may be said again
    assert ask("Tell about {subject}.") == "Tell about {subject}."
    assert "is what the code says: version 1 of the prompt 'writer.system' leaves out {subject}" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        '{"lightning_prompt": 2}',
        '{"lightning_prompt": 1, "name": "writer.system"}',
        '{"lightning_prompt": 1, "name": "other", "default": "x", "current": 0, "versions": []}',
        '{"lightning_prompt": 1, "name": "writer.system", "default": "x", "current": 7, "versions": []}',
    ],
)
def test_a_damaged_file_never_stops_the_code(
    store: PromptStore, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    """The default is used and the file is named; the commands say so too."""
    store.folder.mkdir()
    (store.folder / "writer.system.json").write_text(content)
    assert ask() == DEFAULT
    assert "writer.system.json" in caplog.text
    with pytest.raises(PromptError, match=r"writer\.system\.json"):
        store.find("writer.system")


def test_other_peoples_files_are_left_alone(store: PromptStore) -> None:
    """A folder of that name may hold anything."""
    store.folder.mkdir()
    (store.folder / "writer.system.json").write_text('{"system": "mine"}')
    assert ask() == DEFAULT and store.prompts() == []


def test_unfit_texts_are_not_promoted(store: PromptStore) -> None:
    """Nothing is written."""
    with pytest.raises(PromptError, match=r"the text for 'writer.system' leaves out \{topic\}"):
        store.promote("writer.system", "Write.", DEFAULT)
    assert not store.folder.exists()


def test_a_reader_never_sees_half_a_file(store: PromptStore) -> None:
    """Files are replaced whole while others read them, and nothing else is left in the folder."""
    store.promote("writer.system", BETTER, DEFAULT)
    over = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        while not over.is_set():
            try:
                found = store.find("writer.system")
                assert found is not None and found.text() == BETTER
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        store.promote("writer.system", BETTER, DEFAULT)
    over.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert [path.name for path in store.folder.iterdir()] == ["writer.system.json"]


def test_the_commands(store: PromptStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Promote, list, show, diff, roll back and export, as a user does."""
    texts = {"default": DEFAULT, "better": BETTER}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(f"{text}\n")
    better, default = str(tmp_path / "better.txt"), str(tmp_path / "default.txt")

    def run(*arguments: str, status: int = 0) -> str:
        assert cli.main(["prompts", *arguments]) == status
        out, err = capsys.readouterr()
        return out or err

    assert "for the first time" in run("promote", "writer.system", "--text", better, status=1)
    assert "version 1 counts" in run(
        "promote", "writer.system", "--text", better, "--default", default, "--note", "run 7"
    )
    assert run("list").startswith("writer.system: version 1, promoted 20") and run("list").endswith("1 in all; run 7\n")
    assert (
        run("show", "writer.system") == f"{BETTER}\n"
        and run("show", "writer.system", "--version", "0") == f"{DEFAULT}\n"
    )
    assert f"-{DEFAULT}\n+{BETTER}" in run("diff", "writer.system")
    for kind, wanted in (("langfuse", "prompt"), ("mlflow", "template")):
        run("export", str(tmp_path / kind), "--format", kind)
        written = json.loads((tmp_path / kind / "writer.system.json").read_text())
        assert (written["name"], written[wanted]) == ("writer.system", "Write three lines about {{topic}}.")
    run("export", str(tmp_path / "plain"))
    assert (tmp_path / "plain" / "writer.system.txt").read_text() == f"{BETTER}\n"
    assert "what the code says counts" in run("rollback", "writer.system")
    assert "has no prompt 'other'; it has writer.system" in run("show", "other", status=1)
    assert "has no version 9" in run("rollback", "writer.system", "--to", "9", status=1)


def test_the_folder_is_next_to_where_the_code_runs(tmp_path: Path) -> None:
    """Without LIGHTNING_PROMPTS: `prompts` in the working directory."""
    PromptStore(tmp_path / "prompts").promote("writer.system", BETTER, DEFAULT)
    code = f"import lightning_sdk as lightning; print(lightning.prompt('writer.system', default={DEFAULT!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == f"{BETTER}\n"
