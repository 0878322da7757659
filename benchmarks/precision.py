"""How far sampler, bfloat16 and float32 are apart on the tokens that a run sampled before it had learned anything.

    python benchmarks/precision.py RUN MODEL [--output FILE] [--rows 64] [--ids N]

transformers computes the log-probabilities of these tokens with the weights in the folder MODEL, in float32 and in
bfloat16. What two of them say of the same token differs by its rounding, so that `kl_sampler`, which is the sampler's
mean minus the learner's, can be read: it should be about as large as what bfloat16 alone makes of it. `--ids` leaves
out ids from N on, as VERL does with those that the tokenizer does not know.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lightning_hub.replay.stored_run import StoredRun
from lightning_hub.trajectories.transition import Transition, transitions

#: Rows that are computed at once: their logits fill some gigabytes.
TOGETHER = 8


class Sampled(NamedTuple):
    ids: list[int]
    """Of prompt and answer."""
    prompt: int
    """Length of the prompt."""
    logprobs: list[float]
    """The sampler's, of the answer."""


def sampled_first(run: Path, most: int) -> list[Sampled]:
    """Up to `most` answers of the first version of the weights."""
    found: list[Sampled] = []
    with StoredRun(run) as stored:
        for record in stored.records():
            if record.entry.mode != "train" or (rollout := stored.rollout(record)) is None:
                continue
            for call in rollout.calls:
                found += [_row(each) for each in transitions(call) if not each.versions.any()]
            if len(found) >= most:
                break
    return found[:most]


def _row(each: Transition) -> Sampled:
    return Sampled(
        [*each.prompt_ids.tolist(), *each.completion_ids.tolist()], len(each.prompt_ids), each.logprobs.tolist()
    )


def score(model: Any, rows: list[Sampled], ids: int | None) -> Tensor:
    """[M] log-probabilities of the answers' tokens, one row after another."""
    found = []
    for start in range(0, len(rows), TOGETHER):
        some = rows[start : start + TOGETHER]
        longest = max(len(row.ids) for row in some)
        padded = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in some], device=model.device)
        with torch.no_grad():  # what follows a row's end is not seen from within it
            logits = model(input_ids=padded, use_cache=False).logits[:, :-1, :ids]
        for row, each in zip(some, logits, strict=True):
            answer = slice(row.prompt - 1, len(row.ids) - 1)
            named = torch.tensor(row.ids[row.prompt :], device=model.device)
            found.append(each[answer].float().log_softmax(-1).gather(-1, named[:, None])[:, 0].cpu())
    return torch.cat(found)


def compare(one: Tensor, other: Tensor) -> dict[str, float]:
    gaps = one - other
    return {
        "mean": round(float(gaps.mean()), 6),
        "standard_error": round(float(gaps.std() / len(gaps) ** 0.5), 6),
        "mean_absolute": round(float(gaps.abs().mean()), 6),
        "deviation": round(float(gaps.std()), 6),
        "largest": round(float(gaps.abs().max()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--ids", type=int)
    options = parser.parse_args()
    began, rows = time.monotonic(), sampled_first(options.run, options.rows)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16, device_map=device).eval()
    rounded = score(model, rows, options.ids)
    exact = score(model.float(), rows, options.ids)
    sampler = torch.tensor([value for row in rows for value in row.logprobs])
    told = {
        "rows": len(rows),
        "tokens": len(sampler),
        "logprob_mean": round(float(exact.mean()), 4),
        "sampler_minus_float32": compare(sampler, exact),
        "bfloat16_minus_float32": compare(rounded, exact),
        "sampler_minus_bfloat16": compare(sampler, rounded),
        "seconds": round(time.monotonic() - began, 1),
    }
    if options.output:
        options.output.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
