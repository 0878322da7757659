"""The views: what they answer about a run's folder, finished and under way."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import BEGAN, MadeRollout, MadeRun, made_call, pack_events

from lightning_sdk.settings import Settings
from lightning_sdk.trace import genai
from lightning_sdk.trace.call import Span, root_span_id
from tests.dashboard.pages import Page, serve

REWARDS = (1.0, 0.0, 0.5, 0.5)


def made_rollouts() -> list[MadeRollout]:
    """Two steps of two groups of two, one of which failed once, and an evaluation."""
    found = [
        MadeRollout(
            group=f"{step}-{group}",
            task_id=10 * step + group,
            task={"question": f"question {step}{group}", "n": step},
            answer=f"answer {step}{group}{place}",
            started=BEGAN + 100 * step + 10 * group + place,
            rewards=[("", "correct", REWARDS[2 * group + place], "the sum is WRONG" if not place else "")],
            seconds=1.0 + place,
        )
        for step in (1, 2)
        for group in (0, 1)
        for place in (0, 1)
    ]
    first = replace(
        found[0], key=b"k" * 16, status="timeout", error="took longer than 5 s", rewards=(), runner="runner-2"
    )
    found[0] = replace(found[0], attempt=2, started=found[0].started + 5)
    held_out = MadeRollout(group="before-0", mode="evaluate", task_id=99, rewards=[("", "correct", 1.0, "")])
    return [first, *found, held_out]


@pytest.fixture
def made_run(tmp_path: Path) -> Iterator[MadeRun]:
    run = MadeRun(tmp_path / "runs" / "solve")
    run.add(made_rollouts())
    yield run
    run.close()


@pytest.fixture
def page(made_run: MadeRun) -> Iterator[Page]:
    with serve(made_run.folder.parent) as page:
        yield page


def answers(page: Page, **filters: Any) -> list[str]:
    return [row["answer"] for row in page.ask("rollouts", run="solve", **filters)["rows"]]


def test_rollouts_are_listed_newest_first(page: Page) -> None:
    """Once each, by their last attempt."""
    found = page.ask("rollouts", run="solve")
    assert found["total"] == 9 and found["all"] == 10
    assert answers(page, mode="train") == [
        f"answer {each}" for each in ("211", "210", "201", "200", "111", "110", "100", "101")
    ]
    [row] = page.ask("rollouts", run="solve", text="answer 100")["rows"]
    assert (row["attempt"], row["step"], row["group"], row["task"]) == (2, 1, "1-0", "question 10")
    assert found["summary"]["n"] == 9 and found["summary"]["mean"] == pytest.approx(5 / 9)


@pytest.mark.parametrize(
    ("filters", "total"),
    [
        ({"step": 1}, 4),
        ({"from": 2}, 4),
        ({"to": 1}, 4),
        ({"evaluation": "before"}, 1),
        ({"group": "2-1"}, 2),
        ({"task": 21}, 2),
        ({"status": "timeout"}, 0),
        ({"status": "timeout", "attempts": "all"}, 1),
        ({"status": ["timeout", "ok"], "attempts": "all"}, 10),
        ({"low": 0.6}, 3),
        ({"high": 0.4}, 2),
        ({"low": 0.4, "high": 0.6}, 4),
        ({"runner": "runner-2", "attempts": "all"}, 1),
        ({"text": "QUESTION 2"}, 4),
        ({"text": "sum is wrong"}, 4),
        ({"text": "longer than", "attempts": "all"}, 1),
        ({"text": "no such text"}, 0),
        ({"text": "%"}, 0),
        ({"text": "question_2"}, 0),
        ({"text": "\\"}, 0),
        ({"step": 1, "text": "answer 11", "low": 0.5}, 2),
    ],
)
def test_rollouts_are_filtered(page: Page, filters: dict[str, Any], total: int) -> None:
    """By each column, by text in task, answer, error and reason, and by several at once."""
    found = page.ask("rollouts", run="solve", **filters)
    assert found["total"] == len(found["rows"]) == total


def test_rollouts_are_sorted_and_paged(page: Page) -> None:
    """In either direction; what has no value there comes last."""
    up = page.ask("rollouts", run="solve", sort="reward", attempts="all")["rows"]
    assert [row["reward"] for row in up] == [0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, None]
    down = page.ask("rollouts", run="solve", sort="reward", down=1, attempts="all")["rows"]
    assert [row["reward"] for row in down] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0, None]
    pages = [page.ask("rollouts", run="solve", sort="seconds", offset=at, limit=2)["rows"] for at in (0, 2, 4, 6, 8)]
    assert [len(each) for each in pages] == [2, 2, 2, 2, 1]
    assert len({row["id"] for each in pages for row in each}) == 9


def test_groups_have_their_spread(page: Page) -> None:
    """The widest first, and how many teach nothing."""
    found = page.ask("groups", run="solve", mode="train", sort="spread")
    assert found["total"] == 4 and found["without_signal"] == 2
    assert [row["spread"] for row in found["rows"]] == [0.5, 0.5, 0.0, 0.0]
    assert {tuple(sorted(each["reward"] for each in row["rollouts"])) for row in found["rows"]} == {
        (0.0, 1.0),
        (0.5, 0.5),
    }


def test_a_rollout_under_way_is_seen_and_its_end_too(page: Page, made_run: MadeRun) -> None:
    """Also if others that were seen before ended later than it."""
    late = MadeRollout(group="1-1", status="running", started=BEGAN + 50, seconds=1.0)
    made_run.add([late])
    assert [row["status"] for row in page.ask("rollouts", run="solve", status="running")["rows"]] == ["running"]
    made_run.end([replace(late, status="agent_error", error="ValueError: no", answer="")])
    [row] = page.ask("rollouts", run="solve", status="agent_error")["rows"]
    assert row["id"] == late.id and row["error"] == "ValueError: no"
    assert page.ask("rollouts", run="solve", status="running")["total"] == 0


def test_a_rescoring_is_seen(page: Page, made_run: MadeRun) -> None:
    """The new numbers count, and the old ones are shown as replaced."""
    target = page.ask("rollouts", run="solve", text="answer 100")["rows"][0]
    key = read_key(made_run, target["id"])
    made_run.store.rescore([(key, "", "strict", 0.25, 1, "almost")], [key], '{"weights": {"strict": 2.0}}')
    [row] = page.ask("rollouts", run="solve", text="answer 100")["rows"]
    assert row["reward"] == 0.5
    found = page.ask("rollout", run="solve", rollout=target["id"])
    assert [(each["name"], each["counts"], each["rescoring"]) for each in found["rewards"]] == [
        ("correct", False, 0),
        ("strict", True, 1),
    ]
    assert found["weights"] == {"strict": 2.0}


def read_key(made_run: MadeRun, rollout: str) -> bytes:
    """Of the second attempt."""
    with sqlite3.connect(made_run.folder / "hub.sqlite") as database:
        [(key,)] = database.execute("SELECT key FROM rollouts WHERE id = ? AND attempt = 2", (rollout,))
    return bytes(key)


def made_span(letter: str, parent: str, name: str, **values: Any) -> Span:
    """A span of a few nanoseconds whose id is one letter."""
    ns = int(BEGAN * 1e9)
    given = {"role": "", "status": "ok", "error": "", **values}
    return Span(id=letter * 16, parent=parent, name=name, started_ns=ns, ended_ns=ns + 9, **given)


def test_a_rollout_has_its_tree_its_conversation_and_its_attempts(page: Page, made_run: MadeRun) -> None:
    """Agents around calls, tools and foreign spans; of each call what its role had not been sent before."""
    key = b"0123456789abcdef"
    system, question = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3?"}
    first = made_call(1, [system, question], "6", parent="a" * 16)
    said = {"role": "assistant", "content": "6"}
    second = made_call(2, [system, question, said, {"role": "user", "content": "Sure?"}], "5", parent="a" * 16)
    other = made_call(3, [question], "5", role="checker", status="error", error="Timeout", trainable=False)
    spans = [
        made_span("a", root_span_id(key), "solve", role="solver", attributes={genai.OPERATION: genai.INVOKE_AGENT}),
        made_span("b", "a" * 16, "search", status="error", attributes={genai.OPERATION: genai.EXECUTE_TOOL}),
        made_span("c", "unknown", "SELECT", attributes={genai.FOREIGN: "db"}),
    ]
    rollout = MadeRollout(
        group="3-0",
        key=key,
        events=pack_events([*spans, first, second, other]),
        rewards=[("solver", "right", 1.0, "5 is right"), ("checker", "asked", 0.0, "")],
    )
    made_run.add([rollout])
    found = page.ask("rollout", run="solve", rollout=rollout.id)
    kinds = {each["id"]: (each["kind"], each["parent"]) for each in found["spans"]}
    root = root_span_id(key)
    assert found["spans"][0]["id"] == root
    assert kinds["a" * 16] == ("agent", root) and kinds["b" * 16] == ("tool", "a" * 16)
    assert kinds["c" * 16] == ("foreign", root)  # what encloses it is not known
    assert kinds[first.meta.id] == ("call", "a" * 16)
    assert [(turn["role"], turn["shared"], len(turn["messages"])) for turn in found["turns"]] == [
        ("solver", 0, 2),
        ("solver", 3, 1),
        ("checker", 0, 1),
    ]
    assert found["turns"][1]["replies"][0]["parts"] == [{"type": "text", "content": "5"}]
    assert found["roles"] == {"solver": 1.0, "checker": 0.0}
    assert [(each["name"], each["why"]) for each in found["rewards"]] == [("right", "5 is right"), ("asked", "")]
    call = page.ask("call", run="solve", rollout=rollout.id, call=second.meta.id)
    assert call["request"]["messages"][3]["content"] == "Sure?"
    assert call["replies"][0]["raw"]["content"] == "5"
    repeated = page.ask(
        "rollout", run="solve", rollout=page.ask("rollouts", run="solve", text="answer 100")["rows"][0]["id"]
    )
    assert [(each["attempt"], each["status"]) for each in repeated["attempts"]] == [(1, "timeout"), (2, "ok")]
    earlier = page.ask("rollout", run="solve", rollout=repeated["id"], attempt=1)
    assert earlier["status"] == "timeout" and earlier["error"] == "took longer than 5 s"


def test_a_role_is_shown_by_what_it_earned(tmp_path: Path) -> None:
    """In every view, with the weights and the signal of its settings."""
    settings = Settings.from_dict({"credit.signal": "own", "credit.rewards": {"right": 2.0}})
    run = MadeRun(tmp_path / "roles", settings)
    run.add([MadeRollout(group="1-0", rewards=[("writer", "right", 0.5, ""), ("checker", "right", -1.0, "")])])
    run.close()
    with serve(run.folder) as page:
        rewards = {
            role: page.ask("rollouts", run="roles", role=role)["rows"][0]["reward"]
            for role in ("", "writer", "checker")
        }
        assert rewards == {"": -0.5, "writer": 1.0, "checker": -2.0}
        assert page.ask("rollouts", run="roles", role="writer", low=1)["total"] == 1


def test_a_run_is_shown_while_its_steps_are_written(page: Page, made_run: MadeRun) -> None:
    """Curves grow, a torn line is left out, and a resumed run that goes back is followed."""
    before = page.ask("pulse", run="solve")["version"]
    made_run.steps([{"step": 1, "loss": 0.5, "rows/solver": 4}, {"step": 2, "loss": None, "rows/solver": 4}])
    with (made_run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    found = page.ask("run", run="solve")
    assert found["curves"]["steps"] == [1, 2] and found["curves"]["series"]["loss"] == [0.5, None]
    assert found["roles"] == ["solver"] and found["status"] == "unfinished"
    assert page.ask("pulse", run="solve")["version"] != before
    (made_run.folder / "metrics.jsonl").write_text('{"step": 1, "loss": 0.25}\n')
    assert page.ask("run", run="solve")["curves"]["series"]["loss"] == [0.25]


def test_rewards_of_a_step_have_an_interval_over_its_tasks(page: Page, made_run: MadeRun) -> None:
    """Not over rollouts, which are alike within a task; and only of steps that are done."""
    made_run.steps([{"step": 1, "rows/solver": 4}])
    found = page.ask("run", run="solve")
    while found["incomplete"] and found["rewards"][""][0]["low"] is None:
        found = page.ask("run", run="solve")
    [point] = found["rewards"][""]
    assert point["step"] == 1 and point["mean"] == 0.5 and point["n"] == 2
    assert 0 <= point["low"] < 0.5 < point["high"] <= 1


def test_a_folder_with_almost_nothing_is_shown(tmp_path: Path) -> None:
    """A run that has just begun, and one whose files are damaged."""
    for name, content in (("new", "{}"), ("damaged", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    (tmp_path / "damaged" / "metrics.jsonl").write_text("not JSON\n[1]\n")
    with serve(tmp_path) as page:
        assert {run["name"] for run in page.ask("runs")["runs"]} == {"new", "damaged"}
        for name in ("new", "damaged"):
            assert page.ask("run", run=name)["curves"]["steps"] == []
            assert page.ask("rollouts", run=name)["total"] == page.ask("groups", run=name)["total"] == 0
            assert page.ask("system", run=name)["runners"] == []


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """By the folder above; a new run is found without a restart."""
    for parent in ("one", "two"):
        MadeRun(tmp_path / parent / "solve").close()
    with serve(tmp_path / "one", tmp_path / "two") as page:
        assert {run["name"] for run in page.ask("runs")["runs"]} == {"one/solve", "two/solve"}
        assert page.ask("run", run="two/solve")["name"] == "two/solve"
        MadeRun(tmp_path / "two" / "later").close()
        assert "later" in {run["name"] for run in page.ask("runs")["runs"]}


def test_logs_end_with_their_last_words(page: Page, made_run: MadeRun) -> None:
    """Of a log of any length, and of any bytes."""
    (made_run.folder / "hub.log").write_bytes(b"x" * 300_000 + b"\n" + b"last \xff words\n")
    found = page.ask("system", run="solve")
    [log] = found["logs"]
    assert log["lines"][-1] == "last \ufffd words" and log["bytes"] > 300_000
    assert {each["name"]: (each["rollouts"], each["failed"]) for each in found["runners"]} == {
        "runner-1": (9, 0),
        "runner-2": (1, 1),
    }
