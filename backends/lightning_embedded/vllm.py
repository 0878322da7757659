"""vLLM as this learner's engine: its servers start while the model is loaded here, and get the learned weights."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import orjson
import torch

from lightning_embedded.constraints.constraint import Constraints
from lightning_embedded.constraints.json_schema import GrammarError
from lightning_embedded.learning.learner import Learner
from lightning_embedded.learning.memory import check_memory
from lightning_embedded.learning.training import Training
from lightning_embedded.serving.chat import Chat
from lightning_embedded.serving.protocol import read_body
from lightning_embedded.text.growing_text import Decode
from lightning_embedded.threads import small, threads
from lightning_hub.trajectories.constraint import FREE_CHOICES, constraint_of
from lightning_process.model import LoadedModel, load
from lightning_process.program import BackendConfig, ReadyBackend
from lightning_process.refusal import BadRequest
from lightning_process.routes import LearnerRoutes
from lightning_process.saved_names import with_saved_names
from lightning_process.source import Source, locate
from lightning_sdk.settings import Settings
from lightning_vllm import available, command
from lightning_vllm.command import ServerPlacement
from lightning_vllm.fleet import Fleet
from lightning_vllm.front import Front
from lightning_vllm.gpu_layout import place_servers, visible_gpus
from lightning_vllm.launch import launcher
from lightning_vllm.model_info import ModelInfo
from lightning_vllm.model_reader import read_model_info
from lightning_vllm.preimport import ENGINE, Preimport, model_modules

log = logging.getLogger(__name__)

#: What to do if the model does not fit.
_WAYS = (
    "set backend=verl, which keeps the optimizer in host memory while vLLM serves, and uses several GPUs (cluster.gpus)"
)


def build(config: BackendConfig) -> ReadyBackend:
    """Start the servers, load the learner meanwhile, and wait for both."""
    source = locate(config.settings.model)
    with Preimport((ENGINE, model_modules(source.path))):
        return _build(config, source)


def _build(config: BackendConfig, source: Source) -> ReadyBackend:
    settings, asynchronous = config.settings, config.settings.rollouts.staleness > 0
    info, name = read_model_info(source), Path(source.name).name
    decoding, learning = threads(info.parameters, asynchronous)
    torch.set_num_threads(learning)
    found = place_servers(settings, visible_gpus(torch.cuda.device_count()), decoding, small=small(info.parameters))
    available.check_experts(info, gpu=torch.cuda.is_available())
    share = _vllm_bytes(settings, found)
    ways = _WAYS if settings.lora.rank else f"set lora.rank=16, which trains adapters, or {_WAYS}"
    check_memory(settings, info.anatomy, share, ways, spare=max(0.0, share - 2.0 * info.parameters))
    front = Front(config.key, name, keep_alive=command.KEEP_ALIVE_SECONDS / 2)
    fleet = Fleet(front, found, config.folder, launcher(settings, info, name), asynchronous=asynchronous)
    try:
        loaded = load(settings.model)
        constraints = constraints_of(loaded)
        front.constrain = constraining(constraints)
        learner = Learner(loaded.model, settings, constraints=constraints)
        config.phases.end("model")
        facts = _facts(settings, info, found)
        facts |= {"max_length": fleet.wait(), "tokenizer": info.tokenizer}
        config.phases.end("vllm")
    except BaseException:
        fleet.close()
        raise
    training = Training(
        learner,
        fleet,
        loaded,
        facts,
        asynchronous=asynchronous,
        name=lambda model, weights: dict(with_saved_names(model, weights)),
    )
    routes = LearnerRoutes(training, lambda: torch.set_num_threads(learning))
    return ReadyBackend(front.app(), routes, name, training.facts())


def constraints_of(loaded: LoadedModel) -> Constraints:
    """Constraints as vLLM applies them: only the tokenizer's end token ends an answer."""
    tokenizer, vocabulary = loaded.tokenizer, int(loaded.model.config.get_text_config().vocab_size)
    ends = [tokenizer.eos_token_id] if isinstance(tokenizer.eos_token_id, int) else []
    return Constraints(tokenizer, vocabulary, ends, Chat(tokenizer, Decode(tokenizer, ends)).tools)


def constraining(constraints: Constraints) -> Callable[[bytes], bytes]:
    """Rewrites requests so that servers apply the grammar with which the learner finds the masks."""
    grammar = lru_cache(256)(constraints.grammar)

    def constrain(data: bytes) -> bytes:
        body = read_body(data)
        try:
            asked = {"grammar": grammar(constraint_of(body))}
        except GrammarError as error:
            raise BadRequest(str(error), error.param, "unsupported_parameter") from None
        choice = body.get("tool_choice")
        kept = {name: value for name, value in body.items() if name != "response_format"}
        kept |= {"structured_outputs": asked} | ({} if choice in FREE_CHOICES else {"tool_choice": "auto"})
        return orjson.dumps(kept)

    return constrain


def _vllm_bytes(settings: Settings, found: list[ServerPlacement]) -> float:
    """Bytes of the learner's GPU that vLLM uses."""
    shared = any(place.shared for place in found)
    return settings.serving.memory * torch.cuda.get_device_properties(0).total_memory if shared else 0.0


def _facts(settings: Settings, info: ModelInfo, found: list[ServerPlacement]) -> dict[str, object]:
    facts: dict[str, object] = {
        "engine": f"vllm {available.installed_version()}",
        "servers": " ".join(",".join(place.gpus) or "cpu" for place in found),
        "tool_parser": command.tool_parser(settings, info),
    }
    for argument, ours in command.overridden_arguments(settings, info, found[0]).items():
        theirs = command.extra_arguments(settings)[argument]
        log.warning("setting vllm.%s=%s replaces our %s", argument, theirs, ours)
        facts[f"vllm.{argument}"] = f"{theirs} instead of {ours}"
    return facts
