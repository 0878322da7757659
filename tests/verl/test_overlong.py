"""What a long answer loses equals what VERL's DAPO reward takes off, up to the limit."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from verl import DataProto

from lightning_hub.credit.batch import build_batch
from lightning_sdk.settings import Settings
from tests.trajectories.conversations import call, rollout
from tests.verl.responses import PROMPT

Theirs = Callable[..., Any]
SHAPED = "length.limit=20 length.buffer=8 length.penalty=0.5"


def ours(settings: Settings, tokens: int) -> float:
    """What a token of an answer so long is credited with, of a reward of 1."""
    settings = Settings.from_dict({**settings.flat(), "credit.advantage": "reinforce"})
    answer = ([5] * tokens, [-1.0] * tokens)
    (row,) = build_batch([rollout(1, call(1, PROMPT, answer), rewards={"": 1.0})], settings).rows
    return float(row.advantages[row.weights != 0][0])


def verl(theirs: Theirs, settings: Settings, tokens: int) -> float:
    """The same by VERL's reward manager, whose tokenizer and reward function do not matter here."""
    length = settings.length
    buffer = SimpleNamespace(enable=True, len=length.buffer, penalty_factor=length.penalty, log=False)
    tokenizer = SimpleNamespace(decode=lambda *_, **__: "", eos_token="</s>")
    manager = theirs(tokenizer, 0, lambda **_: 1.0, max_resp_len=length.limit, overlong_buffer_cfg=buffer)
    prompts, answers = torch.ones(1, 3, dtype=torch.long), torch.ones(1, tokens, dtype=torch.long)
    data = DataProto.from_dict(
        {"prompts": prompts, "responses": answers, "attention_mask": torch.ones(1, 3 + tokens, dtype=torch.long)},
        {"reward_model": np.array([{"ground_truth": ""}]), "data_source": np.array(["x"])},
    )
    return float(manager(data).sum())


@pytest.mark.same("reward_manager.DAPORewardManager", SHAPED)
def test_soft_overlong_punishment(theirs: Theirs, settings: Settings) -> None:
    """Nothing before the buffer, then linearly more up to the whole penalty at the limit."""
    lengths = range(1, 21)
    own = [ours(settings, tokens) for tokens in lengths]
    assert own == pytest.approx([verl(theirs, settings, tokens) for tokens in lengths], abs=1e-6)
    assert own[11] == 1.0 > own[12] > own[19] == 0.5


@pytest.mark.differs("reward_manager.DAPORewardManager", SHAPED)
def test_beyond_the_limit(theirs: Theirs, settings: Settings) -> None:
    """VERL's answers cannot be longer than its limit; beyond it, its formula would go on falling. Ours counts
    everything that a role said in a rollout, which can be longer, and subtracts at most the penalty (DAPO, eq. 13)."""
    assert ours(settings, 36) == 0.5
    assert verl(theirs, settings, 36) == pytest.approx(1 - 0.5 * (36 - 12) / 8)
