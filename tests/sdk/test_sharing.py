"""An object of a framework that several rollouts run is told of, by its class, its name and its variable."""

from collections.abc import Iterator

import pytest

import lightning_sdk as lightning
from lightning_sdk.capture.agent_names import wrap_agent
from lightning_sdk.capture.patches import Patches
from lightning_sdk.stream import notices
from tests.sdk.framework import METHODS, Agent
from tests.sdk.recorder import Recorder

writer = Agent("writer")


@pytest.fixture(autouse=True)
def patch() -> Iterator[None]:
    patches = Patches()
    for method in METHODS:
        wrap_agent(patches, Agent, method, lambda agent, *_args: agent.name)
    yield
    patches.undo()


def shared_objects(recorder: Recorder) -> list[str]:
    return [span.attributes[notices.OBJECT] for span in recorder.spans if span.name == notices.SHARED]


def test_an_agent_of_a_module(recorder: Recorder) -> None:
    """It is told once in each further rollout, and not in its first one or outside of rollouts."""
    writer.run()
    for _ in range(3):
        with lightning.rollout():
            writer.run()
            writer.run()
    assert shared_objects(recorder) == [f"Agent 'writer' ({__name__}.writer)"] * 2


def test_agents_of_their_rollouts(recorder: Recorder) -> None:
    """One that each rollout makes is not shared, also where it gets the place in memory of an earlier one."""
    for _ in range(20):
        with lightning.rollout():
            Agent("writer").run()
    assert shared_objects(recorder) == []


def test_an_agent_that_only_the_program_holds(recorder: Recorder) -> None:
    """It is in no module's variable and has no name."""
    agent = Agent(None)
    for _ in range(2):
        with lightning.rollout():
            agent.run()
    assert shared_objects(recorder) == ["the Agent"]
