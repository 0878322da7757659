"""How to compare something with VERL. These tests run in the environment that `make verl-cpu` makes:

    .venvs/verl/bin/python -m pytest tests/verl

    @pytest.mark.same("core_algos.compute_rloo_outcome_advantage", "credit.advantage=rloo")
    def test_rloo(theirs, settings, seed): ...

`theirs` is VERL's own function of that name and `settings` are ours with what is named, so a mark cannot name one thing
and its test compare another. The tables of docs/algorithms.md have a line for every mark, which tests/docs checks.
`differs` instead of `same`: VERL means something else, and the test says what exactly.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest

from lightning_sdk.settings.settings import Settings, parse

MODULES = {
    "core_algos": "verl.trainer.ppo.core_algos",
    "rollout_corr_helper": "verl.trainer.ppo.rollout_corr_helper",
    "torch_functional": "verl.utils.torch_functional",
    "reward_manager": "verl.workers.reward_manager.dapo",
}


def pytest_configure(config: pytest.Config) -> None:
    if sys.modules.get("verl") is None and importlib.util.find_spec("verl") is None:
        raise pytest.UsageError("VERL is not installed here: make verl-cpu, then make test-verl")


def _mark(request: pytest.FixtureRequest) -> pytest.Mark:
    marks: list[pytest.Mark] = [mark for mark in request.node.iter_markers() if mark.name in {"same", "differs"}]
    assert len(marks) == 1, f"{request.node.name} has {len(marks)} marks of what it compares"
    return marks[0]


@pytest.fixture
def theirs(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The function of VERL that the test's mark names."""
    module, _, name = _mark(request).args[0].partition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(MODULES[module]), name)
    return found


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Settings:
    """Ours, as the test's mark has them, such as "credit.advantage=rloo divergence.place=reward"."""
    pairs = (pair.partition("=") for pair in _mark(request).args[1].split())
    return Settings.from_dict({name: parse(name, value) for name, _, value in pairs})


@pytest.fixture(params=range(4))
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of a random batch."""
    return int(request.param)
