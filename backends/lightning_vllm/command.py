"""The command of a vLLM server: our settings, and vLLM's own that the user passed on, as arguments and environment.

What training needs is always included: log-probabilities of the distribution that was drawn from, after temperature
and top_p, and no default sampling parameters from the model's folder.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_vllm.auth import KEY
from lightning_vllm.model_info import ModelInfo
from lightning_vllm.parsers import NONE, parser_of

#: How long a server keeps an idle connection: longer than a learner takes between two rounds.
KEEP_ALIVE_SECONDS = 600
_PREFIX = "vllm."
#: Arguments that this backend controls -> what to set instead, or why.
_OURS: dict[str, str] = {
    "host": "servers listen on loopback, behind one address: serving.host",
    "port": "free ports are chosen",
    "uds": "servers are reached by TCP",
    "api_key": "each server has its own key",
    "model": "set model",
    "served_model_name": "set model",
    "tokenizer": "a model is served with its own tokenizer",
    "middleware": "it checks the key",
    "root_path": "paths are fixed",
    "config": "set each argument separately",
    "headless": "requests need an API server",
    "api_server_count": "pausing works with one API server only",
    "tensor_parallel_size": "set serving.tensor_parallel",
    "data_parallel_size": "set serving.replicas",
    "logprobs_mode": "training needs the log-probabilities of the distribution that was drawn from",
    "structured_outputs_config": "the learner can recompute the masks of llguidance only",
    "generation_config": "training needs the distribution that it corrects for",
    "override_generation_config": "training needs the distribution that it corrects for",
    "worker_extension_cls": "it loads the weights",
    "enable_auto_tool_choice": "set serving.tool_parser",
    "tool_call_parser": "set serving.tool_parser",
    "ssl_keyfile": "servers listen on loopback",
    "ssl_certfile": "servers listen on loopback",
}
_GIB = 1 << 30
#: Bounds of the memory for keys and values on a CPU, in GiB.
_LEAST_CACHE, _MOST_CACHE = 1, 4


@dataclass(frozen=True, slots=True)
class ServerPlacement:
    """Where one server runs."""

    gpus: tuple[str, ...] = ()
    """As in CUDA_VISIBLE_DEVICES; empty on a CPU."""
    threads: int = 1
    """Threads of a forward pass on a CPU."""
    shared: bool = False
    """Whether it runs on the learner's GPU, whose memory it can read."""


def extra_arguments(settings: Settings) -> dict[str, Any]:
    """vLLM's own arguments from the settings, by name with underscores. SettingError for those that this backend
    controls."""
    given: dict[str, Any] = {}
    for full, value in settings.verbatim.items():
        if not full.startswith(_PREFIX):
            continue
        name = full.removeprefix(_PREFIX).replace("-", "_")
        if name.startswith("no_"):
            raise SettingError(f"setting {full}={value!r}: write {_PREFIX}{name.removeprefix('no_')}=false")
        if name in _OURS:
            raise SettingError(f"setting {full}={value!r}: {_OURS[name]}")
        given[name] = value
    return given


def overridden_arguments(settings: Settings, info: ModelInfo, place: ServerPlacement) -> dict[str, Any]:
    """Our arguments that the user's replace: name -> our value."""
    ours = _arguments(settings, info, place)
    theirs = extra_arguments(settings)
    return {name: ours[name] for name, value in theirs.items() if name in ours and ours[name] != value}


def tool_parser(settings: Settings, info: ModelInfo) -> str:
    """vLLM's name of the tool parser, or 'none'."""
    chosen = settings.serving.tool_parser
    return parser_of(info.template) if chosen == "auto" else chosen


def arguments(settings: Settings, info: ModelInfo, place: ServerPlacement, name: str, port: int) -> list[str]:
    """The arguments of a server that serves the model as `name` on `port` of loopback."""
    fixed = {"model": info.path, "served_model_name": name, "host": "127.0.0.1", "port": port}
    every = {**_arguments(settings, info, place), **extra_arguments(settings), **fixed}
    return [word for argument, value in every.items() for word in _words(argument, value)]


def environment(settings: Settings, info: ModelInfo, place: ServerPlacement) -> dict[str, str]:
    """Environment variables for the server, which those of the user override."""
    shown = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_DISABLE_LOG_LOGO": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_SECONDS),
    }
    if not place.gpus:
        # If servers were bound to cores, learner and agents would compete for some cores while others are idle.
        shown |= {
            "VLLM_CPU_KVCACHE_SPACE": str(_cache(settings, info)),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(place.threads),
        }
    return shown


def required_environment(place: ServerPlacement, key: str) -> dict[str, str]:
    """Environment variables that the user's may not override."""
    gpus = {"CUDA_VISIBLE_DEVICES": ",".join(place.gpus)} if place.gpus else {}
    return {KEY: key, "VLLM_SERVER_DEV_MODE": "1", **gpus}


def _arguments(settings: Settings, info: ModelInfo, place: ServerPlacement) -> dict[str, Any]:
    serving = settings.serving
    named: dict[str, Any] = {
        "seed": secrets.randbelow(1 << 31),  # with the same seed all replicas would sample alike
        "logprobs_mode": "processed_logprobs",
        "structured_outputs_config": {"backend": "guidance", "enable_in_reasoning": True},
        "generation_config": "vllm",
        "middleware": "lightning_vllm.auth.AuthMiddleware",
        "uvicorn_log_level": "warning",
        "disable_uvicorn_access_log": True,
    }
    if serving.max_length:
        named["max_model_len"] = serving.max_length
    if place.gpus:
        named |= {
            "dtype": "auto",
            "gpu_memory_utilization": serving.memory,
            "tensor_parallel_size": serving.tensor_parallel,
            "worker_extension_cls": "lightning_vllm.extension.Extension",
        }
    else:
        # The smallest block that its attention supports: only whole blocks of prompts are cached.
        named |= {"dtype": "float32", "enforce_eager": True, "block_size": 32}
    if (parser := tool_parser(settings, info)) != NONE:
        named |= {"enable_auto_tool_choice": True, "tool_call_parser": parser}
    return named


def _words(name: str, value: Any) -> list[str]:
    """One argument in the form of a command line."""
    flag = "--" + name.replace("_", "-")
    text = str(value).lower() if isinstance(value, bool) else value
    if text == "true":
        return [flag]
    if text == "false":
        return ["--no-" + flag[2:]]
    if value is None:
        return []
    if isinstance(value, list):
        return [flag, *map(str, value)]
    return [flag, json.dumps(value) if isinstance(value, Mapping) else str(value)]


def _cache(settings: Settings, info: ModelInfo) -> int:
    length = settings.serving.max_length or info.max_length
    wanted = settings.rollouts.concurrency * length * info.token_bytes
    return max(_LEAST_CACHE, min(_MOST_CACHE, -(-wanted // _GIB)))
