"""The example of two roles: what each kind of reward blames whom for, its database, and both of its trainings."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lightning_sdk as lightning
from lightning_hub.credit.batch import TrainingBatch, build_batch
from lightning_hub.replay.stored_run import StoredRun
from lightning_sdk.settings import Settings
from tests.trajectories.conversations import call, rollout, sample

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "examples" / "two_roles" / "agent.py"
SMALL: dict[str, Any] = {
    "rollouts.tasks_per_step": 4,
    "rollouts.group_size": 8,
    "rollouts.concurrency": 32,
    "evaluation.tasks": 2,
    "quiet": True,
}
#: What one order earns while the clerk mostly gives up and the cashier mostly guesses.
BEGINNING = ["silent"] * 5 + ["wrong sum"] * 2 + ["right"]


@pytest.fixture
def shop() -> dict[str, Any]:
    return runpy.run_path(str(AGENT))


def answer(shop: dict[str, Any], task: dict[str, Any], outcome: str) -> dict[str, Any]:
    bill = shop["calculate"](shop["bill_of"](task["price"], task))
    return {
        "silent": {"price": None, "bill": None},
        "wrong price": {"price": task["price"] + 1, "bill": bill + task["count"]},
        "wrong sum": {"price": task["price"], "bill": bill + 1},
        "no sum": {"price": task["price"], "bill": None},
        "right": {"price": task["price"], "bill": bill},
    }[outcome]


@pytest.mark.parametrize(
    ("outcome", "one", "each"),
    [
        ("silent", 0.0, {"clerk": 0.0}),
        ("wrong price", -1.0, {"clerk": -1.0, "cashier": 1.0}),
        ("wrong sum", -1.0, {"clerk": 1.0, "cashier": -1.0}),
        ("no sum", 0.0, {"clerk": 1.0, "cashier": 0.0}),
        ("right", 1.0, {"clerk": 1.0, "cashier": 1.0}),
    ],
)
def test_what_an_answer_is_worth(shop: dict[str, Any], outcome: str, one: float, each: dict[str, float]) -> None:
    """The bill alone counts for both, or for each role what it was told made of; who was not asked earns nothing."""
    task = shop["tasks"](seed=5, size=1)[0]
    said = answer(shop, task, outcome)
    assert shop["one_for_all"](task, said) == one
    assert shop["one_for_each"](task, said) == each


def test_one_number_blames_the_clerk_for_the_cashier(shop: dict[str, Any]) -> None:
    """At the beginning finding the price is discouraged by one number, and encouraged by a number for each role."""
    assert blame(weigh(shop, "one_for_all"), "clerk") < 0 < blame(weigh(shop, "one_for_each"), "clerk")


def weigh(shop: dict[str, Any], reward: str) -> TrainingBatch:
    """The beginning's rollouts of one order, with one of the example's rewards."""
    task, made = shop["tasks"](seed=5, size=1)[0], []
    for number, outcome in enumerate(BEGINNING):
        said = answer(shop, task, outcome)
        spoke = [call(1, [1], sample(20 if said["price"] is None else 21), role="clerk")]
        if said["price"] is not None:
            spoke.append(call(2, [2], sample(30), role="cashier"))
        value = shop[reward](task, said)
        made.append(rollout(number + 1, *spoke, rewards=value if isinstance(value, dict) else {"": value}))
    return build_batch(made, Settings())


def blame(of: TrainingBatch, role: str) -> float:
    """The sum of the weighed advantages of the role's rows in which a price was found."""
    found = {f"{number + 1:032x}" for number, outcome in enumerate(BEGINNING) if outcome != "silent"}
    rows = [row for row in of.rows if row.role == role and row.rollout in found]
    assert len(rows) == len(found)
    return float(sum(np.dot(row.weights, row.advantages) for row in rows))


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT price FROM {table} WHERE {kind} = '{wanted}'", True),
        ("I do not know.", False),
        ("", False),
        ("SELECT price FROM {table}", False),
        ("SELECT {kind} FROM {table} WHERE {kind} = '{wanted}'", False),
        ("DROP TABLE {table}", False),
        ("SELECT 1; SELECT 2", False),
        ("SELECT '\x00'", False),
    ],
)
def test_queries_run_in_a_database(shop: dict[str, Any], sql: str, found: bool) -> None:
    """The right query finds the price of every task; anything but a query for one number finds nothing."""
    for task in shop["tasks"](seed=6, size=20):
        kind, _, wanted = task["where"].partition(" ")
        price = shop["query"](task, sql.format(table=task["table"], kind=kind, wanted=wanted))
        assert price == (task["price"] if found else None)


@pytest.mark.timeout(300)  # a whole training and an evaluation, where many tests may run beside it
@pytest.mark.parametrize("reward", ["one_for_all", "one_for_each"])
def test_the_example_trains(shop: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reward: str) -> None:
    """Its main block trains both roles, each by the number that the reward gives it, and then measures the bills."""
    train, evaluate, reports = lightning.train, lightning.evaluate, []

    def small(*args: Any, **settings: Any) -> Any:
        reports.append(train(*args, **{**settings, **SMALL, "runs": tmp_path}))
        return reports[-1]

    def measure(*args: Any, **settings: Any) -> Any:
        reports.append(evaluate(*args, **{**settings, "quiet": True, "evaluation.tasks": 4, "runs": tmp_path}))
        return reports[-1]

    monkeypatch.setattr(lightning, "train", small)
    monkeypatch.setattr(lightning, "evaluate", measure)
    monkeypatch.setattr(
        sys, "argv", ["agent.py", "--steps", "1", *(["--one-reward"] if reward == "one_for_all" else [])]
    )
    runpy.run_path(str(AGENT), run_name="__main__")
    trained, bills = reports
    assert trained.steps == 1 and bills.after is not None and bills.after.n == 4
    step = json.loads((trained.folder / "metrics.jsonl").read_text())
    assert step["version"] == 1
    assert {name for name in step if name.startswith("tokens_trained/")} == {
        "tokens_trained/clerk",
        "tokens_trained/cashier",
    }
    with StoredRun(trained.folder) as run:
        records = run.records()
    assert len(records) >= 32
    for record in records:
        earned = shop[reward](json.loads(record.task), json.loads(record.answer))
        assert {each.role: each.value for each in record.rewards} == (
            earned if reward == "one_for_each" else {"": earned}
        )
