"""Models of real shapes with random weights, trained on one GPU: what a step takes, and how much memory.

    python benchmarks/real_shapes.py make TOKENIZER FOLDER [SHAPE ...]
    python benchmarks/real_shapes.py train FOLDER OUTPUT PART [PART ...] [--steps 3] [--set NAME=VALUE ...]
    python benchmarks/real_shapes.py plot OUTPUT

`make` writes each model into FOLDER/SHAPE with the tokenizer that the folder TOKENIZER holds. A part is a shape and who
trains it, such as `llama-8b/verl` or `qwen-1.5b/vllm` (the learner in plain torch with vLLM); it goes to OUTPUT as
JSON and log, with the memory that the GPU was seen to use, second by second; so does what was refused, with the words
of the refusal. Rewards say nothing here, and everything else is that of a real model: memory, times, weights that
travel, and how far sampler and learner are apart (`kl_sampler`; `precision.py` says how far rounding alone puts them).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
_QWEN: dict[str, Any] = {"model_type": "qwen2", "max_position_embeddings": 32768, "num_hidden_layers": 28}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": _QWEN | {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1,
                     "num_hidden_layers": 2, "vocab_size": 512, "tie_word_embeddings": False},
    "qwen-1.5b": _QWEN | {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12,
                          "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "qwen-1.8b": _QWEN | {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12,
                          "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": False},
    "qwen-7b": _QWEN | {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
                        "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False},
    "llama-8b": {"model_type": "llama", "max_position_embeddings": 131072, "num_hidden_layers": 32,
                 "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
                 "vocab_size": 128256, "tie_word_embeddings": False},
    "olmoe-7b": {"model_type": "olmoe", "max_position_embeddings": 4096, "num_hidden_layers": 16, "hidden_size": 2048,
                 "intermediate_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64,
                 "num_experts_per_tok": 8, "vocab_size": 50304, "tie_word_embeddings": False},
    "tiny-olmoe": {"model_type": "olmoe", "max_position_embeddings": 4096, "num_hidden_layers": 2, "hidden_size": 64,
                   "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "num_experts": 4,
                   "num_experts_per_tok": 2, "vocab_size": 512, "tie_word_embeddings": False},
}  # fmt: skip
#: 512 rollouts of one call a step. No reward is ever earned: what moves the weights is the entropy.
SETTINGS: dict[str, object] = {
    "rollouts.tasks_per_step": 64,
    "rollouts.group_size": 8,
    "rollouts.concurrency": 512,
    "rollouts.runner": 8,
    "optimizer.learning_rate": 1e-6,
    "serving.max_length": 512,
    "evaluation.tasks": 8,
    "save_every": 1000,
    "algorithm.entropy": 0.01,
}
#: CUDA graphs, which these leave out, take a minute to record. What --resume needs would take more than a small disk.
TRAINED_BY: dict[str, dict[str, object]] = {
    "verl": {
        "actor_rollout_ref.rollout.enforce_eager": "true",
        "actor_rollout_ref.actor.checkpoint.save_contents": "[hf_model]",
        "optimizer.micro_batch_tokens": 16384,
    },
    "vllm": {"vllm.enforce_eager": "true", "optimizer.micro_batch_tokens": 8192, "serving.memory": 0.4},
}


def make(tokenizer: Path, folder: Path, names: list[str]) -> None:
    """Nothing beyond the tokenizer's ids is likely, as in a model that has learned."""
    import torch  # noqa: PLC0415 - `train` and `plot` need none
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    words = AutoTokenizer.from_pretrained(tokenizer)
    torch.set_default_dtype(torch.bfloat16)
    for name in names:
        began, shape = time.monotonic(), dict(SHAPES[name])
        config = AutoConfig.for_model(shape.pop("model_type"), **shape, bos_token_id=1, eos_token_id=2, pad_token_id=2)
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            head = model.get_output_embeddings().weight
            head[: len(words)] *= 3
        model.save_pretrained(folder / name)
        words.save_pretrained(folder / name)
        print(
            f"{name}: {sum(each.numel() for each in model.parameters()) / 1e9:.2f} billion parameters,"
            f" {time.monotonic() - began:.0f} s",
            flush=True,
        )
        del model, head


@contextmanager
def watch_memory() -> Iterator[list[int]]:
    """The MiB that the first GPU has in use, once a second; nothing where there is none."""
    seen: list[int] = []
    over = threading.Event()
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]

    def watch() -> None:
        while not over.wait(1.0):
            try:
                seen.append(int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout))
            except (OSError, subprocess.CalledProcessError):
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def write_tasks(folder: Path) -> None:
    """Sums, in the files that `arithmetic.py` reads: nobody solves them, so that no other package is needed."""
    pairs = [(a, b) for a in range(10, 74) for b in range(10, 74)]
    tasks = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in pairs]
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in (("train", tasks[:-64]), ("held_out", tasks[-64:])):
        (folder / f"sums_{name}.json").write_text(json.dumps(some), "utf-8")


def train(part: str, options: argparse.Namespace) -> int:
    """Train one part, and write what came of it, also of one that was refused or cut off."""
    shape, _, by = part.partition("/")
    name, began = part.replace("/", "-"), time.monotonic()
    file, log, run = options.output / f"{name}.json", options.output / f"{name}.log", options.output / "runs" / name
    with log.open("w") as output, watch_memory() as seen:
        code = _run(_command(shape, by, name, options), output, options.limit)
        wait_for_memory(seen)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)  # as large as the disk
    with log.open("a") as output:
        output.write("\n".join(["", "backend.log:", *_own_lines(run / "backend.log"), ""]))
    found = json.loads(file.read_text()) if file.exists() else _cut_off(run, log.read_text(errors="replace"))
    found |= {"part": part, "exit_code": code, "memory_mib": seen, "wall_seconds": round(time.monotonic() - began, 1)}
    file.write_text(json.dumps(found) + "\n")
    print(
        f"{part}: exit code {code} after {found['wall_seconds']:.0f} s; at most {max(seen, default=0)} MiB; "
        f"{found.get('refused') or [_short(step) for step in found['steps']]}",
        flush=True,
    )
    return code


def _command(shape: str, by: str, name: str, options: argparse.Namespace) -> list[str]:
    settings = {**SETTINGS, **TRAINED_BY[by], **dict(each.split("=", 1) for each in options.set)}
    backend = ["--backend=verl"] if by == "verl" else ["--backend=embedded", "--engine=vllm"]
    data = options.output / "data"
    write_tasks(data)
    return [
        sys.executable,
        str(HERE / "arithmetic.py"),
        f"--model={options.folder / shape}",
        "--agent=sums",
        f"--steps={options.steps}",
        "--tasks=8",
        f"--name={name}",
        f"--runs={options.output / 'runs'}",
        f"--output={options.output / name}.json",
        f"--data={data}",
        *backend,
        *([f"--backend-python={options.backend_python}"] if options.backend_python else []),
        *(f"--set={key}={value}" for key, value in settings.items()),
    ]


def _run(command: list[str], output: IO[str], limit: float) -> int:
    """The exit code. What has not ended after `limit` seconds is asked to, and killed half a minute later."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    for seconds, end in ((limit, process.terminate), (30.0, process.kill)):
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            end()
    return process.wait()


def wait_for_memory(seen: list[int]) -> None:
    """Wait until the GPU has as much free memory as before, half a minute at most: processes may end a little later."""
    end = time.monotonic() + 30.0
    while seen and seen[-1] > seen[0] + 2048 and time.monotonic() < end:
        time.sleep(1.0)


def _own_lines(log: Path) -> list[str]:
    """What this project's code says in a backend's log, and errors."""
    if not log.exists():
        return []
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if "lightning_" in line or "Error: " in line][:60]


def _cut_off(run: Path, told: str) -> dict[str, Any]:
    """The steps that a run did, or the words with which it was refused before its first one."""
    metrics, config = run / "metrics.jsonl", run / "config.json"
    steps = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    facts = json.loads(config.read_text()).get("facts", {}) if config.exists() else {}
    errors = [line for line in told.splitlines() if re.match(r"lightning_sdk\.errors\.\w+:", line)]
    return {"steps": steps, "facts": facts} | ({"cut_off": True} if steps or not errors else {"refused": errors[-1]})


def _short(step: dict[str, Any]) -> dict[str, float]:
    names = ("seconds", "seconds_generate", "seconds_update", "kl_sampler", "grad_norm", "tokens", "rows")
    return {name: round(step[name], 5) for name in names if name in step}


def plot(output: Path) -> None:
    """Seconds of a step by part, and the memory over time."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second

    told = {file.stem: json.loads(file.read_text()) for file in sorted(output.glob("*-*.json"))}
    found = {name: each for name, each in told.items() if each.get("memory_mib") and "refused" not in each}
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    bars, lines = figure.subplots(1, 2)
    for name, each in found.items():
        later = each["steps"][1:] or each["steps"]
        if later:
            generate, update = (
                sum(step[f"seconds_{kind}"] for step in later) / len(later) for kind in ("generate", "update")
            )
            bars.barh(name, generate, color="tab:blue")
            bars.barh(name, update, left=generate, color="tab:orange")
        lines.plot([mib / 1024 for mib in each["memory_mib"]], label=name)
    bars.set(xlabel="seconds of a step: rollouts, update")
    bars.invert_yaxis()
    lines.set(xlabel="seconds since the start", ylabel="GiB in use on the GPU", ylim=(0, None))
    lines.legend(fontsize=7)
    figure.savefig(output / "real_shapes.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    making = kinds.add_parser("make")
    making.add_argument("tokenizer", type=Path)
    making.add_argument("folder", type=Path)
    making.add_argument("shapes", nargs="*", default=list(SHAPES), metavar="SHAPE")
    training = kinds.add_parser("train")
    training.add_argument("folder", type=Path)
    training.add_argument("output", type=Path)
    training.add_argument("parts", nargs="+", metavar="PART")
    training.add_argument("--steps", type=int, default=3)
    training.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")
    training.add_argument("--limit", type=float, default=560.0, help="seconds for each part (%(default)s)")
    training.add_argument("--backend-python", help="python of an environment that holds the backend")
    kinds.add_parser("plot").add_argument("output", type=Path)
    options = parser.parse_args()
    if options.kind == "make":
        make(options.tokenizer, options.folder, options.shapes)
    elif options.kind == "plot":
        plot(options.output)
    else:
        options.output.mkdir(parents=True, exist_ok=True)
        codes = [train(part, options) for part in options.parts]
        sys.exit(any(codes))


if __name__ == "__main__":
    main()
