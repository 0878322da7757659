"""What it costs to turn many calls into rows, to deal pairs out, and to learn from rollouts that say the same.

    python benchmarks/cost.py [--json] [--repeats 3]

Merging and crediting: one rollout in which a role makes N calls, each a new conversation behind one system
prompt. Dealing: N pairs of DPO. Both grow with N: seconds, and the factor from half as many. Memory: the largest tensor
of an update with 512 equal rows of 20 sampled tokens and a vocabulary of 32,000, in MB, against what a distribution for
each sampled token would take.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Batch, Pair, Row
from lightning_hub.credit.batch import build_batch
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_losses.mini_batches import split_mini_batches
from lightning_sdk.settings import Settings
from lightning_sdk.stream.wire import pack_floats, pack_ints
from lightning_sdk.trace.call import Call, CallMeta, Choice, Status

CALLS, PAIRS = 1600, 4096
PROMPT, ANSWER = 300, 30
ROWS, SAMPLED, VOCABULARY = 512, 20, 32_000


def make_rollout(calls: int) -> Rollout:
    draw = np.random.default_rng(0)
    system = draw.integers(0, 1000, PROMPT // 2).tolist()
    made = tuple(make_call(n, [*system, *draw.integers(0, 1000, PROMPT // 2).tolist()], draw) for n in range(calls))
    return Rollout(
        id="0" * 32,
        task_id=0,
        group="task",
        mode="train",
        attempt=1,
        status=Status.OK,
        error="",
        seconds=1.0,
        rewards=(EarnedReward("", "final", 1.0, calls + 1),),
        calls=made,
    )


def make_call(number: int, prompt: list[int], draw: np.random.Generator) -> Call:
    ids = draw.integers(0, 1000, ANSWER).tolist()
    meta = CallMeta(f"{number:016x}", "", "helper", True, number, number + 1, "ok", "", 200, False, "/v1", "openai")
    choice = Choice(
        index=0,
        message=b'{"role": "assistant", "content": "yes"}',
        finish_reason="stop",
        token_ids=pack_ints(ids),
        logprobs=pack_floats([-1.0] * ANSWER),
        versions=[[0, ANSWER]],
    )
    request = json.dumps({"messages": [{"role": "user", "content": str(number)}]}).encode()
    return Call(
        meta=meta,
        request=request,
        response_id=str(number),
        model="m",
        prompt_ids=pack_ints(prompt),
        choices=(choice,),
        input_tokens=PROMPT,
        output_tokens=ANSWER,
        problem="",
    )


def credit(calls: int) -> Callable[[], object]:
    made = [make_rollout(calls)]
    settings = Settings.from_dict({"credit.advantage": "reinforce"})
    return lambda: build_batch(made, settings)


def deal_pairs(pairs: int) -> Callable[[], object]:
    ones = np.ones(2, np.float32)
    rows = [
        Row(
            tokens=np.zeros(2, np.int32),
            weights=ones,
            advantages=ones,
            logprobs=ones,
            temperature=1.0,
            version=0,
            role="",
            rollout=f"{n:08d}",
        )
        for n in range(2 * pairs)
    ]
    chosen = [Pair("", f"{2 * n:08d}", f"{2 * n + 1:08d}") for n in range(pairs)]
    return lambda: split_mini_batches(rows, 8, chosen)


def seconds(work: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


class Largest(TorchDispatchMode):
    """Bytes of the largest storage that an operation made."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, torch.Tensor):
                self.bytes = max(self.bytes, each.untyped_storage().nbytes())
        return made


def largest_tensor() -> int:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    learner = Learner(LlamaForCausalLM(config), Settings.from_dict({"optimizer.learning_rate": 1e-4}))
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 40 + SAMPLED).astype(np.int32)
    weights = np.where(np.arange(len(tokens)) >= 40, 1e-3, 0).astype(np.float32)
    logprobs = np.where(weights > 0, -10, 0).astype(np.float32)
    rows = [
        Row(
            tokens=tokens,
            weights=weights,
            advantages=weights,
            logprobs=logprobs,
            temperature=1.0,
            version=0,
            role="",
            rollout=str(n),
        )
        for n in range(ROWS)
    ]
    with Largest() as seen:
        learner.update(Batch(1, rows))
    return seen.bytes


def measure(repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, work, size in (("credit", credit, CALLS), ("deal", deal_pairs, PAIRS)):
        half, whole = (seconds(work(count), repeats) for count in (size // 2, size))
        found |= {f"{name}_size": size, f"{name}_seconds": round(whole, 4), f"{name}_factor": round(whole / half, 2)}
    found["largest_tensor_mb"] = round(largest_tensor() / 1e6, 2)
    found["a_distribution_each_mb"] = round(ROWS * SAMPLED * VOCABULARY * 4 / 1e6, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = measure(options.repeats)
    if options.json:
        print(json.dumps(found | {"cores": os.cpu_count(), "machine": platform.machine(), "python": sys.version[:4]}))
        return
    print(
        f"merge and credit {found['credit_size']} calls: {found['credit_seconds']:.3f} s "
        f"({found['credit_factor']:.1f} times half as many)"
    )
    print(f"deal {found['deal_size']} pairs: {found['deal_seconds']:.3f} s ({found['deal_factor']:.1f} times)")
    print(
        f"{ROWS} equal rows: largest tensor {found['largest_tensor_mb']} MB, where a distribution for each token "
        f"would be {found['a_distribution_each_mb']} MB"
    )


if __name__ == "__main__":
    main()
