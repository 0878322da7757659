"""Learning under constraints: the gradient is that of the distribution that is left, and agents get better by it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_embedded.constraints.constraint import Constraints
from lightning_embedded.engine.engine import Engine
from lightning_embedded.engine.sequence import Params, Sequence
from lightning_embedded.learning.learner import Learner
from lightning_embedded.serving.chat import Chat
from lightning_embedded.text.growing_text import Decode
from lightning_hub.backend import Batch, Constrained, Row
from lightning_hub.trajectories.constraint import constraint_of
from lightning_process.model import load
from lightning_sdk.settings import Settings
from tests.learner.gradients import gradients
from tests.learner.tinymodel import SETTINGS, make_row

PROMPT = [5, 6, 7]
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["yes", "yet", "no", 17, 170]}}}
CONSTRAINT = constraint_of({"response_format": FORM})


def constraints_of(folder: Path) -> Constraints:
    tokenizer = load(str(folder)).tokenizer
    return Chat(tokenizer, Decode(tokenizer, [tokenizer.eos_token_id])).constraints(260)


def learner_of(folder: Path, **settings: object) -> Learner:
    given = Settings.from_dict({**SETTINGS, "optimizer.max_norm": 1e9, **settings})
    return Learner(load(str(folder)).model, given, constraints=constraints_of(folder))


def completions(constraints: Constraints, end: int, said: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Every one that the constraint allows, up to its end."""
    state, bits = constraints.start(CONSTRAINT), np.zeros(constraints.width, np.int32)
    assert all(state.accept(token) for token in said)
    state.fill(bits)
    for token in np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")).tolist():
        if token == end:
            yield (*said, token)
        else:
            yield from completions(constraints, end, (*said, token))


def row_of(said: tuple[int, ...], advantage: float, weight: float, rollout: str) -> Row:
    tokens, first = [*PROMPT, *said], len(PROMPT)
    row = make_row(tokens, range(first, len(tokens)), advantage, weight, rollout=rollout)
    return replace(row, constraints=(Constrained(first, len(tokens), CONSTRAINT),))


def everything(folder: Path, learner: Learner) -> list[Row]:
    """A row for each completion there is, with what it is worth as its advantage and its probability as its weight."""
    tokenizer = load(str(folder)).tokenizer
    found = sorted(completions(constraints_of(folder), tokenizer.eos_token_id))
    texts = [json.loads(tokenizer.decode(said[:-1])) for said in found]
    assert {*texts} == {"yes", "yet", "no", 17, 170}
    rows = []
    for place, (said, text) in enumerate(zip(found, texts, strict=True)):
        row = row_of(said, {"yes": 1.0, "no": -2.0, 170: 0.5}.get(text, 0.0), 1.0, str(place))
        logprobs = np.array(learner.logprobs(row), np.float32)
        row.logprobs[len(PROMPT) :] = logprobs
        row.weights[len(PROMPT) :] = np.exp(logprobs.sum(dtype=np.float64))
        rows.append(row)
    return rows


def worth(learner: Learner, rows: list[Row]) -> float:
    """What a completion is worth on average."""
    return sum(float(np.exp(np.sum(learner.logprobs(row)))) * float(row.advantages[-1]) for row in rows)


def test_the_gradient_is_that_of_the_expected_reward(tiny: Path) -> None:
    """Over all completions there are, which have probability 1 together: exactly what finite differences say."""
    learner = learner_of(tiny, **{"importance.kind": "off"})
    rows = everything(tiny, learner)
    assert sum(float(row.weights[-1]) for row in rows) == pytest.approx(1.0, abs=1e-5)
    before = {name: each.clone() for name, each in learner.model.state_dict().items()}
    (gradient,) = gradients(rows, learner=learner)
    learner.model.load_state_dict(before)
    parameters = list(learner.model.parameters())
    generator = torch.Generator().manual_seed(1)
    for direction in [
        gradient / gradient.norm(),
        torch.randn(len(gradient), generator=generator) / len(gradient) ** 0.5,
    ]:
        values = []
        for step in (2e-3, -2e-3):
            learner.model.load_state_dict(before)
            at = 0
            with torch.no_grad():
                for each in parameters:
                    each.add_(step * direction[at : at + each.numel()].view_as(each))
                    at += each.numel()
            values.append(worth(learner, rows))
        slope = (values[0] - values[1]) / 4e-3
        assert -float(gradient @ direction) == pytest.approx(slope, rel=0.02, abs=2e-4)


def test_forced_tokens_have_no_gradient(tiny: Path) -> None:
    """Where one id is left there is nothing to learn, whatever it earned."""
    tokenizer = load(str(tiny)).tokenizer
    only = constraint_of({"response_format": {**FORM, "json_schema": {"name": "a", "schema": {"const": "yes"}}}})
    said = (*tokenizer.encode('"yes"', add_special_tokens=False), tokenizer.eos_token_id)
    row = replace(row_of(said, 1.0, 1.0, "r"), constraints=(Constrained(len(PROMPT), len(PROMPT) + len(said), only),))
    learner = learner_of(tiny)
    assert learner.logprobs(row) == [0.0] * len(said)
    (gradient,) = gradients([row], learner=learner)
    assert float(gradient.abs().max()) == 0.0


def test_reference_entropy_and_old_log_probs_are_of_what_is_left(tiny: Path) -> None:
    """A policy that is its reference has no divergence from it, and an entropy no larger than the choices left."""
    learner = learner_of(
        tiny, **{"divergence.coefficient": 0.1, "algorithm.entropy": 0.01, "algorithm.mini_batches": 2}
    )
    rows = everything(tiny, learner)
    scores = learner.score(rows, "reference")
    for row, found in zip(rows, scores, strict=True):
        np.testing.assert_allclose(found, row.logprobs, atol=1e-4)
    metrics = learner.update(Batch(1, rows)).metrics
    assert metrics["kl_reference"] == pytest.approx(0, abs=1e-5)
    assert abs(metrics["kl_sampler"]) < 1e-5 and metrics["kl_sampler_max"] < 1e-4
    assert 0 < metrics["entropy"] < 1.0 < np.log(260)


def test_a_constrained_policy_learns(tiny: Path) -> None:
    """Sampled by the engine and trained on by the learner, round after round, what is worth more is said more."""
    loaded = load(str(tiny))
    constraints = constraints_of(tiny)
    engine = Engine(loaded.model, loaded.tokenizer, max_slots=32)
    learner = learner_of(tiny, **{"optimizer.max_norm": 1.0})
    shares: list[float] = []
    done, left = threading.Event(), [0]

    def hear(finished: list[Sequence]) -> None:
        left[0] = (left[0] + len(finished)) % 32
        if not left[0]:
            done.set()

    try:
        for step in range(6):
            waiting: list[Sequence] = []
            for index in range(32):
                params = Params(max_tokens=12, seed=step, index=index)
                waiting.append(Sequence(PROMPT, params, hear, constraint=constraints.start(CONSTRAINT)))
            engine.submit(waiting)
            done.wait(60)
            done.clear()
            texts = [json.loads(engine.decode.body(each.token_ids)) for each in waiting]
            shares.append(texts.count("no") / 32)
            rows = []
            for index, (each, text) in enumerate(zip(waiting, texts, strict=True)):
                row = row_of(tuple(each.token_ids), (text == "no") - shares[-1], 1 / 32, str(index))
                row.logprobs[len(PROMPT) :] = each.logprobs
                rows.append(row)
            update = learner.update(Batch(step, rows))
            assert update.metrics["kl_sampler_max"] < 1e-4
            engine.publish(learner.model.state_dict(), update.version)
    finally:
        engine.close()
    assert shares[0] < 0.3 and min(shares[-2:]) > 0.9
