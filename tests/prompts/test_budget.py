"""A budget of calls, tokens and money with a real hub, real runners and the real OpenAI client: none is overshot.

The servers count the requests that reach them, so nothing that left is missed.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_prompts.parts import divide_tasks
from lightning_sdk.errors import BudgetSpent, SettingError
from tests.prompts import two_roles
from tests.prompts.model_servers import ModelServer
from tests.prompts.training_commands import HELD_OUT, TRAINING, await_lines, command, prepare

pytestmark = pytest.mark.usefixtures("declare_roles")

PRICES = {"scripted": {"input": 1000, "output": 2000}}
#: Dollars of one call of the doubles: 7 tokens read and 3 written.
CALL = (7 * 1000 + 3 * 2000) / 10**6
#: Numbers of tasks: the first rollouts do not show what these take.
COSTLY = {each["number"] for each in divide_tasks(TRAINING, 0.4, 0).selection[8::3]}


@pytest.fixture
def prices(tmp_path: Path) -> str:
    (tmp_path / "prices.json").write_text(json.dumps(PRICES))
    return str(tmp_path / "prices.json")


def tune(folder: Path, reflector: ModelServer, agent: Callable[..., Any] = two_roles.solve, **settings: Any) -> Any:
    lightning.init()
    given = {"prompts.reflect_with": reflector.url, "quiet": True, "prompts.budget_rollouts": 5000, **settings}
    return lightning.train(
        agent, TRAINING, two_roles.right, held_out=HELD_OUT[:1], backend="prompts", name="run", runs=folder, **given
    )


def count(model: ModelServer, reflector: ModelServer) -> int:
    """Requests of the search: the rollouts on held-out tasks are not part of the budget."""
    held_out = str(HELD_OUT[0]["text"])
    own = [each for each in model.requests if not each["messages"][1]["content"].startswith(held_out)]
    return len(own) + len(reflector.requests)


def uneven(task: dict[str, Any]) -> dict[str, str]:
    """Takes ten times as many calls on some tasks, which do not come first."""
    for _ in range(20 if task["number"] in COSTLY else 0):
        two_roles.write(task)
    return two_roles.solve(task)


async def auneven(task: dict[str, Any]) -> dict[str, str]:
    for _ in range(20 if task["number"] in COSTLY else 0):
        await two_roles.awrite(task)
    return await two_roles.asolve(task)


def stubborn(task: dict[str, Any]) -> dict[str, str]:
    """Answers what would be right whatever its calls raise."""
    try:
        return uneven(task)
    except BudgetSpent:
        return dict.fromkeys(("writer", "checker"), "alpha beta gamma")


@pytest.mark.parametrize("limit", [60, 150])
@pytest.mark.parametrize("runner", ["threads", "asyncio", "processes"])
def test_calls_are_never_overshot(
    runner: str, limit: int, tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    """Where some rollouts take ten times what others took before: with the smaller limit, in the middle of them."""
    agent = auneven if runner == "asyncio" else uneven
    report = tune(tmp_path, reflector, agent, **{"prompts.budget_calls": limit, "rollouts.runner": runner})
    spent, search = report.values["search"]["spent"], report.values["search"]
    assert limit / 2 < spent["calls"] == count(model, reflector) <= limit
    assert search["why"] == "budget" and "prompts.budget_calls" in search["ended"]
    assert limit > 60 or (spent["calls"] == limit and "does not allow another call: 60 of 60" in search["ended"])


@pytest.mark.parametrize("what", ["tokens", "money"])
def test_tokens_and_money_are_never_overshot(
    what: str, tmp_path: Path, model: ModelServer, reflector: ModelServer, prices: str
) -> None:
    """And counted as the replies say."""
    limit = {"tokens": 12_000, "money": 14.0}[what]
    settings = {f"prompts.budget_{what}": limit, "prompts.prices": prices, "prompts.reply_tokens": 5}
    report = tune(tmp_path, reflector, uneven, **settings)
    spent, made = report.values["search"]["spent"], count(model, reflector)
    assert spent["calls"] == made > 30 and spent[what] <= limit
    assert spent["tokens"] == 10 * made and spent["money"] == pytest.approx(CALL * made)
    assert report.values["search"]["why"] == "budget"
    assert f"tokens in all, for ${spent['money']:.4g}." in (tmp_path / "run/report.md").read_text()


def test_a_rollout_that_was_refused_a_call_is_not_scored(
    tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    """Whatever its agent makes of the error, which says what happened."""
    report = tune(tmp_path, reflector, stubborn, **{"prompts.budget_calls": 60})
    lines = [json.loads(line) for line in (tmp_path / "run/search.jsonl").read_text().splitlines()]
    results = [line["result"] for line in lines if line["kind"] == "result"]
    assert results and all(each["score"] == 0.0 for each in results)
    assert report.values["search"]["spent"]["calls"] == count(model, reflector) == 60


def test_a_killed_search_knows_what_it_spent(tmp_path: Path, model: ModelServer, reflector: ModelServer) -> None:
    """kill -9 of everything in the middle of a round, then --resume: with the calls of interrupted rollouts, which run
    again, no more leave than the budget has."""
    model.seconds = 0.02
    folder = prepare(tmp_path / "run")
    (folder / "held_out.jsonl").write_text(json.dumps(HELD_OUT[0]))
    limit = 420
    running = command(folder, "--reflect-with", reflector.url, "--set", f"prompts.budget_calls={limit}")
    await_lines(running, folder / "runs/run/search.jsonl", 80)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    before = count(model, reflector)
    again = command(folder, "--resume", "run")
    _, told = again.communicate(timeout=100)
    assert again.returncode == 0, told
    spent = json.loads((folder / "runs/run/report.json").read_text())["search"]["spent"]
    made = count(model, reflector)
    assert before < made <= spent["calls"] <= limit
    # What was under way at the kill, and may have left or not, is all that the two can differ by.
    assert spent["calls"] - made <= 64


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prompts.budget_money": 1.0}, r"the model 'scripted' has no price in any file"),
        ({"prompts.budget_tokens": 9000}, r"sets no limit to its reply \(max_tokens\)"),
        ({"prompts.prices": "nowhere.json"}, "cannot be read"),
    ],
)
def test_what_cannot_be_counted_is_an_error_before_anything_is_paid(
    settings: dict[str, Any], told: str, tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    with pytest.raises(SettingError, match=told):
        tune(tmp_path, reflector, **settings)
    assert not model.requests


def test_an_agents_model_without_a_price_is_an_error(
    tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    """No request of it leaves."""
    (tmp_path / "prices.json").write_text(json.dumps({"reflects": {"input": 1, "output": 1}}))
    settings = {
        "prompts.budget_money": 1.0,
        "prompts.prices": str(tmp_path / "prices.json"),
        "prompts.reply_tokens": 50,
        "prompts.reflect_with": f"{reflector.url}#reflects",
    }
    with pytest.raises(SettingError, match=r"'scripted' has no price in the file"):
        tune(tmp_path, reflector, **settings)
    assert not model.requests


def test_a_budget_that_the_first_rollouts_do_not_fit_is_told(
    tmp_path: Path, model: ModelServer, reflector: ModelServer
) -> None:
    with pytest.raises(SettingError, match=r"the first rollouts.*need more.*prompts\.budget_calls"):
        tune(tmp_path, reflector, **{"prompts.budget_calls": 5})
    assert count(model, reflector) <= 5
