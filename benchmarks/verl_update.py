"""Where VERL's old log-probabilities and actor update spend their time, by its settings.

    python benchmarks/verl_update.py [--model FOLDER] [--rows 1024] [--tokens 130] [--cases NAME,NAME] [--output FILE]
    python benchmarks/verl_update.py --cases one --padded --logprobs fused --pack 65536

Run it in an environment that has VERL (`make verl-cpu`). Cases run one after another on the same rows. First whole
batches are timed: log-probabilities as VERL asks for them before an update, then the update (forward, backward, one
optimizer step). Then a part of an update is timed phase by phase, the device synchronised between phases, and a part
is recorded by torch's profiler. Without --model a random Llama is used: SmolLM2-135M's shape on a GPU, tiny on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from verl_worker import (
    CUDA,
    Case,
    Rows,
    log_probabilities,
    make_rows,
    make_worker,
    old_logprobs,
    prepare,
    random_model,
    update,
)

FUSED = Case(logprobs="fused")
VARLEN = replace(FUSED, attention="varlen")
PADDED = replace(FUSED, packed=False)
UNSHARDED = "actor_rollout_ref.actor.fsdp_config.reshard_after_forward=False"
CASES = {
    "reference": Case(packed=False, logprobs="vectorised", pack=32768, dtype="fp32"),
    "as_is": Case(),
    "vectorised": Case(logprobs="vectorised"),
    "fused": FUSED,
    "fused_4096": replace(FUSED, pack=4096),
    "padded": PADDED,
    "padded_65536": replace(PADDED, pack=65536),
    "padded_131072": replace(PADDED, pack=131072),
    "padded_keep": replace(PADDED, pack=32768, checkpointing=False),
    "padded_vectorised": Case(packed=False, logprobs="vectorised"),
    "varlen": VARLEN,
    "varlen_65536": replace(VARLEN, pack=65536),
    "varlen_131072": replace(VARLEN, pack=131072),
    "varlen_keep": replace(VARLEN, pack=32768, checkpointing=False),
    "varlen_unsharded": replace(VARLEN, pack=65536, extra=(UNSHARDED,)),
    "varlen_vectorised": replace(VARLEN, logprobs="vectorised", pack=32768),
    "triton": replace(VARLEN, logprobs="triton", pack=65536),
    "flex": replace(FUSED, attention="flex_attention", pack=65536),
}
#: Marks of VERL and FSDP that lie on the device's line of time beside the kernels they hold.
SPANS = ("mini_batch", "micro_batch", "Optimizer.", "FSDP::")


def synchronize() -> None:
    if CUDA:
        torch.cuda.synchronize()


def time_call(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that `call` takes on the device, and what it returns."""
    synchronize()
    start = time.perf_counter()
    found = call()
    synchronize()
    return time.perf_counter() - start, found


@contextlib.contextmanager
def phases(worker: Any) -> Iterator[dict[str, float]]:
    """Seconds by phase of what runs inside; the device is synchronised around each phase."""
    from verl.workers.engine.fsdp import transformer_impl  # noqa: PLC0415 - looks for the platform when imported

    engine, seconds = worker.engine, defaultdict[str, float](float)
    with contextlib.ExitStack() as restored:

        def watch(owner: Any, name: str, phase: str) -> None:
            inner, own = getattr(owner, name), name in vars(owner)

            def outer(*args: Any, **kwargs: Any) -> Any:
                spent, found = time_call(lambda: inner(*args, **kwargs))
                seconds[phase] += spent
                return found

            setattr(owner, name, outer)
            restored.callback(*((setattr, owner, name, inner) if own else (delattr, owner, name)))

        watch(transformer_impl, "prepare_micro_batches", "split into micro-batches")
        watch(engine, "prepare_model_inputs", "inputs")
        watch(engine.module, "forward", "forward")
        watch(engine, "prepare_model_outputs", "log-probabilities")
        watch(worker, "loss_fn", "loss")
        watch(torch.Tensor, "backward", "backward")
        watch(engine, "optimizer_step", "optimizer")
        yield seconds


def phase_seconds(worker: Any, rows: Rows, logprobs: torch.Tensor) -> dict[str, Any]:
    """An update of `rows` by phase."""
    with phases(worker) as seconds:
        total, _ = time_call(lambda: update(worker, rows, logprobs))
    known = {name: round(each, 3) for name, each in seconds.items()}
    return {"tokens": sum(rows.lengths), **known, "rest": round(total - sum(seconds.values()), 3)}


def profile_update(worker: Any, rows: Rows, logprobs: torch.Tensor) -> dict[str, Any]:
    """What torch's profiler sees of an update of `rows`: kernels, and the operations that take most time themselves."""
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if CUDA else [ProfilerActivity.CPU]
    update(worker, rows, logprobs)
    with profile(activities=activities, acc_events=True) as seen:
        total, _ = time_call(lambda: update(worker, rows, logprobs))
    averages = [each for each in seen.key_averages() if not each.key.startswith(SPANS)]
    on_device = [each for each in seen.events() if each.device_type != DeviceType.CPU]
    kernels = [each for each in on_device if not each.name.startswith(SPANS)]

    def top(attribute: str) -> list[dict[str, Any]]:
        most = sorted(averages, key=lambda each: -getattr(each, attribute))[:12]
        found = [(each, round(getattr(each, attribute) / 1e6, 4)) for each in most]
        return [{"name": each.key[:90], "calls": each.count, "seconds": spent} for each, spent in found if spent]

    return {
        "tokens": sum(rows.lengths),
        "seconds": round(total, 3),
        "device_seconds": round(sum(each.self_device_time_total for each in kernels) / 1e6, 3),
        "kernels": len(kernels),
        "operations_on_cpu": sum(each.count for each in averages if each.device_type == DeviceType.CPU),
        "top_cpu": top("self_cpu_time_total"),
        "top_device": top("self_device_time_total"),
    }


def batch_seconds(worker: Any, rows: Rows) -> tuple[tuple[float, float], torch.Tensor, dict[str, Any]]:
    """Seconds of the log-probabilities and of the update, and what each gave."""
    infer, logprobs = time_call(lambda: old_logprobs(worker, rows))
    seconds, metrics = time_call(lambda: update(worker, rows, logprobs))
    return (infer, seconds), logprobs, metrics


def measure(case: Case, options: argparse.Namespace, rows: Rows, reference: dict[str, Any]) -> dict[str, Any]:
    """Times of a case. `reference` holds the first case's log-probabilities, with which others are compared."""
    start, worker = time_call(lambda: make_worker(case, options.model))
    first, logprobs, metrics = batch_seconds(worker, rows.part(sum(rows.lengths) // 4))  # compiles, fills caches
    times = []
    for _ in range(1 if case.logprobs == "loop" else options.repeats):
        seconds, logprobs, metrics = batch_seconds(worker, rows)
        times.append(seconds)
    infer, updates = zip(*times, strict=True)
    values = reference.setdefault("logprobs", logprobs.values().float())
    difference = (logprobs.values().float() - values).abs()
    return {
        "start_seconds": round(start, 2),
        "first_seconds": [round(each, 3) for each in first],
        "logprob_seconds": round(statistics.median(infer), 3),
        "update_seconds": round(statistics.median(updates), 3),
        "spread": [[round(min(each), 3), round(max(each), 3)] for each in (infer, updates)],
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if CUDA else None,
        "gradient_norm": float(metrics["grad_norm"][0]),
        "logprob_difference": {"mean": float(difference.mean()), "largest": float(difference.max())},
        "phases": phase_seconds(worker, rows.part(16384), logprobs),
        "profile": profile_update(worker, rows.part(1024 if case.logprobs == "loop" else 8192), logprobs),
    }


def run(name: str, case: Case, options: Any, rows: Rows, reference: dict[str, Any], deadline: float) -> dict[str, Any]:
    """A case that cannot run here says why, and the others go on."""
    each: dict[str, Any] = {"name": name, **asdict(case)}
    begun = time.perf_counter()
    if begun > deadline:
        return each | {"error": "not started: no time left"}
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    try:
        with log_probabilities(case.logprobs):
            each |= measure(case, options, rows, reference)
    except Exception as error:
        traceback.print_exc()
        each["error"] = f"{type(error).__name__}: {error}"[:400]
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
    return each | {"case_seconds": round(time.perf_counter() - begun, 1)}


def line(each: dict[str, Any]) -> str:
    if "error" in each:
        return f"{each['name']:18} {each['error'][:90]}"
    return (
        f"{each['name']:18} log-probabilities {each['logprob_seconds']:7.2f} s   "
        f"update {each['update_seconds']:7.2f} s   difference {each['logprob_difference']['mean']:.1e}   "
        f"gradient {each['gradient_norm']:.4f}   {each['phases']}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a Llama; without it a random one")
    parser.add_argument("--rows", type=int, default=1024 if CUDA else 16)
    parser.add_argument("--tokens", type=int, default=130, help="in a row, on average")
    parser.add_argument("--cases", default=",".join(CASES), help=f"some of {', '.join(CASES)}, or one: see below")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1e9, help="start no case later than this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file, written again after each case")
    one = parser.add_argument_group("settings of --cases one")
    one.add_argument("--padded", action="store_true")
    one.add_argument("--attention", default="sdpa")
    one.add_argument("--logprobs", default="loop", choices=("loop", "vectorised", "fused", "triton"))
    one.add_argument("--pack", type=int, default=16384, help="tokens in a micro-batch")
    one.add_argument("--keep", action="store_true", help="keep activations: no gradient checkpointing")
    one.add_argument("--dtype", default=Case.dtype)
    one.add_argument("--override", action="append", default=[], help="one more override of VERL's")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> dict[str, Case]:
    own = Case(
        packed=not options.padded,
        attention=options.attention,
        logprobs=options.logprobs,
        pack=options.pack,
        checkpointing=not options.keep,
        dtype=options.dtype,
        extra=tuple(options.override),
    )
    return {name: own if name == "one" else CASES[name] for name in options.cases.split(",")}


def main() -> None:
    options, out = arguments(), sys.stdout
    deadline = time.perf_counter() + options.seconds
    found: dict[str, Any] = {
        "benchmark": "verl_update",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name() if CUDA else "cpu",
        "versions": {name: version(name) for name in ("torch", "transformers", "verl")},
        "command": shlex.join(["python", "benchmarks/verl_update.py", *sys.argv[1:]]),
        "model": options.model.name if options.model else "random",
        **{name: getattr(options, name) for name in ("rows", "tokens", "repeats", "seed")},
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):  # VERL prints a lot
        options.model = options.model or random_model(Path(folder))
        vocabulary = json.loads((options.model / "config.json").read_text("utf-8"))["vocab_size"]
        prepare()
        rows = make_rows(options.rows, options.tokens, vocabulary, options.seed)
        found |= {"row_tokens": sum(rows.lengths), "cases": []}
        reference: dict[str, Any] = {}
        for name, case in chosen(options).items():
            found["cases"].append(run(name, case, options, rows, reference, deadline))
            print(line(found["cases"][-1]), file=out, flush=True)
            if options.output:
                options.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
