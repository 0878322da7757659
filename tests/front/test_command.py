"""What a vLLM server is told: arguments, environment, places, parsers; and what is refused before one is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import nn

from lightning_embedded.process import start
from lightning_sdk.errors import LightningError, SettingError
from lightning_sdk.settings import Settings
from lightning_vllm import command
from lightning_vllm.command import ServerPlacement
from lightning_vllm.gpu_layout import place_servers, visible_gpus
from lightning_vllm.model_info import ModelInfo
from lightning_vllm.parsers import parser_of
from lightning_vllm.sharing import in_file

CARD = ModelInfo(path="folder", template="{{ '<tool_call>' }}", max_length=2048, token_bytes=4096)
GPU = ServerPlacement(gpus=("3",), shared=True)


def settings(**given: Any) -> Settings:
    return Settings.from_dict({"engine": "vllm", **given})


def words(given: dict[str, Any] | None = None, place: ServerPlacement | None = None) -> str:
    return " ".join(command.arguments(settings(**given or {}), CARD, place or ServerPlacement(), "name", 1234)) + " "


def test_what_training_needs_is_always_asked_for() -> None:
    """Log-probs of what was drawn from, nothing out of the model's folder, the lock, and a seed for each server."""
    told = words()
    for each in (
        "--model folder ",
        "--served-model-name name ",
        "--host 127.0.0.1 --port 1234 ",
        "--logprobs-mode processed_logprobs ",
        "--generation-config vllm ",
        "--middleware lightning_vllm.auth.AuthMiddleware ",
        "--seed ",
    ):
        assert each in told
    assert words() != told  # two servers with one seed would sample alike


def test_a_cpu_and_a_gpu_are_told_different_things() -> None:
    """float32 and no compilation on a CPU; a part of the memory and the way in for weights on a GPU."""
    assert "--dtype float32 --enforce-eager --block-size 32 " in words() and "gpu" not in words()
    told = words({"serving.memory": 0.3, "serving.max_length": 99}, GPU)
    assert "--gpu-memory-utilization 0.3 " in told and "--max-model-len 99 " in told
    assert "--worker-extension-cls lightning_vllm.extension.Extension " in told and "enforce-eager" not in told
    required = {"VLLM_API_KEY": "k", "VLLM_SERVER_DEV_MODE": "1", "CUDA_VISIBLE_DEVICES": "3"}
    assert command.required_environment(GPU, "k") == required
    assert "k" not in told.split()  # the key is in the environment, which other users do not see
    assert command.environment(settings(), CARD, ServerPlacement(threads=2))["OMP_NUM_THREADS"] == "2"


def test_vllm_s_own_arguments_are_handed_on() -> None:
    """As they are; true and false become flags, and one of ours that is replaced is told."""
    given = {
        "vllm.max_num_seqs": "64",
        "vllm.enable-prefix-caching": "false",
        "vllm.async_scheduling": True,
        "vllm.dtype": "bfloat16",
        "vllm.lora_modules": ["a", "b"],
    }
    told = words(given)
    for each in (
        "--max-num-seqs 64 ",
        "--no-enable-prefix-caching ",
        "--async-scheduling ",
        "--dtype bfloat16 ",
        "--lora-modules a b ",
    ):
        assert each in told
    assert told.count("--dtype") == 1
    assert command.overridden_arguments(settings(**given), CARD, ServerPlacement()) == {"dtype": "float32"}


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        ("... <tool_call> ...", "hermes"),
        ("<tool_call>\n<function=example>", "qwen3_coder"),
        ("[TOOL_CALLS] [", "mistral"),
        ("<|python_tag|>", "llama3_json"),
        ("{{ messages }}", "none"),
    ],
)
def test_the_parser_goes_by_the_chat_template(template: str, parser: str) -> None:
    """What a template writes calls with says who reads them; where nobody is known to, none is told."""
    assert parser_of(template) == parser


def test_the_parser_can_be_chosen_or_left_out() -> None:
    """By `serving.tool_parser`."""
    assert "--enable-auto-tool-choice --tool-call-parser hermes " in words()
    assert "--tool-call-parser granite " in words({"serving.tool_parser": "granite"})
    assert "tool" not in words({"serving.tool_parser": "none"})


@pytest.mark.parametrize(
    ("gpus", "given", "found"),
    [
        ([], {}, [()]),
        ([], {"serving.replicas": 3}, [(), (), ()]),
        (["0"], {}, [("0",)]),
        (["0", "1", "2"], {}, [("1",), ("2",)]),
        (["0", "1", "2"], {"serving.replicas": 3}, [("0",), ("1",), ("2",)]),
        (["0", "1", "2", "3", "4"], {"serving.tensor_parallel": 2}, [("1", "2"), ("3", "4")]),
        (["4", "7"], {"serving.tensor_parallel": 2}, [("4", "7")]),
    ],
)
def test_servers_have_the_gpus_that_the_learner_leaves(
    gpus: list[str], given: dict[str, Any], found: list[tuple[str, ...]]
) -> None:
    """The learner has the first one, which serves too where it has to."""
    made = place_servers(settings(**given), gpus, 4, small=False)
    assert [place.gpus for place in made] == found
    assert [place.shared for place in made] == [bool(gpus) and each == (gpus[0],) for each in found]


def test_more_servers_than_gpus_are_refused() -> None:
    """With the numbers."""
    with pytest.raises(SettingError, match=r"serving\.replicas=3.*need 3 GPUs, but this process sees 2"):
        place_servers(settings(**{"serving.replicas": 3}), ["0", "1"], 4, small=False)
    with pytest.raises(SettingError, match=r"serving\.tensor_parallel=2: there is no GPU"):
        place_servers(settings(**{"serving.tensor_parallel": 2}), [], 4, small=False)


def test_gpus_are_named_as_this_process_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may use GPUs 4 and 7 gives these on."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    assert visible_gpus(2) == ["4", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus(2) == ["0", "1"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"serving.replicas": 2}, r"serving\.replicas=2 .*set engine=vllm"),
        ({"vllm.max_num_seqs": "64"}, r"vllm\.max_num_seqs='64' .*set engine=vllm"),
    ],
)
def test_settings_of_vllm_are_refused_without_it(tmp_path: Path, given: dict[str, Any], told: str) -> None:
    """The embedded engine has no use for them."""
    with pytest.raises(SettingError, match=told):
        start(Settings.from_dict(given), tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"vllm.port": "8000"}, r"vllm\.port='8000': free ports are chosen"),
        ({"vllm.api-key": "x"}, r"vllm\.api-key='x': each server has its own key"),
        ({"vllm.no_enable_prefix_caching": True}, r"write vllm\.enable_prefix_caching=false"),
    ],
)
def test_arguments_that_would_take_the_server_away_are_refused(given: dict[str, Any], told: str) -> None:
    """With what to set instead."""
    with pytest.raises(SettingError, match=told):
        command.extra_arguments(settings(**given))


def test_without_vllm_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    """Before anything is loaded or started; vLLM is not in the environment of these tests."""
    with pytest.raises(LightningError, match=r"vLLM is not installed for .*pip install vllm \(with a GPU\)"):
        start(settings(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_travel_with_every_name_of_a_tied_tensor(tmp_path: Path) -> None:
    """A head that shares its tensor with the embedding is in the file under both names, and the file goes away."""
    embed, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embed.weight
    model = nn.ModuleDict({"embed": embed, "head": head})
    with in_file(model.state_dict(), tmp_path) as folder:
        found = load_file(folder / "model.safetensors")
    assert set(found) == {"embed.weight", "head.weight"}
    assert all(each.equal(embed.weight) for each in found.values())
    assert not folder.exists()
