"""What fits on GPUs is told before anything is loaded: from the shapes of real models, on GPUs that are not here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import GraniteConfig, LlamaConfig, Qwen2Config

from lightning_embedded.learning.memory import check_fit, room_of_engine
from lightning_embedded.learning.memory import estimate as estimate_torch
from lightning_process.anatomy import Anatomy
from lightning_process.dissection import dissect
from lightning_process.memory_need import GB
from lightning_sdk.errors import ModelError, SettingError
from lightning_sdk.settings import Settings
from lightning_verl.checkpoint import SHARDS, VerlCheckpoint, checkpoint_bytes, finish, read
from lightning_verl.config import RunPlacement, configuration
from lightning_verl.memory import ENGINE, estimate

LLAMA_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    tie_word_embeddings=False,
)
QWEN_1_5B = Qwen2Config(
    vocab_size=151936,
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
QWEN_7B = Qwen2Config(
    vocab_size=152064,
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    tie_word_embeddings=False,
)
H200, H100 = 150.8 * GB, 85.0 * GB


def anatomy(config: Any) -> Anatomy:
    found = dissect(config)
    assert found is not None
    return found


def configure(config: Any, gpu: float, gpus: int = 1, **given: Any) -> Any:
    place = RunPlacement(
        device="cuda",
        nodes=1,
        gpus=gpus,
        model="model",
        name="model",
        max_length=4096,
        anatomy=anatomy(config),
        gpu_bytes=int(gpu),
    )
    return configuration(Settings.from_dict(given), place, Path("run"))


def test_a_model_is_measured_without_its_weights() -> None:
    """By its own class: parameters to the last one, and a head that is shared is counted once."""
    found = anatomy(LLAMA_8B)
    assert (found.parameters, found.layers, found.head) == (8_030_261_248, 32, 128256 * 4096)
    tied = anatomy(QWEN_1_5B)
    assert tied.parameters == 1_543_714_304 and tied.head == 151936 * 1536 and tied.plain_head


def test_what_does_not_fit_next_to_vllm_waits_in_host_memory(caplog: pytest.LogCaptureFixture) -> None:
    """The optimizer first, and the log says so; a small model has room, and who says otherwise is heeded."""
    engine = configure(LLAMA_8B, H200).actor_rollout_ref.actor.fsdp_config
    assert (engine.optimizer_offload, engine.param_offload) == (True, False)
    assert f"{ENGINE}.optimizer_offload=true" in caplog.text and "vLLM 75.4 GB" in caplog.text
    assert not configure(QWEN_1_5B, H200).actor_rollout_ref.actor.fsdp_config.optimizer_offload
    with pytest.raises(SettingError, match=r"do not fit on a GPU of 151 GB together: .*optimizer_offload=true"):
        configure(LLAMA_8B, H200, **dict.fromkeys((f"{ENGINE}.optimizer_offload", f"{ENGINE}.param_offload"), "false"))


@pytest.mark.parametrize(
    ("gpu", "given", "words"),
    [
        (
            H100,
            {},
            r"an update of 8\.0 billion parameters on 1 GPU of 85 GB takes about 140 GB of each: optimizer 64\.2"
            r" GB.*set cluster\.gpus=2, lora\.rank=16, or .*offload_policy=true",
        ),
        (24 * GB, {}, r"serving\.memory=0\.5: vLLM's share of a GPU is 12 of 24 GB, but .* take 16 GB;"),
    ],
)
def test_what_cannot_fit_is_refused_with_what_to_set(gpu: float, given: dict[str, Any], words: str) -> None:
    """By the numbers, the largest first."""
    with pytest.raises(SettingError, match=words):
        configure(LLAMA_8B, gpu, **given)


def test_what_was_said_helps() -> None:
    """More GPUs, adapters, or weights in host memory: each fits, and so it is taken."""
    for gpus, given in ((4, {}), (1, {"lora.rank": 16}), (1, {f"{ENGINE}.offload_policy": "true"})):
        config = configure(LLAMA_8B, H100, gpus, **given)
        fit = estimate(config, anatomy(LLAMA_8B), int(H100), apart=False)
        assert max(fit.updating.total, fit.serving.total) < H100


def test_logits_are_the_difference_of_fused_kernels() -> None:
    """Without them each token of a micro-batch has a number for every word."""
    found = [
        estimate(configure(QWEN_1_5B, H200, **given), anatomy(QWEN_1_5B), int(H200), apart=False).updating
        for given in ({}, {"actor_rollout_ref.model.use_fused_kernels": "false"})
    ]
    assert found[0].parts["logits"] < 2 * GB < 9 * GB < found[1].parts["logits"]


def test_a_checkpoint_can_be_the_model_alone(tmp_path: Path) -> None:
    """Then it takes a quarter of the disk, and is refused where a run would go on from it; nothing else is left out."""
    name = "actor_rollout_ref.actor.checkpoint.save_contents"
    whole, alone = configure(LLAMA_8B, H200), configure(LLAMA_8B, H200, **{name: "[hf_model]"})
    size = checkpoint_bytes(whole, anatomy(LLAMA_8B))
    assert size == 16 * 8_030_261_248 == 4 * checkpoint_bytes(alone, anatomy(LLAMA_8B))
    with pytest.raises(SettingError, match=r"save_contents=\['model', 'hf_model'\]: .* or \[hf_model\] alone"):
        configure(LLAMA_8B, H200, **{name: "[model,hf_model]"})
    finish(tmp_path, VerlCheckpoint(3, 3))
    with pytest.raises(ModelError, match=r"the model alone, without the optimizer .* --model "):
        read(tmp_path)
    (tmp_path / SHARDS).mkdir()
    (tmp_path / SHARDS / "model_world_size_1_rank_0.pt").touch()
    assert read(tmp_path) == (3, 3)


def test_fused_kernels_are_for_plain_heads() -> None:
    """One that the user asks for where the head does more is refused: it would train on another distribution."""
    scaled = GraniteConfig(hidden_size=64, num_attention_heads=2, num_hidden_layers=1, logits_scaling=3.0)
    for config in (QWEN_1_5B, scaled):
        place = RunPlacement(
            device="cuda", nodes=1, gpus=1, model="model", name="model", max_length=4096, anatomy=anatomy(config)
        )
        chosen = configuration(Settings(), place, Path("run")).actor_rollout_ref.model.use_fused_kernels
        assert chosen == (config is QWEN_1_5B)
    asked = Settings.from_dict({"actor_rollout_ref.model.use_fused_kernels": "true"})
    with pytest.raises(SettingError, match=r"use_fused_kernels=True: .*ignore the rest of it"):
        configuration(asked, place, Path("run"))
    adapted = Settings.from_dict({"lora.rank": 4, "lora.targets": "q_proj,lm_head"})
    place = RunPlacement(
        device="cuda", nodes=1, gpus=1, model="model", name="model", max_length=4096, anatomy=anatomy(QWEN_1_5B)
    )
    assert not configuration(adapted, place, Path("run")).actor_rollout_ref.model.use_fused_kernels


def test_the_torch_learner_says_what_it_needs(caplog: pytest.LogCaptureFixture) -> None:
    """All of a model is on one GPU there: eight billion parameters are refused, and what is close is warned of."""
    settings = Settings()
    big = estimate_torch(settings, anatomy(LLAMA_8B), gpu=True, served=0.5 * H200)
    words = r"training 8\.0 billion parameters here takes about \d+ of the 151 GB of .*: the engine 75\.4 GB, .*; ways"
    with pytest.raises(SettingError, match=words):
        check_fit(settings, big, H200, "ways", gpu=True)
    alone = estimate_torch(settings, anatomy(LLAMA_8B), gpu=True, served=0.0)
    check_fit(settings, alone, H200, "ways", gpu=True)
    assert "lower optimizer.micro_batch_tokens=4096" in caplog.text
    room = {"8B": big, "7B": estimate_torch(settings, anatomy(QWEN_7B), gpu=True, served=0.4 * H200)}
    spare = {"8B": 0.5 * H200 - 16 * GB, "7B": 0.4 * H200 - 15 * GB}
    told = {name: room_of_engine(need, 155 * GB, spare[name]) for name, need in room.items()}
    assert told == {"8B": "give vLLM another GPU, or ", "7B": "lower serving.memory, give vLLM another GPU, or "}
    assert room_of_engine(big, H100, spare["8B"]) == "", "nothing of vLLM's share would be enough"
    caplog.clear()
    check_fit(settings, estimate_torch(settings, anatomy(QWEN_1_5B), gpu=True, served=0.5 * H200), H200, "", gpu=True)
    assert not caplog.text
