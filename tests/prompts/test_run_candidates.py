"""What a search found, listed, shown, compared, promoted and exported as a user does, after a real run.

Two local servers are doubles: the agent's model, which says what its instruction tells it to say, and the reflecting
model, which adds the first word that an example lacks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk import cli
from lightning_sdk.markers.prompt import marked
from lightning_sdk.prompts.store import PromptStore
from lightning_sdk.results.prompt_search import read_prompt_search
from tests.prompts import two_roles
from tests.prompts.model_servers import ModelServer, obey, reflecting
from tests.prompts.words import WORDS, tasks

GOAL = "Your goal is to please. Say: hello"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A run with a marked text and one that is not marked, and what it printed; the marks of its process are gone."""
    folder = tmp_path_factory.mktemp("candidates")
    with ModelServer(obey) as model, ModelServer(reflecting) as reflector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCRIPTED_URL", model.url)
        patch.setenv("LIGHTNING_PROMPTS", str(folder / "none"))
        goal = lightning.prompt("writer.goal", default=GOAL)

        @lightning.agent(role="writer", trainable=True)
        def write(task: dict[str, Any]) -> str:
            return two_roles._ask(f"A long frame of some framework. {goal}", task["text"])

        @lightning.agent(role="checker", trainable=True)
        def check(task: dict[str, Any], written: str) -> str:
            return two_roles._ask(two_roles.CHECKER, f"{task['text']}: {written}")

        def solve(task: dict[str, Any]) -> dict[str, str]:
            written = write(task)
            return {"writer": written, "checker": check(task, written)}

        settings: dict[str, Any] = {"prompts.reflect_with": reflector.url, "prompts.budget_rollouts": 400}
        lightning.init()
        report = lightning.train(
            solve,
            tasks(30),
            two_roles.right,
            held_out=tasks(60)[30:],
            backend="prompts",
            name="run",
            quiet=True,
            runs=folder / "runs",
            **settings,
        )
        assert report.verdict == "better"
        yield report.folder, str(report)
    marked.clear()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIGHTNING_PROMPTS", raising=False)

    def run(*arguments: str, status: int = 0) -> str:
        assert cli.main(["prompts", *arguments]) == status
        out, err = capsys.readouterr()
        return out or err

    return run


def test_the_report_says_what_the_choice_is_worth_and_what_to_type_next(trained_run: tuple[Path, str]) -> None:
    """The selection score beside the held-out one, the luck of the best of k, and the next commands."""
    folder, printed = trained_run
    search = json.loads((folder / "report.json").read_text())["search"]
    selection = search["selection"]
    assert f"selection {selection['before']:.3f} before, {selection['after']:.3f} after, on the 18 tasks" in printed
    assert f"the best of {selection['compared']} equally good candidates would seem {selection['luck']:.3f}" in printed
    assert f"next      lightning-sdk prompts diff {folder}\nnext      lightning-sdk prompts promote {folder}" in printed


def test_every_candidate_is_listed(trained_run: tuple[Path, str], run: Run) -> None:
    """With parents, state and why, score and rollouts; as JSON with the texts."""
    folder, _ = trained_run
    lines = [json.loads(line) for line in (folder / "candidates.jsonl").read_text().splitlines()]
    listed = run("list", str(folder)).splitlines()
    assert listed[0].split() == ["id", "parents", "state", "selection", "rollouts", "failed", "why"]
    for line, row in zip(lines, listed[1:], strict=False):
        assert row.startswith(line["id"]) and line["state"] in row and all(each in row for each in line["parents"])
    assert sum("accepted, chosen" in row for row in listed) == 1
    spent = json.loads((folder / "report.json").read_text())["search"]["spent"]["rollouts"]
    assert sum(line["rollouts"] for line in lines) == spent
    as_json = json.loads(run("list", str(folder), "--json"))
    assert [each["texts"] for each in as_json] == [line["texts"] for line in lines]
    assert run("list", "run", "--runs", str(folder.parent)).splitlines() == listed


def test_a_candidate_is_shown_and_compared(trained_run: tuple[Path, str], run: Run) -> None:
    """The chosen one unless another is named, with the agent's own texts unless others are."""
    folder, _ = trained_run
    search = read_prompt_search(folder)
    chosen = search.candidate()
    shown = run("show", str(folder))
    assert shown == run("show", str(folder), chosen.id[:8]) and f"candidate {chosen.id}, accepted, chosen" in shown
    assert all(text in shown for text in chosen.texts.values()) and "writer.goal (marked, 'writer')" in shown
    changed = run("diff", str(folder))
    assert f"--- writer.goal as the agent has it\n+++ writer.goal {chosen.id}" in changed
    assert f"-{GOAL}" in changed and f"+{chosen.texts['writer.goal']}" in changed and "+++ checker" in changed
    assert run("diff", str(folder), chosen.id, "seed") == changed
    (parent, *_) = chosen.parents
    between = run("diff", str(folder), chosen.id, parent)
    assert parent in between and "as the agent has it" not in between
    assert "have the same texts" in run("diff", str(folder), "seed")


def test_marked_texts_are_promoted_and_others_are_named(
    trained_run: tuple[Path, str], run: Run, tmp_path: Path
) -> None:
    """The code gets the promoted text at its next start; of the text that is not marked it is said what to do."""
    folder, _ = trained_run
    chosen = read_prompt_search(folder).candidate()
    told = run("promote", str(folder))
    assert "writer.goal: version 1 counts from the next start on" in told
    assert "checker (instruction of 'checker'): not promoted, because the code does not mark it" in told
    assert f"    {chosen.texts['checker']}" in told and 'lightning.prompt("checker", default=...)' in told
    stored = PromptStore(tmp_path / "prompts").find("writer.goal")
    assert stored is not None and (stored.default, stored.text()) == (GOAL, chosen.texts["writer.goal"])
    assert f"candidate {chosen.id} of run, " in stored.versions[0].note
    assert lightning.prompt("writer.goal", default=GOAL) == chosen.texts["writer.goal"]
    assert "version 1 has this text already" in run("promote", str(folder), chosen.id)
    other = next(
        each
        for each in read_prompt_search(folder).candidates
        if each.texts["writer.goal"] not in {GOAL, chosen.texts["writer.goal"]}
    )
    told = run("promote", str(folder), other.id)
    assert "the run began with another text than version 1" in told and "version 2 counts" in told
    # The default is the code's, though another text counts by now.
    stored = PromptStore(tmp_path / "prompts").find("writer.goal")
    assert (
        stored is not None and stored.default == GOAL and f"+{other.texts['writer.goal']}" in run("diff", "writer.goal")
    )


def test_a_run_that_began_with_a_promoted_text_keeps_the_default_of_the_code(
    trained_run: tuple[Path, str], run: Run, tmp_path: Path
) -> None:
    """What the run began with is a version; what the code says stands with it in the store."""
    folder, _ = trained_run
    PromptStore(tmp_path / "prompts").promote("writer.goal", GOAL, "What the code says.")
    run("promote", str(folder))
    stored = PromptStore(tmp_path / "prompts").find("writer.goal")
    assert stored is not None and stored.current == 2 and stored.default == "What the code says."


def test_a_candidate_is_exported(trained_run: tuple[Path, str], run: Run, tmp_path: Path) -> None:
    """Its texts in files for other tools, none of which takes it for promoted."""
    folder, _ = trained_run
    chosen = read_prompt_search(folder).candidate()
    assert "2 prompts were written to" in run("export", str(folder), chosen.id, str(tmp_path / "out"))
    assert (tmp_path / "out" / "checker.txt").read_text() == f"{chosen.texts['checker']}\n"
    run("export", str(folder), "chosen", "--format", "langfuse")
    written = json.loads((tmp_path / f"run-{chosen.id}" / "writer.goal.json").read_text())
    assert written["prompt"] == chosen.texts["writer.goal"] and written["labels"] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("list", "nowhere"), "nowhere is not the folder or the name of a run"),
        (("show", "nowhere"), "has no prompt 'nowhere'; it has nothing; and 'nowhere' is not a run in runs"),
        (("show", "RUN", "zzz"), "has no candidate 'zzz'; its candidates: "),
        (("show", "RUN", ""), "has no candidate ''; its candidates: "),
        (("diff", "RUN", "zzz"), "has no candidate 'zzz'"),
        (("diff", "RUN", "seed", "seed", "seed"), "compares two candidates at most"),
        (("diff", "RUN", "seed", "--from", "1"), "--version and --from are for versions of a promoted prompt"),
        (("show", "nowhere", "zzz"), "nowhere is not the folder or the name of a run"),
        (("promote", "nowhere"), "to promote a text of your own: prompts promote nowhere --text FILE"),
        (("promote", "RUN", "seed"), "has the agent's own texts, so there is nothing to promote"),
        (("promote", "RUN", "seed", "--text", "x"), "leave out either of the two"),
        (("export", "RUN", "zzz"), "has no candidate 'zzz'"),
        (("list", "OTHER"), "is a run that did not tune prompts"),
    ],
)
def test_errors_say_what_is_there(
    arguments: tuple[str, ...], told: str, trained_run: tuple[Path, str], run: Run, tmp_path: Path
) -> None:
    """No such run, a run of another kind, no such candidate, arguments that do not belong together."""
    folder, _ = trained_run
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    named = {"RUN": str(folder), "OTHER": str(other)}
    said = run(*(named.get(each, each) for each in arguments), status=1)
    assert told in said and not (tmp_path / "prompts").exists()
    if "its candidates" in told:
        assert read_prompt_search(folder).candidate().id in said


def test_texts_without_a_mark_are_not_promoted(trained_run: tuple[Path, str], run: Run, tmp_path: Path) -> None:
    """Nothing is written, and the text to paste is printed."""
    folder, _ = trained_run
    copy = _copy(folder, tmp_path, lambda each: each.update(mark=""))
    told = run("promote", str(copy), status=1)
    assert "none of the changed texts is marked with lightning.prompt" in told
    assert set(WORDS) & set(told.split()) and not (tmp_path / "prompts").exists()


def test_names_from_a_run_never_lead_out_of_the_folder(trained_run: tuple[Path, str], run: Run, tmp_path: Path) -> None:
    """A run's folder may come from elsewhere."""
    folder, _ = trained_run
    copy = _copy(folder, tmp_path, lambda each: each.update(mark="../out"))
    assert "names a marked text '../out', which cannot be a name" in run("promote", str(copy), status=1)
    run("export", str(copy), "chosen", str(tmp_path / "in" / "side"))
    assert sorted(path.name for path in (tmp_path / "in").rglob("*.txt")) == ["_out.txt", "checker.txt"]


def test_a_search_that_is_not_over_has_candidates_too(trained_run: tuple[Path, str], run: Run, tmp_path: Path) -> None:
    """Those of its rounds so far, none of them chosen."""
    folder, _ = trained_run
    copy = _copy(folder, tmp_path, None)
    assert "The search is not over" in run("list", str(copy))
    assert "is not over, so no candidate is chosen; name one: " in run("promote", str(copy), status=1)
    assert run("show", str(copy), "seed").count(GOAL) == 1
    (copy / "candidates.jsonl").unlink()
    assert "has no candidates: its search was stopped before its first round" in run("list", str(copy), status=1)


def _copy(folder: Path, target: Path, change: Callable[[dict[str, Any]], None] | None) -> Path:
    """The files of a run in another place, with changed marks, or as they are while the search goes on (None)."""
    copy = target / "copy"
    copy.mkdir()
    for name in ("candidates.jsonl", "search.jsonl"):
        (copy / name).write_text((folder / name).read_text())
    config = json.loads((folder / "config.json").read_text())
    if change is None:
        config["search"] = {}
    else:
        for each in config["search"]["components"]:
            if each["mark"]:
                change(each)
    (copy / "config.json").write_text(json.dumps(config))
    return copy
