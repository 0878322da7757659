"""The embedded backend's process: one model with its engine and its learner, each behind its own port."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from lightning_embedded import vllm
from lightning_embedded.engine.engine import Engine
from lightning_embedded.engine.precision import packed_dtype
from lightning_embedded.learning.learner import Learner
from lightning_embedded.learning.memory import check_memory
from lightning_embedded.learning.training import Training
from lightning_embedded.serving.chat import Chat
from lightning_embedded.serving.server import make_app
from lightning_embedded.threads import threads
from lightning_process.dissection import dissect
from lightning_process.fingerprint import fingerprint
from lightning_process.model import LoadedModel, load
from lightning_process.program import BackendConfig, ReadyBackend, run
from lightning_process.routes import LearnerRoutes
from lightning_sdk.settings import Settings


def build(config: BackendConfig) -> ReadyBackend:
    """Load the model, and create its engine and its learner."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    return vllm.build(config) if config.settings.engine == "vllm" else _build(config)


def _build(config: BackendConfig) -> ReadyBackend:
    settings = config.settings
    loaded = load(settings.model)
    _check_memory(settings, loaded)
    size = sum(each.numel() for each in loaded.model.parameters())
    asynchronous = settings.rollouts.staleness > 0
    decoding, learning = threads(size, asynchronous)
    torch.set_num_threads(learning)
    engine = Engine(loaded.model, loaded.tokenizer, max_slots=settings.rollouts.concurrency, threads=decoding)
    name = Path(loaded.source.name).name
    chat = Chat(loaded.tokenizer, engine.decode)
    app = make_app(engine, chat, name, config.key)
    facts: dict[str, object] = {"max_length": engine.max_length, "tokenizer": fingerprint(loaded.tokenizer)}
    facts["tool_parser"] = chat.tools.name if chat.tools is not None else "none: no chat template"
    learner = Learner(loaded.model, settings, constraints=chat.constraints(engine.decoder.vocabulary))
    training = Training(learner, engine, loaded, facts, asynchronous=asynchronous)
    config.phases.end("model")
    # OpenMP's thread count belongs to the calling thread, so the learner's thread sets its own.
    routes = LearnerRoutes(training, lambda: torch.set_num_threads(learning))
    return ReadyBackend(app, routes, name, training.facts())


def _check_memory(settings: Settings, loaded: LoadedModel) -> None:
    anatomy = dissect(loaded.model.config)
    packed = packed_dtype(loaded.model)
    width = 4.0 + (packed.itemsize if packed else 0)  # the engine's weights, and their packed form
    held = width * anatomy.parameters if anatomy else 0.0
    check_memory(settings, anatomy, held, "use a smaller model, or a GPU with backend=verl (docs/verl.md)")


if __name__ == "__main__":
    run(build)
