"""The embedded backend's process: one model, its engine and its learner, behind one HTTP port."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from lightning_embedded.chat import Chat
from lightning_embedded.engine import Engine
from lightning_embedded.learner import Learner
from lightning_embedded.server import make_app
from lightning_embedded.training import Training
from lightning_process.fingerprint import fingerprint
from lightning_process.model import load
from lightning_process.program import Built, Config, run
from lightning_process.routes import LearnerRoutes

#: Models below this size decode faster on one thread than on two that wait for each other.
_SMALL = 30_000_000


def build(config: Config) -> Built:
    """Load the model; its engine and its learner."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    settings = config.settings
    loaded = load(settings.model)
    size = sum(each.numel() for each in loaded.model.parameters())
    asynchronous = settings.rollouts.staleness > 0
    decoding, learning = _threads(size, asynchronous)
    torch.set_num_threads(learning)
    engine = Engine(loaded.model, loaded.tokenizer, max_slots=settings.rollouts.concurrency, threads=decoding)
    name = Path(loaded.source.name).name
    app = make_app(engine, Chat(loaded.tokenizer, engine.decode), name, config.key)
    facts: dict[str, object] = {"max_length": engine.max_length, "tokenizer": fingerprint(loaded.tokenizer)}
    training = Training(Learner(loaded.model, settings), engine, loaded, facts, asynchronous=asynchronous)
    # Thread counts are per thread in OpenMP: the learner's has its own, apart from the engine's.
    LearnerRoutes(training, lambda: torch.set_num_threads(learning)).add_to(app)
    return Built(app, name, training.facts())


def _threads(size: int, asynchronous: bool) -> tuple[int, int]:
    """For the engine and for the learner of a model with `size` parameters: all cores for each, if they take turns."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asynchronous:
        decoding = 1 if size < _SMALL else max(1, cores // 2)
        return decoding, max(1, cores - decoding)
    return 1 if size < _SMALL else cores, cores


if __name__ == "__main__":
    run(build)
