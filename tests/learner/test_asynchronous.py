"""Asynchronous training: the engine serves on while the learner computes, and every token knows its model."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
import torch
from aiohttp import web
from transformers import PreTrainedModel

from lightning_embedded.engine.engine import Engine
from lightning_embedded.engine.sequence import Params, Sequence
from lightning_embedded.learning.learner import Learner
from lightning_embedded.learning.training import Training
from lightning_embedded.serving.chat import Chat
from lightning_embedded.serving.server import make_app
from lightning_hub.backend import Batch, Update
from lightning_process.model import load
from lightning_process.routes import LearnerRoutes
from lightning_process.transport import pack_batch
from lightning_sdk.settings import Settings
from lightning_sdk.stream.wire import unpack
from tests.learner.tinymodel import make_group_rows

SETTINGS = {"optimizer.learning_rate": 1e-2, "optimizer.warmup_steps": 0}
PROMPT = [5, 6, 7]


class Backend:
    """Engine, learner and routes as the child process puts them together; `between` runs between update and publish."""

    def __init__(self, folder: Path, asynchronous: bool) -> None:
        loaded = load(str(folder))
        self.before, self._after = (load(str(folder)).model for _ in range(2))
        self.engine = Engine(loaded.model, loaded.tokenizer, max_slots=4)
        self.learner = Learner(loaded.model, Settings.from_dict(SETTINGS))
        self.between: Callable[[], None] = lambda: None
        update = self.learner.update

        def then(batch: Batch) -> Update:
            made = update(batch)
            self.between()
            return made

        self.learner.update = then  # type: ignore[method-assign]
        self.app = make_app(self.engine, Chat(loaded.tokenizer, self.engine.decode), "tiny", "key")
        training = Training(self.learner, self.engine, loaded, {}, asynchronous=asynchronous)
        self.learner_app = LearnerRoutes(training).app("the learner's")
        self.port = self.learner_port = 0

    def after(self) -> PreTrainedModel:
        """The learner's model as it is now, in plain attention."""
        self._after.load_state_dict(self.learner.model.state_dict())
        return self._after

    def update(self) -> int:
        """Over HTTP; the version."""
        connection = HTTPConnection("127.0.0.1", self.learner_port, timeout=60)
        body = pack_batch(Batch(1, make_group_rows()))
        connection.request("POST", "/learner/update", body, {"Authorization": "Bearer the learner's"})
        response = connection.getresponse()
        answer = unpack(response.read())
        connection.close()
        assert response.status == 200, answer
        return int(answer[0])


@contextmanager
def serving(backend: Backend) -> Iterator[Backend]:
    loop, ready = asyncio.new_event_loop(), threading.Event()
    runners = [web.AppRunner(app, access_log=None, handle_signals=False) for app in (backend.app, backend.learner_app)]

    async def begin() -> None:
        for runner in runners:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        backend.port, backend.learner_port = (runner.addresses[0][1] for runner in runners)
        ready.set()

    def run() -> None:
        loop.run_until_complete(begin())
        loop.run_forever()
        for runner in runners:
            loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield backend
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        backend.engine.close()


@pytest.fixture
def asynchronous(tiny: Path) -> Iterator[Backend]:
    with serving(Backend(tiny, True)) as backend:
        yield backend


def assert_sampled_by(sequence: Sequence, models: dict[int, PreTrainedModel]) -> None:
    """Each token's log-probability is that of the model whose version it is stamped with."""
    stamps = [version for version, count in sequence.versions for _ in range(count)]
    assert len(stamps) == len(sequence.token_ids)
    ids = torch.tensor(sequence.prompt + sequence.token_ids)
    with torch.no_grad():
        exact = {version: model(ids[None]).logits[0].log_softmax(-1) for version, model in models.items()}
    for place, (version, logprob) in enumerate(zip(stamps, sequence.logprobs, strict=True)):
        at = len(sequence.prompt) + place
        assert float(exact[version][at - 1, ids[at]]) == pytest.approx(logprob, abs=1e-3)


def test_engine_serves_the_version_before_until_the_next_is_published(asynchronous: Backend) -> None:
    """What is asked for when the learner's weights have already moved is answered, by the old weights, and says so."""
    answered: list[Sequence] = []
    asynchronous.between = lambda: answered.extend(asynchronous.engine.generate([PROMPT] * 2, Params(max_tokens=12)))
    assert asynchronous.update() == 1
    after = asynchronous.engine.generate([PROMPT] * 2, Params(max_tokens=12))
    models = {0: asynchronous.before, 1: asynchronous.after()}
    for sequence, version in [*((each, 0) for each in answered), *((each, 1) for each in after)]:
        assert {stamp for stamp, _ in sequence.versions} == {version}
        assert_sampled_by(sequence, models)
    with pytest.raises(AssertionError):
        assert_sampled_by(answered[0], {0: models[1]})


def test_completion_across_a_publication_is_stamped_token_by_token(asynchronous: Backend) -> None:
    """One that was under way goes on with the new weights."""
    begun, computed, done = threading.Event(), threading.Event(), threading.Event()

    def receive(news: list[Sequence]) -> None:
        """In the engine's thread, after each token: the fifth waits until the learner has computed."""
        if not begun.is_set() and any(len(each.token_ids) == 5 for each in news):
            begun.set()
            computed.wait(60)
        if all(each.finish for each in sequences):
            done.set()

    asynchronous.between = computed.set
    sequences = [Sequence(PROMPT, Params(max_tokens=240, index=index), receive, stream=True) for index in range(4)]
    asynchronous.engine.submit(sequences)
    assert begun.wait(60)
    assert asynchronous.update() == 1
    assert done.wait(60)
    models = {0: asynchronous.before, 1: asynchronous.after()}
    stamps = [[version for version, _ in each.versions] for each in sequences]
    assert [0, 1] in stamps and all(each in ([0], [0, 1]) for each in stamps), "a random model may end early"
    for sequence in sequences:
        assert_sampled_by(sequence, models)


def test_engine_and_learner_share_no_memory(asynchronous: Backend) -> None:
    """Before and after a publication."""
    for _ in range(2):
        learned = {each.data_ptr() for each in asynchronous.learner.model.state_dict().values()}
        served = {each.data_ptr() for each in asynchronous.engine.decoder.model.state_dict().values()}
        assert learned and served and not learned & served
        asynchronous.update()


def test_synchronous_engine_waits_for_the_learner(tiny: Path) -> None:
    """What is asked for meanwhile is answered after, by the new weights only."""
    done = threading.Event()
    sequence = Sequence(PROMPT, Params(max_tokens=3), lambda sequences: done.set())
    with serving(Backend(tiny, False)) as backend:
        backend.between = lambda: backend.engine.submit([sequence])
        assert backend.update() == 1
        assert done.wait(60)
        assert [version for version, _ in sequence.versions] == [1]
