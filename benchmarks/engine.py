"""Tokens per second of the engine beside plain `transformers.generate` on the same model, in the same process.

    python benchmarks/engine.py [--model spark] [--requests 64] [--tokens 48] [--threads 1] [--repeats 3] [--json]

Three loads, each sampled at temperature 1 from random prompts of 40 ids, never ended before `--tokens`: one request
*alone*; requests *arriving* one by one, more quickly than they can be served in turn, which `generate` does in turn;
all requests *together*, which `generate` takes as one batch. Both sides alternate; the best of the repeats counts.
"""

from __future__ import annotations

import argparse
import json
import platform
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from lightning_embedded.engine.engine import Engine
from lightning_embedded.engine.sequence import Params, Sequence
from lightning_process.model import load

PROMPT = 40
#: Seconds between two arrivals: less than `generate` takes for one request.
GAP = 0.002


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    loaded = load(arguments.model)
    loaded.model.eval()
    never_end(loaded.model, loaded.tokenizer)
    engine = Engine(loaded.model, loaded.tokenizer, max_slots=128, max_length=512, threads=arguments.threads)
    prompts = torch.randint(3, loaded.model.config.vocab_size, (arguments.requests, PROMPT))
    loads: dict[str, tuple[Callable[[torch.Tensor], int], Callable[[torch.Tensor], int], torch.Tensor]] = {
        "alone": (plain(loaded.model, arguments.tokens), whole(engine, arguments.tokens), prompts[:1]),
        "arriving": (in_turn(loaded.model, arguments.tokens), arriving(engine, arguments.tokens), prompts),
        "together": (plain(loaded.model, arguments.tokens), whole(engine, arguments.tokens), prompts),
    }
    results: dict[str, Any] = {}
    for name, (theirs, ours, given) in loads.items():
        baseline, mine = side_by_side(theirs, ours, given, arguments.repeats, engine)
        results[name] = {"generate": round(baseline), "engine": round(mine), "ratio": round(mine / baseline, 2)}
    engine.close()
    report(arguments, results)


def side_by_side(
    theirs: Callable[[torch.Tensor], int],
    ours: Callable[[torch.Tensor], int],
    prompts: torch.Tensor,
    repeats: int,
    engine: Engine,
) -> tuple[float, float]:
    """Best tokens per second of each, after one turn that does not count."""
    best = [0.0, 0.0]
    for turn in range(repeats + 1):
        for side, run in enumerate((theirs, ours)):
            engine.publish(engine.decoder.model.state_dict(), turn)  # no prompt is known beforehand
            started = time.perf_counter()
            tokens = run(prompts)
            rate = tokens / (time.perf_counter() - started)
            best[side] = max(best[side], rate if turn else 0.0)
    return best[0], best[1]


def plain(model: Any, tokens: int) -> Callable[[torch.Tensor], int]:
    def run(prompts: torch.Tensor) -> int:
        with torch.inference_mode():
            out = model.generate(
                prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0, max_new_tokens=tokens
            )
        return int(out.numel() - prompts.numel())

    return run


def in_turn(model: Any, tokens: int) -> Callable[[torch.Tensor], int]:
    one = plain(model, tokens)
    return lambda prompts: sum(one(prompt[None]) for prompt in prompts)


def whole(engine: Engine, tokens: int) -> Callable[[torch.Tensor], int]:
    return lambda prompts: count(engine.generate(prompts.tolist(), Params(max_tokens=tokens)))


def arriving(engine: Engine, tokens: int) -> Callable[[torch.Tensor], int]:
    def run(prompts: torch.Tensor) -> int:
        done: list[Sequence] = []
        all_done = threading.Event()

        def receive(finished: list[Sequence]) -> None:
            done.extend(finished)
            if len(done) == len(prompts):
                all_done.set()

        for prompt in prompts.tolist():
            engine.submit([Sequence(prompt, Params(max_tokens=tokens), receive)])
            time.sleep(GAP)
        all_done.wait()
        return count(done)

    return run


def count(sequences: list[Sequence]) -> int:
    return sum(len(sequence.token_ids) for sequence in sequences)


def never_end(model: Any, tokenizer: Any) -> None:
    """Both sides make the same number of tokens."""
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token = None
    model.generation_config.pad_token_id = 0


def report(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    machine = {"machine": platform.machine(), "system": platform.platform(), "torch": torch.__version__}
    line = {"model": arguments.model, "threads": arguments.threads, "tokens_per_second": results, **machine}
    if arguments.json:
        print(json.dumps(line))
        return
    for name, row in results.items():
        print(f"{name:9} generate {row['generate']:6,} tokens/s  engine {row['engine']:6,}  {row['ratio']:.2f} times")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="spark", help="spark, a folder in Hugging Face format, or a hub name")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=48, help="made for each request")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
