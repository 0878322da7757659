"""The VERL backend without Ray: what it makes of settings and rows, what it refuses, and the loss of its workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from verl.utils.tensordict_utils import assign_non_tensor

from lightning_hub.backend import Row
from lightning_losses.loss import ppo
from lightning_losses.ratio import importance
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_verl import rows
from lightning_verl.config import RunPlacement, configuration
from lightning_verl.loss import LossRules, policy_loss
from lightning_verl.process import refuse

PLACE = RunPlacement(device="cpu", nodes=1, gpus=1, model="spark", name="spark", max_length=512)


def row(rollout: str, length: int, sampled: int, seed: int = 0) -> Row:
    """The last `sampled` of `length` tokens, but one in their middle, count."""
    random = np.random.default_rng(seed)
    weights = np.zeros(length, np.float32)
    weights[-sampled:] = 0.25
    weights[length - sampled // 2 - 1] = 0.0 if sampled > 2 else 0.25
    sign = np.where(weights != 0, 1, 0).astype(np.float32)
    tokens = random.integers(5, 90, length).astype(np.int32)
    return Row(
        tokens=tokens,
        weights=weights,
        advantages=sign * random.normal(),
        logprobs=-sign,
        temperature=1.0,
        version=3,
        role="solver",
        rollout=rollout,
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"credit.advantage": "gae"}, "credit.advantage='gae': the VERL backend cannot train a value head"),
        ({"algorithm.loss": "gspo"}, "algorithm.loss='gspo'"),
        ({"importance.level": "sequence"}, "use 'token'"),
        ({"divergence.place": "reward", "divergence.coefficient": 0.1}, "divergence.place='reward'"),
        ({"cluster.engine_gpus": 1}, "set rollouts.staleness=1 as well"),
        ({"engine": "embedded"}, "VERL samples with vLLM"),
        ({"vllm.port": "8000"}, "free ports are chosen"),
        ({"cluster.address": "127.0.0.1:9"}, "no Ray answers there .*ray start --head"),
    ],
)
def test_what_verl_cannot_honour_is_refused(given: dict[str, object], words: str) -> None:
    """With the setting's name and the way out, before anything starts."""
    with pytest.raises(SettingError, match=words):
        refuse(Settings.from_dict(given))


def test_settings_become_verls() -> None:
    """Ours by meaning, the user's by name, and what the backend needs over both."""
    settings = Settings.from_dict(
        {
            "optimizer.max_norm": 0.5,
            "lora.rank": 8,
            "actor_rollout_ref.rollout.max_num_seqs": "17",
            "verl.algorithm.gamma": "0.9",
            "vllm.swap_space": 2,
            "trainer.save_freq": "5",
            "actor_rollout_ref.actor.fsdp_config.mixed_precision.reduce_dtype": "fp32",
        }
    )
    config = configuration(settings, PLACE, Path("run"))
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.grad_clip, config.actor_rollout_ref.model.lora_rank, rollout.max_num_seqs) == (0.5, 8, 17)
    assert (config.algorithm.gamma, rollout.engine_kwargs.vllm.swap_space) == (0.9, 2)
    assert config.trainer.save_freq == -1, "the hub saves"
    assert actor.fsdp_config.mixed_precision.reduce_dtype == "fp32"


APART = {"cluster.engine_gpus": 1, "rollouts.staleness": 1}


@pytest.mark.parametrize(
    ("given", "device", "words"),
    [
        ({"serving.tensor_parallel": 2}, "cpu", "must divide the number of GPUs that serve, 1"),
        ({"serving.replicas": 2}, "cpu", "VERL starts 1 vLLM servers on 1 GPUs"),
        (APART | {"actor_rollout_ref.rollout.checkpoint_engine.backend": "naive"}, "cpu", "weights have to be sent"),
        (APART, "cuda", "install cupy-cuda12x"),  # it is not in this environment
    ],
)
def test_what_does_not_fit_the_gpus_is_refused(given: dict[str, object], device: str, words: str) -> None:
    """Before VERL starts anything, with the way out."""
    with pytest.raises(SettingError, match=words):
        configuration(Settings.from_dict(given), replace(PLACE, device=device), Path("run"))


def test_separate_gpus_for_vllm() -> None:
    """VERL's mode for that, without servers on the learner's GPUs, and one transfer for each step of the hub."""
    config = configuration(Settings.from_dict(APART | {"cluster.engine_gpus": 3}), PLACE, Path("run"))
    rollout, trainer = config.actor_rollout_ref.rollout, config.trainer.v1
    assert (rollout.nnodes, rollout.n_gpus_per_node, config.actor_rollout_ref.hybrid_engine) == (1, 3, False)
    assert (trainer.trainer_mode, trainer.separate_async.parameter_sync_step) == ("separate_async", 1)
    assert rollout.checkpoint_engine.backend != "naive"


def test_a_name_that_verl_does_not_have() -> None:
    """The nearest one is named."""
    settings = Settings.from_dict({"actor_rollout_ref.actor.clip_ration": "0.3"})
    with pytest.raises(SettingError, match=r"no such setting; did you mean actor_rollout_ref\.actor\.clip_ratio"):
        configuration(settings, PLACE, Path("run"))


def test_a_replaced_name_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Not silently: with both values."""
    configuration(Settings.from_dict({"trainer.save_freq": "5"}), PLACE, Path("run"))
    assert "setting trainer.save_freq='5' has no effect: this backend requires -1" in caplog.text


@pytest.mark.parametrize(("steps", "processes"), [(1, 1), (1, 4), (2, 2), (3, 2), (5, 1)])
def test_rows_are_filled_up_and_never_dropped(steps: int, processes: int) -> None:
    """Each process has as many of each step, the whole loss is there, and no rollout is in two steps."""
    given = [row(f"{place // 2}", 12, 4, place) for place in range(7)]
    made = rows.order_rows(given, steps, processes)
    share = len(made) // processes
    assert len(made) == share * processes and share % steps == 0
    where: dict[str, set[int]] = {}
    for place, each in enumerate(made):
        if each.weights.any():
            where.setdefault(each.rollout, set()).add(place % share // (share // steps))
    assert len(where) == 4 and all(len(found) == 1 for found in where.values())
    if steps == 1:
        assert sum(each.weights.sum() for each in made) == pytest.approx(sum(each.weights.sum() for each in given))


def nest(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(values, layout=torch.jagged)


def test_the_loss_is_the_plain_sum_of_the_hubs_weights() -> None:
    """In the functions that every backend uses; rows of no weight add nothing; processes' gradients are averaged."""
    settings = Settings.from_dict({"importance.high": 1.5})
    given = [row("a", 10, 5, 1), row("b", 7, 3, 2)]
    given.append(replace(given[0], weights=np.zeros_like(given[0].weights)))
    data = rows.columns(given, ["solver"])
    assign_non_tensor(data, dp_size=2, roles=1)
    logprobs = [torch.randn(len(each.tokens)).sub(1.5).requires_grad_() for each in given]
    loss, metrics = policy_loss(LossRules(settings), {"log_probs": nest(logprobs)}, data)
    expected = torch.zeros(())
    for each, values in zip(given, logprobs, strict=True):
        counted = np.flatnonzero(each.weights)
        mine = values[counted - 1]  # VERL's log-probs stand where the token before them is
        weights, advantages, sampler = (
            torch.from_numpy(getattr(each, name)[counted]) for name in ("weights", "advantages", "logprobs")
        )
        rho = importance(mine.detach() - sampler, kind="truncate", low=0.5, high=1.5).weights
        surrogate = ppo(mine, mine.detach(), advantages, clip_low=0.2, clip_high=0.28)
        expected = expected + (weights * rho * surrogate.loss).sum()
    assert float(loss) == pytest.approx(2 * float(expected), rel=1e-5)
    ours, theirs = (torch.autograd.grad(each, logprobs, retain_graph=True) for each in (loss, 2 * expected))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(ours, theirs, strict=True))
    assert not ours[2].any() and metrics["0/count"].aggregate() == sum(np.count_nonzero(each.weights) for each in given)
