"""Constrained calls as the learner gets them, for the tests of every form."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Row
from lightning_hub.decoding.replies import decode
from lightning_hub.trajectories.trajectory import merge
from lightning_hub.trajectories.transition import transitions
from lightning_process.transport import pack_question, unpack_question
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import CallMeta
from tests.engine.served_engine import Service, make_model

ASK: list[Any] = [{"role": "user", "content": "What is twelve plus thirty?"}]


def rows(service: Service, **fields: Any) -> list[Row]:
    """What the hub makes of one call, each choice a row with all that was sampled in it."""
    body = {
        "model": "tiny",
        "messages": ASK,
        "max_tokens": 120,
        "seed": 7,
        "logprobs": True,
        "return_token_ids": True,
        **fields,
    }
    with service.client() as client:
        reply = client.post("/chat/completions", cast_to=object, body=body, options={"headers": {}})
    meta = CallMeta("1", "", "solver", True, 1, 2, "ok", "", 200, False, "/v1/chat/completions", "openai")
    made = transitions(decode(meta, json.dumps(body).encode(), json.dumps(reply).encode()))
    found = []
    for each in merge(made):
        mask = each.mask.astype(np.float32)
        found.append(
            Row(
                tokens=each.tokens,
                weights=mask,
                advantages=mask,
                logprobs=each.logprobs,
                temperature=each.temperature,
                version=0,
                role=each.role,
                rollout=each.rollout,
                constraints=each.constraints(len(each.tokens)),
            )
        )
    return unpack_question(pack_question(found, "reference"))[0]


def learner_of(service: Service, *, share: bool) -> Learner:
    constraints = service.chat.constraints(service.engine.decoder.vocabulary)
    return Learner(make_model(service.engine.decoder.vocabulary), Settings(), share=share, constraints=constraints)
