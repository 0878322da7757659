"""Learner tokens per second, common prefixes computed once against one padded row per trajectory, in the same run.

    python benchmarks/learner.py [--json] [--model spark] [--repeats 5] [--threads 2]

A batch of 16 groups of 8 rows such as GRPO sends: prompts of about 40 tokens, 35 more with a tool reply in the middle,
a quarter of the rows a copy of another one of their group. Tokens are counted once per row, prompts included, so that
both layouts are measured by the work that was asked for. The layouts take turns; medians and spreads are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from typing import Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from lightning_embedded.learning.learner import Learner
from lightning_embedded.process import ENVIRONMENT
from lightning_hub.backend import Batch, Row
from lightning_process.model import load
from lightning_sdk.settings import Settings

GROUPS, SIZE, PROMPT, ANSWER = 16, 8, 40, 35


def make_batch(vocabulary: int, copies: float) -> Batch:
    """Random tokens: what they say does not change how long they take."""
    draw, rows = np.random.default_rng(0), []
    for group in range(GROUPS):
        prompt = draw.integers(0, vocabulary, int(draw.integers(PROMPT - 8, PROMPT + 9)))
        answer = prompt
        for member in range(SIZE):
            if member == 0 or draw.random() >= copies:
                answer = draw.integers(0, vocabulary, int(draw.integers(ANSWER - 10, ANSWER + 11)))
            rows.append(make_row(prompt, answer, draw, str(group)))
    return Batch(0, rows)


def make_row(prompt: Any, answer: Any, draw: np.random.Generator, rollout: str) -> Row:
    tokens = np.concatenate([prompt, answer]).astype(np.int32)
    sampled = np.zeros(len(tokens), bool)
    sampled[len(prompt) :] = True
    sampled[len(prompt) + 14 : len(prompt) + 20] = False
    weights = np.where(sampled, 1 / (GROUPS * SIZE * ANSWER), 0).astype(np.float32)
    advantages = np.where(sampled, draw.normal(), 0).astype(np.float32)
    logprobs = np.where(sampled, -np.log(700.0), 0).astype(np.float32)
    return Row(
        tokens=tokens,
        weights=weights,
        advantages=advantages,
        logprobs=logprobs,
        temperature=1.0,
        version=0,
        role="solver",
        rollout=rollout,
    )


def measure(model: str, repeats: int, copies: float) -> dict[str, Any]:
    """Tokens/s of both layouts, in turns."""
    settings = Settings.from_dict({"optimizer.learning_rate": 1e-9})
    learners = {name: Learner(load(model).model, settings, share=name == "shared") for name in ("shared", "unshared")}
    batch = make_batch(learners["shared"].model.config.get_text_config().vocab_size, copies)
    rates: dict[str, list[float]] = {name: [] for name in learners}
    positions: dict[str, float] = {}
    for turn in range(repeats + 1):
        for name, learner in learners.items():
            metrics = learner.update(batch).metrics
            positions[name] = metrics["positions"]
            if turn:  # the first one warms up
                rates[name].append(metrics["tokens_per_second"])
    found: dict[str, Any] = {
        name: {
            "tokens_per_second": round(statistics.median(each)),
            "lowest": round(min(each)),
            "highest": round(max(each)),
            "positions": round(positions[name]),
        }
        for name, each in rates.items()
    }
    found["speedup"] = round(found["shared"]["tokens_per_second"] / found["unshared"]["tokens_per_second"], 2)
    return found | {"parameters": learners["shared"].size, "row_tokens": sum(len(row.tokens) for row in batch.rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON line only")
    parser.add_argument("--model", default="spark", help="spark, a folder or a hub name")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--copies", type=float, default=0.25, help="part of the rows that repeat another one")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if "GOMP_SPINCOUNT" not in os.environ:  # OpenMP reads the backend's settings when it is loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], {**ENVIRONMENT, **os.environ})
    disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(options.threads)
    found = {
        "benchmark": "learner",
        "model": options.model,
        "machine": platform.processor() or platform.machine(),
        "threads": options.threads,
        "torch": torch.__version__,
        **measure(options.model, options.repeats, options.copies),
    }
    if options.json:
        print(json.dumps(found))
        return
    for name in ("shared", "unshared"):
        each = found[name]
        print(
            f"{name:9} {each['tokens_per_second']:>8,} tokens/s ({each['lowest']:,} to {each['highest']:,}), "
            f"{each['positions']:,} positions computed for {found['row_tokens']:,} tokens in rows"
        )
    print(f"shared prefixes are {found['speedup']} times as fast")


if __name__ == "__main__":
    main()
