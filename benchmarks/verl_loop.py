"""VERL's own agent loop on the sums of `arithmetic.py`, with the settings that our backend gives VERL: time per step.

    python benchmarks/verl_loop.py --model FOLDER [--data FOLDER] [--steps 8] [--tasks-per-step 128] [--group-size 8]
                                   [--set NAME=VALUE ...] [--output FILE]

In VERL's environment. Model, batch, lengths, sampling, kernels, precision, micro-batches and vLLM's options are those
of `arithmetic.py --agent sums --backend verl` with the same `--set`: both come from `lightning_verl.config`. What
differs is the loop: VERL's agent-loop workers ask its servers in its own way, and GRPO's advantages are its own. A
step's seconds are read off the clock, from one line of VERL's log to the next.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arithmetic
import pandas
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

from lightning_process.source import locate
from lightning_sdk.settings.settings import Settings, parse
from lightning_verl import cluster
from lightning_verl import config as ours
from lightning_vllm.command import tool_parser
from lightning_vllm.model_reader import read_model_info


def compute_score(data_source: str, solution_str: str, ground_truth: str, **_: Any) -> float:
    """As VERL calls it, by this file's path."""
    return arithmetic.correct({"answer": ground_truth}, solution_str)


def configuration(options: argparse.Namespace, settings: Settings, folder: Path) -> Any:
    """What `lightning_verl.config` makes of the settings, and what VERL's own loop needs beside it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    info = read_model_info(locate(options.model))
    gpus = settings.cluster.gpus or max(1, torch.cuda.device_count())
    place = ours.RunPlacement(
        device=device,
        nodes=1,
        gpus=gpus,
        model=info.path,
        name=Path(options.model).name,
        max_length=settings.serving.max_length,
        anatomy=info.anatomy,
        tool_parser=tool_parser(settings, info),
    )
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer")
    files = write_tasks(options, folder)
    values = ours.map_settings(settings, place) | needed_overrides(options, settings, place, files, folder)
    for name, value in (values | {name: ours.parse_yaml(each) for name, each in settings.verbatim.items()}).items():
        OmegaConf.update(config, name, value, force_add=True)
    return config


def needed_overrides(
    options: argparse.Namespace, settings: Settings, place: ours.RunPlacement, files: str, folder: Path
) -> dict[str, Any]:
    rollout, actor = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"
    return {
        "actor_rollout_ref.model.path": place.model,
        f"{rollout}.name": "vllm",
        f"{rollout}.n": options.group_size,
        f"{rollout}.calculate_log_probs": True,
        f"{rollout}.prompt_length": place.max_length - arithmetic.RESPONSE,
        f"{rollout}.response_length": arithmetic.RESPONSE,
        f"{rollout}.log_prob_use_dynamic_bsz": True,
        f"{rollout}.engine_kwargs.vllm.distributed_executor_backend": "uni",
        f"{rollout}.agent.num_workers": 8 if place.device == "cuda" else 1,
        f"{actor}.ppo_mini_batch_size": options.tasks_per_step,
        f"{actor}.ppo_epochs": 1,
        f"{actor}.calculate_entropy": True,
        f"{actor}.use_kl_loss": False,
        f"{actor}.optim.lr": settings.optimizer.learning_rate or 1e-6,
        "algorithm.adv_estimator": "grpo",
        "algorithm.use_kl_in_reward": False,
        "algorithm.rollout_correction.bypass_mode": True,
        "data.train_files": files,
        "data.val_files": files,
        "data.train_batch_size": options.tasks_per_step,
        "data.max_prompt_length": place.max_length - arithmetic.RESPONSE,
        "data.max_response_length": arithmetic.RESPONSE,
        "data.dataloader_num_workers": 0,
        "reward.num_workers": 8 if place.device == "cuda" else 1,
        "reward.custom_reward_function.path": __file__,
        "reward.custom_reward_function.name": "compute_score",
        "trainer.device": place.device,
        "trainer.nnodes": 1,
        "trainer.n_gpus_per_node": place.gpus,
        "trainer.val_before_train": False,
        "trainer.test_freq": -1,
        "trainer.save_freq": -1,
        "trainer.total_training_steps": options.steps,
        "trainer.total_epochs": 100,
        "trainer.logger": ["file"],
        "trainer.resume_mode": "disable",
        "trainer.default_local_dir": str(folder / "out"),
    }


def write_tasks(options: argparse.Namespace, folder: Path) -> str:
    train, _ = arithmetic.data("sums", options.data, 200)
    rows = [
        {
            "prompt": [{"role": "user", "content": arithmetic.question_of(task)}],
            "data_source": "sums",
            "agent_name": "single_turn_agent",
            "reward_model": {"ground_truth": task["answer"], "style": "rule"},
            "extra_info": {"index": index},
        }
        for index, task in enumerate(train)
    ]
    file = folder / "tasks.parquet"
    pandas.DataFrame(rows).to_parquet(file)
    return str(file)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    given = dict(each.partition("=")[::2] for each in options.set)
    return {name: parse(name, value) for name, value in given.items()}


def watch(log: Path, stop: threading.Event, told: Callable[[list[dict[str, Any]], list[float]], None]) -> None:
    """Tell the steps in VERL's log, and when the line of each appeared, whenever there is a new one."""
    stamps: list[float] = []
    while not stop.wait(0.01):
        now, lines = time.time(), log.read_text("utf-8").splitlines(keepends=True) if log.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) > len(stamps):
            stamps += [now] * (len(whole) - len(stamps))
            told([json.loads(line)["data"] for line in whole], stamps)


def run(options: argparse.Namespace) -> None:
    """Write the result after each step from the second on, the first being left out of the medians: a run that is cut
    off has told what it did."""
    began = time.time()
    fixed = {
        "benchmark": "verl_loop",
        "model": Path(options.model).name,
        "settings": settings_of(options),
        "tasks_per_step": options.tasks_per_step,
        "group_size": options.group_size,
        "machine": arithmetic.machine(),
        "began": began,
    }

    def describe_steps(steps: list[dict[str, Any]], stamps: list[float]) -> None:
        if len(steps) < 2:
            return
        for step, before, after in zip(steps[1:], stamps, stamps[1:], strict=False):
            step["seconds"] = after - before
        result = fixed | {"first_step_ended": stamps[0] - began, "median": medians(steps[1:])}
        print(json.dumps(result), flush=True)
        if options.output:
            options.output.write_text(json.dumps(result | {"steps": steps}) + "\n", "utf-8")

    with tempfile.TemporaryDirectory() as name:
        folder, stop = Path(name), threading.Event()
        settings = Settings.from_dict({"model": options.model, "backend": "verl", **settings_of(options)})
        config = configuration(options, settings, folder)
        log = folder / "metrics.jsonl"
        os.environ["VERL_FILE_LOGGER_PATH"] = str(log)
        cluster.join(settings, config.trainer.device)
        watcher = threading.Thread(target=watch, args=(log, stop, describe_steps))
        watcher.start()
        try:
            run_ppo(config, task_runner_class=TaskRunnerV1)
        finally:
            cluster.leave()
            time.sleep(0.1)
            stop.set()
            watcher.join()


def medians(steps: list[dict[str, Any]]) -> dict[str, float]:
    told = ("timing_s", "perf", "seconds", "response_length/mean")
    return {
        name: statistics.median(step[name] for step in steps if name in step)
        for name in steps[-1]
        if name.startswith(told)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder in Hugging Face format")
    parser.add_argument("--data", type=Path, help="as in arithmetic.py")
    parser.add_argument("--steps", type=int, default=8, help="updates (%(default)s)")
    parser.add_argument("--tasks-per-step", type=int, default=128, help="(%(default)s)")
    parser.add_argument("--group-size", type=int, default=8, help="(%(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of ours or VERL's"
    )
    parser.add_argument("--output", type=Path, help="write the result as JSON to this file")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
