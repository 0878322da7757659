"""Tokens per second of the engine beside plain `transformers.generate` on the same model, in the same process.

    python benchmarks/engine.py [--model spark] [--requests 64] [--tokens 48] [--threads 1] [--repeats 3] [--json]

Three loads, each sampled at temperature 1 from random prompts of 40 ids, never ended before `--tokens`: one request
*alone*; requests *arriving* one by one, more quickly than they can be served in turn, which `generate` does in turn;
all requests *together*, which `generate` takes as one batch. Both sides alternate; the best of the repeats counts.

Beside them the *step*: tokens a second of the model's bare forward passes for one more token of each request, without
sampling, by transformers in float32 and in bfloat16, and those of the engine between two prompts, everything included.
The clock of the process is read too: on a machine that others use, tokens for each of its seconds say more.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import platform
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import DynamicCache

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
    for name, (theirs, ours, given) in loads.items() if not arguments.steps else ():
        baseline, mine = side_by_side(theirs, ours, given, arguments.repeats, engine)
        results[name] = {"generate": round(baseline), "engine": round(mine), "ratio": round(mine / baseline, 2)}
    results["step"] = steps(loaded.model, engine, prompts, arguments)
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


def steps(model: Any, engine: Engine, prompts: torch.Tensor, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of the wall and of the process, in steps without prompts; medians of alternating repeats."""
    half = copy.deepcopy(model).bfloat16()
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        "float32": lambda: bare_steps(model, prompts, arguments.tokens),
        "bfloat16": lambda: bare_steps(half, prompts, arguments.tokens),
        "engine": lambda: engine_steps(engine, prompts, arguments.tokens),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(arguments.repeats + 1):
        for name, run in sides.items():
            measured = run()
            if turn:
                found[name].append(measured)
    medians = {name: tuple(map(statistics.median, zip(*each, strict=True))) for name, each in found.items()}
    rows = {name: {"wall": round(wall), "processor": round(own)} for name, (wall, own) in medians.items()}
    ratio = medians["engine"][1] / max(medians["float32"][1], medians["bfloat16"][1])
    return {**rows, "ratio": round(ratio, 2)}


def bare_steps(model: Any, prompts: torch.Tensor, tokens: int) -> tuple[float, float]:
    """Forward passes with transformers' own cache, for one token of each request."""
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    kept = {name: DynamicCache(config=model.config), "use_cache": True}
    with torch.inference_mode():
        model(prompts, logits_to_keep=1, **kept)
        last = prompts[:, -1:]
        began, own = time.perf_counter(), time.process_time()
        for _ in range(tokens):
            model(last, **kept)
        return rates(prompts.shape[0] * tokens, began, own)


def engine_steps(engine: Engine, prompts: torch.Tensor, tokens: int) -> tuple[float, float]:
    """What the engine takes for the tokens after the first ones, whose prompts it has to compute."""
    engine.generate(prompts.tolist(), Params(max_tokens=1))  # their keys and values stay
    began, own = time.perf_counter(), time.process_time()
    made = count(engine.generate(prompts.tolist(), Params(max_tokens=tokens)))
    return rates(made, began, own)


def rates(tokens: int, began: float, own: float) -> tuple[float, float]:
    return tokens / (time.perf_counter() - began), tokens / (time.process_time() - own)


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
    step = results.pop("step")
    for name, row in results.items():
        print(f"{name:9} generate {row['generate']:6,} tokens/s  engine {row['engine']:6,}  {row['ratio']:.2f} times")
    for name in ("float32", "bfloat16", "engine"):
        wall, own = step[name]["wall"], step[name]["processor"]
        print(f"step      {name:8} {wall:6,} tokens/s  {own:6,} for each second of the process")
    print(f"step      engine is {step['ratio']:.2f} times the faster bare one, by the process's clock")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="spark", help="spark, smollm2, a folder, or a hub name")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=48, help="made for each request")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", action="store_true", help="only the steps")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
