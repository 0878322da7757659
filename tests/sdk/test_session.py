"""One process streams to one hub: what needs the stream keeps it until it ends."""

from pathlib import Path

import pytest

import lightning_sdk as lightning
from lightning_sdk import session
from lightning_sdk.errors import LightningError

NOBODY, ANOTHER = "tcp://127.0.0.1:9", "tcp://127.0.0.1:10"


def agent(task: dict[str, str]) -> str:
    return task["text"]


def test_a_second_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also an evaluation and a check; it says what is under way, before anything is made; afterwards it may begin."""
    monkeypatch.chdir(tmp_path)
    running = session.start()
    with running.reserve("train() of solve"):
        for begin in (lightning.train, lightning.evaluate, lightning.check):
            with pytest.raises(LightningError, match=r"of agent cannot begin: train\(\) of solve is under way"):
                begin(agent, [{"text": letter} for letter in "abcdefgh"], lambda *_: 1.0)
    assert not (tmp_path / "runs").exists()
    with running.reserve("check() of agent"):
        assert running.reserved_for == "check() of agent"


def test_an_agent_that_sets_itself_up_does_not_end_its_training(caplog: pytest.LogCaptureFixture) -> None:
    """`init()` and `shutdown()` in code that a rollout runs leave the stream where it is."""
    running = session.start(frozenset())
    with running.reserve("train() of solve"), running.stream_to(NOBODY, "key", lambda: False):
        stream = running.stream
        lightning.init(ANOTHER, "other")
        lightning.shutdown(0.1)
        assert session.start() is running and running.stream is stream and not running.closed
    assert running.stream is None
    assert any("shutdown() was ignored, because train() of solve is under way" in each for each in caplog.messages)
    lightning.init(ANOTHER, "other")
    assert running.stream is not None and running.stream.address == ANOTHER
    lightning.shutdown(0.1)
    assert running.closed


def test_the_stream_goes_back_to_where_it_was() -> None:
    """After a training the process streams to the hub that it streamed to before."""
    running = session.start(frozenset())
    running.attach(ANOTHER, "other")
    with running.reserve("train() of solve"), running.stream_to(NOBODY, "key", lambda: False):
        assert running.stream is not None and running.stream.address == NOBODY
    assert running.stream is not None and running.stream.address == ANOTHER
