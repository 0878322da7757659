"""What tests of prompts share: which roles are declared, and the doubles of models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lightning_sdk import markers
from tests.prompts.adding_runs import propose
from tests.prompts.model_servers import ModelServer, obey, reflecting
from tests.prompts.words import ROLES


def _declare(*roles: str) -> None:
    """As their modules did when they were imported, for this test alone."""
    markers.agent.declared.clear()
    markers.agent.declared.update(dict.fromkeys(roles, True))


@pytest.fixture
def declare_solver(isolate: None) -> None:
    """The role of the adding agent alone is declared."""
    _declare("solver")


@pytest.fixture
def declare_roles(isolate: None) -> None:
    """The roles of the agent of two roles are declared."""
    _declare(*ROLES)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """The model of the agent of two roles, which says what its instruction tells it to say."""
    with ModelServer(obey) as server:
        monkeypatch.setenv("SCRIPTED_URL", server.url)
        yield server


@pytest.fixture
def reflector() -> Iterator[ModelServer]:
    """A reflecting model that adds the first word that an example lacks."""
    with ModelServer(reflecting) as server:
        yield server


@pytest.fixture
def proposer() -> Iterator[ModelServer]:
    """A reflecting model that proposes texts by the length of its question."""
    with ModelServer(propose) as server:
        yield server
