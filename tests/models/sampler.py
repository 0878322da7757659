"""vLLM's engine in this process, as both backends have it: what it draws, and new weights while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from vllm import LLM, SamplingParams

from lightning_hub.backend import Row

#: Shorter than a window, and longer.
PROMPTS = [list(range(5, 5 + length)) for length in (4, 12, 40)]


class Reply(NamedTuple):
    prompt: list[int]
    tokens: list[int]
    logprobs: Tensor
    """The log-probs of the tokens, as vLLM returned them."""


class Sampler:
    def __init__(self, folder: Path) -> None:
        self._engine = LLM(
            model=str(folder),
            dtype="float32",
            enforce_eager=True,
            max_model_len=128,
            max_num_seqs=8,
            block_size=32,
            logprobs_mode="processed_logprobs",
            generation_config="vllm",
            distributed_executor_backend="uni",
            enable_prefix_caching=False,
            seed=0,
            skip_tokenizer_init=True,
            disable_log_stats=True,
        )

    def ask(self) -> list[Reply]:
        params = SamplingParams(max_tokens=24, temperature=1.0, logprobs=0, ignore_eos=True, detokenize=False)
        asked: Any = [{"prompt_token_ids": prompt} for prompt in PROMPTS]
        replies = []
        for found in self._engine.generate(asked, params, use_tqdm=False):
            (output,) = found.outputs
            tokens = list(output.token_ids)
            assert output.logprobs is not None
            told = [each[token].logprob for each, token in zip(output.logprobs, tokens, strict=True)]
            replies.append(Reply(list(found.prompt_token_ids or ()), tokens, torch.tensor(told)))
        return replies

    def close(self) -> None:
        """While another runs vLLM would do this too, when it is collected, and take that one's groups away."""
        self._engine.llm_engine.engine_core.shutdown()

    def forbid(self, first: int) -> None:
        """As VERL has it: no token from this one on is drawn."""
        from verl.workers.rollout.vllm_rollout.utils import monkey_patch_compute_logits  # noqa: PLC0415 - after vLLM

        self._engine.collective_rpc(lambda worker: monkey_patch_compute_logits(worker.model_runner.model, first))

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """As `lightning_verl.cpu` and vLLM's own /collective_rpc have it."""
        named = [(name, tensor.detach().clone()) for name, tensor in weights]
        self._engine.collective_rpc(lambda worker: worker.model_runner.reload_weights(weights_iterator=iter(named)))


def rows(replies: list[Reply]) -> list[Row]:
    """The rows of a batch in which every second reply was good."""
    found = []
    for place, reply in enumerate(replies):
        size, first = len(reply.prompt) + len(reply.tokens), len(reply.prompt)
        weights, advantages, logprobs = (np.zeros(size, np.float32) for _ in range(3))
        weights[first:], advantages[first:] = 1 / len(reply.tokens), (-1.0) ** place
        logprobs[first:] = reply.logprobs.numpy()
        tokens = np.array(reply.prompt + reply.tokens, np.int32)
        found.append(
            Row(
                tokens=tokens,
                weights=weights,
                advantages=advantages,
                logprobs=logprobs,
                temperature=1.0,
                version=0,
                role="",
                rollout=str(place),
            )
        )
    return found
