"""The ends of every numeric setting's range: what is just accepted, and what is just refused."""

from typing import Any

NAN, INF = float("nan"), float("inf")
TINY, HUGE = 1e-12, 1 << 40
COUNT: tuple[list[Any], list[Any]] = [1, HUGE], [0, -1]
MAYBE: tuple[list[Any], list[Any]] = [0, HUGE], [-1]
SHARE: tuple[list[Any], list[Any]] = [0.0, 1.0], [-TINY, 1 + 1e-9]
DECAY: tuple[list[Any], list[Any]] = [0.0, 1 - 1e-9], [-TINY, 1.0]
INSIDE: tuple[list[Any], list[Any]] = [TINY, 1 - 1e-9], [0.0, 1.0]
POSITIVE: tuple[list[Any], list[Any]] = [TINY, 1e9], [0.0, -1.0]
NOT_NEGATIVE: tuple[list[Any], list[Any]] = [0.0, 1e9], [-TINY]
SECONDS: tuple[list[Any], list[Any]] = [0.001, 1e6], [0.0, 1e6 + 1]

#: Dotted name -> accepted, refused. NaN and infinities are refused everywhere.
ENDS: dict[str, tuple[list[Any], list[Any]]] = {
    "steps": COUNT,
    "seed": ([0, (1 << 32) - 1], [-1, 1 << 32]),
    "save_every": COUNT,
    "sampling.temperature": ([0.01, 2.0], [0.0, 0.009, 2.01, 3.0]),
    "sampling.max_tokens": ([1, 1 << 30], [0, (1 << 30) + 1]),
    "credit.discount": ([TINY, 1.0], [0.0, 1 + 1e-9]),
    "credit.weight": NOT_NEGATIVE,
    "credit.momentum": DECAY,
    "algorithm.clip_low": ([TINY, 1.0], [0.0, 1 + 1e-9]),
    "algorithm.clip_high": POSITIVE,
    "algorithm.clip_dual": ([0.0, 1 + 1e-9, 1e9], [-TINY, 0.5, 1.0]),
    "algorithm.entropy": NOT_NEGATIVE,
    "algorithm.epochs": COUNT,
    "algorithm.mini_batches": COUNT,
    "algorithm.dynamic_sampling": MAYBE,
    "divergence.coefficient": NOT_NEGATIVE,
    "importance.high": ([1.0, 1e9], [1 - 1e-9]),
    "importance.low": SHARE,
    "value.gae_lambda": SHARE,
    "value.coefficient": POSITIVE,
    "value.clip": NOT_NEGATIVE,
    "value.learning_rate": POSITIVE,
    "value.warmup_steps": MAYBE,
    "length.max_row": MAYBE,
    "length.limit": MAYBE,
    "length.buffer": ([0], [-1, 1]),
    "length.penalty": NOT_NEGATIVE,
    "optimizer.learning_rate": ([None, TINY, 1e9], [0.0, -1.0]),
    "optimizer.warmup_steps": MAYBE,
    "optimizer.decay": SHARE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.beta1": DECAY,
    "optimizer.beta2": DECAY,
    "optimizer.max_norm": POSITIVE,
    "optimizer.micro_batch_tokens": COUNT,
    "lora.rank": MAYBE,
    "lora.alpha": COUNT,
    "serving.replicas": MAYBE,
    "serving.tensor_parallel": COUNT,
    "serving.memory": INSIDE,
    "serving.max_length": MAYBE,
    "cluster.nodes": COUNT,
    "cluster.gpus": MAYBE,
    "cluster.engine_gpus": MAYBE,
    "rollouts.tasks_per_step": COUNT,
    "rollouts.group_size": ([2, HUGE], [0, 1]),
    "rollouts.concurrency": COUNT,
    "rollouts.timeout": SECONDS,
    "rollouts.deadline": SECONDS,
    "rollouts.staleness": MAYBE,
    "failure.retries": ([0, 20], [-1, 21]),
    "failure.backoff": ([0.0, 3600.0], [-TINY, 3601.0]),
    "failure.refills": MAYBE,
    "failure.reward": ([None, -1e9, 0.0, 1e9], []),
    "failure.max_failed": SHARE,
    "failure.flat_steps": MAYBE,
    "prompts.budget_rollouts": COUNT,
    "prompts.budget_calls": MAYBE,
    "prompts.budget_tokens": MAYBE,
    "prompts.budget_money": NOT_NEGATIVE,
    "prompts.budget_minutes": NOT_NEGATIVE,
    "prompts.reply_tokens": MAYBE,
    "prompts.reflection": INSIDE,
    "prompts.proposals": COUNT,
    "prompts.minibatch": COUNT,
    "prompts.beam": COUNT,
    "prompts.seeds": COUNT,
    "prompts.max_length": MAYBE,
    "prompts.length_penalty": NOT_NEGATIVE,
    "phases.steps": COUNT,
    "phases.selection": INSIDE,
    "stored.best": COUNT,
    "stored.min_reward": ([None, -1e9, 0.0, 1e9], []),
    "stored.beta": POSITIVE,
    "evaluation.tasks": COUNT,
    "evaluation.every": MAYBE,
    "evaluation.split": INSIDE,
    "evaluation.seeds": ([1], [0, -1]),
    "evaluation.temperature": ([0.0, 2.0], [-TINY, 2.01]),
    "evaluation.reward_low": ([None], [0.0]),  # only both together
    "evaluation.reward_high": ([None], [1.0]),
}
ACCEPTED = [(name, value) for name, (accepted, _) in ENDS.items() for value in accepted]
