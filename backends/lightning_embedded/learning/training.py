"""Training: runs the learner for the hub, and publishes new weights to the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightning_embedded.engine.engine import Weights
from lightning_embedded.learning import checkpoint
from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Batch, Row, Update
from lightning_process.model import LoadedModel


class Publishing(Protocol):
    """What the learner needs from any engine."""

    def pause(self) -> None:
        """Generate no more tokens; requests are kept and still accepted."""
        ...

    def resume(self) -> None: ...

    def publish(self, state: Weights, version: int) -> None:
        """Serve these weights from the next token on. Returns when they are in place."""
        ...


class Training:
    """A learner and its engine, as `lightning_process.routes.TrainingService`.

    The engine is paused while the learner computes, unless training is `asynchronous`: then rollouts continue with the
    previous version, and only the publication interrupts them. The engine has its own copy of the weights either way.
    """

    def __init__(
        self,
        learner: Learner,
        engine: Publishing,
        loaded: LoadedModel,
        facts: dict[str, object],
        *,
        asynchronous: bool,
        name: Callable[[Any, Weights], Weights] = lambda _, weights: weights,
    ) -> None:
        """`name`: converts a model's weights to the engine's names."""
        self._name = name
        self._learner, self._engine, self._loaded, self._facts = learner, engine, loaded, facts
        self._asynchronous = asynchronous

    def facts(self) -> dict[str, object]:
        return self._learner.facts() | self._facts

    def update(self, batch: Batch) -> Update:
        if self._asynchronous:
            return self._learn(batch)
        # All cores are for the learner. Running requests wait, and then continue with the new weights.
        self._engine.pause()
        try:
            return self._learn(batch)
        finally:
            self._engine.resume()

    def _learn(self, batch: Batch) -> Update:
        update = self._learner.update(batch)
        self._publish()
        return update

    def score(self, rows: Sequence[Row], what: str) -> list[NDArray[np.float32]]:
        return self._learner.score(rows, what)

    def save(self, folder: Path) -> int:
        checkpoint.write(folder, self._learner.model, self._loaded.tokenizer, self._learner.state())
        return self._learner.version

    def load(self, folder: Path) -> int:
        found = checkpoint.read(folder)
        self._learner.restore(found.weights, found.state)
        self._publish()
        return self._learner.version

    def _publish(self) -> None:
        model = self._learner.model
        self._engine.publish(self._name(model, model.state_dict()), self._learner.version)
