"""VERL's own training worker in one ordinary process, no Ray: made from a case, fed with random rows."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from torch.nn import functional
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

CUDA = torch.cuda.is_available()
_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 512,
}
_SMOL = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}


@dataclass(frozen=True)
class Case:
    """One combination of VERL's settings."""

    packed: bool = True
    """Rows of a micro-batch one after another (use_remove_padding), or padded to the longest."""
    attention: str = "sdpa"
    """attn_implementation; `varlen` is torch's own FlashAttention on packed rows, registered here."""
    logprobs: str = "loop"
    """loop (VERL's without flash-attn), vectorised (the same at once), fused or triton (VERL's fused kernels)."""
    pack: int = 16384
    """Tokens in a micro-batch."""
    checkpointing: bool = True
    """Activations computed again in the backward pass."""
    dtype: str = "bf16" if CUDA else "fp32"
    """The dtype of weights and activations in a step; the weights themselves are kept in float32."""
    extra: tuple[str, ...] = field(default=())
    """More overrides, as VERL's command line takes them."""


def prepare() -> None:
    """This process becomes the only one of its group, with VERL's platform for the device that is here."""
    if CUDA:
        torch.cuda.set_device(0)
    else:
        from lightning_verl import cpu  # noqa: PLC0415 - only where there is no GPU

        cpu.install()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    AttentionInterface.register("varlen", packed_attention)


def random_model(folder: Path) -> Path:
    """A Llama of SmolLM2-135M's shape on a GPU, a tiny one on a CPU."""
    torch.manual_seed(0)
    config = LlamaConfig(**(_SMOL if CUDA else _SMALL), tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def packed_attention(
    module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float | None = None, **kwargs: Any
) -> tuple[Any, None]:
    """FlashAttention of torch itself over rows that follow each other; a row starts where its positions do.

    query (1, heads, tokens, head size); key and value with fewer heads. Returns (1, tokens, heads, head size).
    """
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - only newer versions of torch have it

    positions = kwargs["position_ids"]
    if mask is not None or positions.shape[0] != 1:
        raise ValueError("varlen attention takes packed rows only: set use_remove_padding")
    if not hasattr(positions, "row_bounds"):  # kept on the tensor: every layer is given the same one
        starts = (positions[0] == 0).nonzero().flatten().to(torch.int32)
        bounds = functional.pad(starts, (0, 1), value=positions.shape[1])
        positions.row_bounds = bounds, int(bounds.diff().max())
    bounds, longest = positions.row_bounds
    groups = query.shape[1] // key.shape[1]
    rows = [each[0].transpose(0, 1) for each in (query, key, value)]
    rows[1:] = [each.repeat_interleave(groups, 1) if groups > 1 else each for each in rows[1:]]
    older = "is_causal" in inspect.signature(varlen_attn).parameters
    causal = {"is_causal": True} if older else {"window_size": (-1, 0)}
    return varlen_attn(*rows, bounds, bounds, longest, longest, scale=scaling, **causal).unsqueeze(0), None


@contextlib.contextmanager
def log_probabilities(kind: str) -> Iterator[None]:
    """VERL's log-probabilities in the way asked for; what was changed in its and transformers' classes is undone."""
    from verl.utils import torch_functional  # noqa: PLC0415 - looks for the platform when it is imported

    loop, forward = torch_functional.logprobs_from_logits_v2, LlamaForCausalLM.forward
    if kind == "vectorised":
        torch_functional.logprobs_from_logits_v2 = torch_functional.logprobs_from_logits_naive
    try:
        yield
    finally:
        torch_functional.logprobs_from_logits_v2 = loop
        LlamaForCausalLM.forward = forward


def configuration(case: Case, model: Path) -> Any:
    """VERL's configuration of actor and model, as its command line would make it."""
    actor, engine, policy = "actor_rollout_ref.actor", "actor_rollout_ref.actor.fsdp_config", "actor_rollout_ref.model"
    overrides = [
        f"{policy}.path={model}",
        *([] if any("load_tokenizer" in each for each in case.extra) else [f"+{policy}.load_tokenizer=False"]),
        f"{policy}.use_remove_padding={case.packed}",
        f"{policy}.enable_gradient_checkpointing={case.checkpointing}",
        f"+{policy}.override_config.attn_implementation={case.attention}",
        f"{policy}.use_fused_kernels={case.logprobs in ('fused', 'triton')}",
        f"{policy}.fused_kernel_options.impl_backend={'triton' if case.logprobs == 'triton' else 'torch'}",
        f"{actor}.strategy=fsdp2",
        f"{actor}.optim.lr=0.0",  # every repetition finds the same weights
        f"{actor}.use_dynamic_bsz=True",
        f"{actor}.ppo_max_token_len_per_gpu={case.pack}",
        f"{engine}.use_torch_compile={CUDA}",
        f"+{engine}.mixed_precision.param_dtype={case.dtype}",
        "actor_rollout_ref.rollout.name=vllm",
        *case.extra,
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=overrides).actor_rollout_ref


def make_worker(case: Case, model: Path) -> Any:
    """VERL's training worker with its policy loss, as its actor makes it."""
    from verl.utils.config import omega_conf_to_dataclass  # noqa: PLC0415 - as above
    from verl.workers.engine_workers import TrainingWorker, TrainingWorkerConfig  # noqa: PLC0415
    from verl.workers.utils.losses import ppo_loss  # noqa: PLC0415

    found = configuration(case, model)
    actor = omega_conf_to_dataclass(found.actor)
    actor.model_config = omega_conf_to_dataclass(found.model)
    actor.engine.use_dynamic_bsz = True
    actor.engine.max_token_len_per_gpu = actor.engine.infer_max_token_len_per_gpu = case.pack
    config = TrainingWorkerConfig(
        model_type="language_model",
        model_config=actor.model_config,
        engine_config=actor.engine,
        optimizer_config=actor.optim,
        checkpoint_config=actor.checkpoint,
        profiler_config=None,
    )
    worker = TrainingWorker(config)
    worker.reset()
    worker.set_loss_fn(functools.partial(ppo_loss, config=actor))
    return worker


@dataclass
class Rows:
    """Random prompts and answers: what they say does not change how long they take."""

    prompts: list[torch.Tensor]
    answers: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> list[int]:
        return [len(prompt) + len(answer) for prompt, answer in zip(self.prompts, self.answers, strict=True)]

    def part(self, tokens: int) -> Rows:
        """The first rows, of about as many tokens, four at least."""
        count = max(4, tokens * len(self) // sum(self.lengths))
        return Rows(self.prompts[:count], self.answers[:count])

    def tensors(self, **settings: Any) -> Any:
        """Nested tensors with the fields that VERL's trainer sends to its actor."""
        from verl.utils import tensordict_utils  # noqa: PLC0415 - as above

        masks = [torch.ones_like(each) for each in self.answers]
        columns = {
            "input_ids": [torch.cat(each) for each in zip(self.prompts, self.answers, strict=True)],
            "position_ids": [torch.arange(length) for length in self.lengths],
            "prompts": self.prompts,
            "responses": self.answers,
            "response_mask": masks,
            "loss_mask": masks,
        }
        plain = {"temperature": 1.0, "global_token_num": self.lengths, **settings}
        return tensordict_utils.get_tensordict({name: nest(each) for name, each in columns.items()}, plain)


def nest(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def make_rows(count: int, tokens: int, vocabulary: int, seed: int) -> Rows:
    """Half of a row, give or take a quarter, is its prompt."""
    draw = torch.Generator().manual_seed(seed)

    def some() -> list[torch.Tensor]:
        lengths = torch.randint(tokens * 3 // 8, tokens * 5 // 8 + 1, (count,), generator=draw).tolist()
        return [torch.randint(3, vocabulary, (length,), generator=draw) for length in lengths]

    return Rows(some(), some())


def old_logprobs(worker: Any, rows: Rows) -> torch.Tensor:
    """As VERL's trainer asks for them before an update, entropy too; nested (rows, answer tokens)."""
    from verl.workers.utils.padding import response_from_nested  # noqa: PLC0415 - as above

    data = rows.tensors(calculate_entropy=True, compute_loss=False)
    found: torch.Tensor = response_from_nested(worker.infer_batch(data)["log_probs"], data["response_mask"])
    return found


def update(worker: Any, rows: Rows, logprobs: torch.Tensor) -> dict[str, Any]:
    """One optimizer step on all rows, of which `logprobs` may have more. Returns VERL's metrics."""
    from verl.utils import tensordict_utils  # noqa: PLC0415 - as above

    data = rows.tensors(
        mini_batch_size=len(rows),
        global_batch_size=len(rows),
        epochs=1,
        seed=0,
        dataloader_kwargs={"shuffle": False},
        calculate_entropy=False,
    )
    data["old_log_probs"] = nest(list(logprobs.unbind()[: len(rows)]))
    signs = (1.0 - 2.0 * (row % 2) for row in range(len(rows)))
    data["advantages"] = nest([torch.full((len(each),), sign) for each, sign in zip(rows.answers, signs, strict=True)])
    metrics: dict[str, Any] = tensordict_utils.get(worker.train_mini_batch(data), "metrics")
    return metrics
