"""VERL's FSDP engine, with a head that computes log-probabilities itself, over the tokens that vLLM may draw only.

VERL's fused kernels never hold the logits of a whole batch, but they read the head's weight without running its module.
FSDP2 shards the weight of a head that is not tied to the embedding, except while that module runs, so they would find
only a shard. Also, VERL lets vLLM draw only tokens that the tokenizer knows, while it trains on the distribution over
the whole vocabulary, which may be padded by hundreds. Here the module itself does the work, over the ids that can be
drawn.
"""

from __future__ import annotations

import os
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from verl.models.transformers import monkey_patch
from verl.models.transformers.dense_common import CausalLMOutputForPPO
from verl.utils import tensordict_utils
from verl.utils.experimental.torch_functional import FusedLinearForPPO
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from lightning_process.saved_names import with_saved_names

VENDOR = "lightning"


def choose() -> None:
    """Make VERL use this engine in this process."""
    os.environ["VERL_ENGINE_VENDOR"] = VENDOR


@EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cuda", vendor=VENDOR)
class HeadEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """VERL's FSDP engine with the changes above."""

    @property
    def vocabulary(self) -> int:
        """Ids below this number can be drawn."""
        vocabulary = int(self.model_config.hf_config.get_text_config().vocab_size)
        tokenizer = self.model_config.tokenizer
        return vocabulary if tokenizer is None else min(vocabulary, len(tokenizer))

    def _build_module(self) -> Any:
        module = super()._build_module()
        if self.model_config.use_fused_kernels:
            fuse(module, self.vocabulary, self.model_config.fused_kernel_options.get("impl_backend"))
        elif self.vocabulary < module.get_output_embeddings().weight.shape[0]:
            narrow(module, self.vocabulary)
        return module

    def prepare_model_inputs(self, micro_batch: Any) -> Any:
        inputs, prepared = super().prepare_model_inputs(micro_batch)
        # Higher ids in a prompt were not drawn, and nothing uses their log-probabilities.
        prepared["input_ids_rmpad_rolled"].clamp_(max=self.vocabulary - 1)
        return inputs, prepared

    def forward_backward_batch(self, data: Any, loss_function: Any, forward_only: bool = False) -> Any:
        most = tensordict_utils.get_non_tensor_data(data, "max_token_len_per_gpu", None)
        longest = int(data["input_ids"].offsets().diff().max())
        if most is not None and most < longest:  # VERL refuses a row longer than a micro-batch
            tensordict_utils.assign_non_tensor(data, max_token_len_per_gpu=longest)
        return super().forward_backward_batch(data, loss_function, forward_only)

    def get_per_tensor_param(self, *args: Any, **given: Any) -> Any:
        weights, adapters = super().get_per_tensor_param(*args, **given)
        model = self.module.get_base_model() if hasattr(self.module, "peft_config") else self.module
        return (weights if adapters else with_saved_names(model, weights)), adapters


#: VERL's own conversion of names supports only Qwen's mixtures of experts, and its fused kernels patch a class.
transformer_impl.unfuse_moe_params = lambda weights, _=None: weights
monkey_patch.patch_forward_with_backends = lambda *_, **__: None


def narrow(model: Any, vocabulary: int) -> None:
    """Limit the model's logits to the first `vocabulary` ids."""
    whole = model.forward

    @wraps(whole)
    def forward(*args: Any, **given: Any) -> Any:
        found = whole(*args, **given)
        found.logits = found.logits[..., :vocabulary]
        return found

    model.forward = forward


def fuse(model: Any, vocabulary: int, backend: str) -> None:
    """Make the model return log-probabilities and entropies over the first `vocabulary` ids instead of logits.
    `backend`: VERL's name of the kernel."""
    compute = _triton if backend == "triton" else FusedLinearForPPO(impl_backend=backend)

    def head(self: Any, hidden: Tensor, following: Tensor, temperature: float) -> Any:
        """Replaces the head's own forward, which runs while FSDP2 has gathered the weight."""
        return compute(hidden, self.weight[:vocabulary], following.clamp(max=vocabulary - 1), temperature)

    model.lm_head.forward = MethodType(head, model.lm_head)
    model.forward = MethodType(_forward, model)


def _triton(hidden: Tensor, weight: Tensor, following: Tensor, temperature: float) -> Any:
    from verl.utils.kernel.linear_cross_entropy import linear_cross_entropy  # noqa: PLC0415 - only where Triton is

    return linear_cross_entropy(hidden, weight, following, temperature, "none")


def _forward(
    self: Any,
    input_ids: Tensor,
    *,
    temperature: float = 1.0,
    shift_labels: Tensor | None = None,
    return_dict: bool = True,
    **given: Any,
) -> CausalLMOutputForPPO:
    """Replaces the model's own forward: [B, T] log-probabilities of each next token, and entropies."""
    known = {
        name: value for name, value in given.items() if value is not None
    }  # adapters pass more than a model accepts
    hidden = self.model(input_ids=input_ids, **known)[0]
    following = torch.roll(input_ids, -1, -1) if shift_labels is None else shift_labels
    logprobs, entropy = self.lm_head(hidden, following, temperature)
    return CausalLMOutputForPPO(log_probs=logprobs, entropy=entropy)
