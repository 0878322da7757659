"""The groups of settings: small frozen dataclasses whose defaults work. `lightning_sdk.settings` puts them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self


class Group:
    """What all groups share: a group remembers which of its settings were given, since only those change a resumed run.

    A copy does not remember.
    """

    __slots__ = ("given",)
    given: frozenset[str]

    def __new__(cls, *values: Any, **named: Any) -> Self:
        made = super().__new__(cls)
        in_order = [each.name for each in fields(cls)[: len(values)]]  # type: ignore[arg-type]
        object.__setattr__(made, "given", frozenset([*in_order, *named]))
        return made

    def given_values(self) -> dict[str, Any]:
        """Name -> value of what was given, or is not at its default."""
        default = type(self)()
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if name in self.given or value != getattr(default, name)}


@dataclass(frozen=True, slots=True)
class Sampling(Group):
    """How the engine samples the calls of trainable roles while training. Evaluation has its own temperature."""

    temperature: float = 1.0
    """Replaces the temperature that the agent asks for. What else would shape the distribution (top_p, top_k, min_p,
    penalties, logit_bias) is left out while training: the learner's own distribution has none of it."""
    max_tokens: int = 256
    """Upper bound for calls that do not set one."""


@dataclass(frozen=True, slots=True)
class Credit(Group):
    """How the rewards of a role become the advantages of its tokens. `credit.*` is for every role, `role.NAME.*` for
    one of them."""

    advantage: str = "rloo"
    """'rloo' (baseline: mean of the group's other rollouts, arXiv:2402.14740), 'grpo' (group mean and deviation,
    arXiv:2402.03300), 'dr_grpo' (group mean, arXiv:2503.20783), 'reinforce++' (normalised over the batch,
    arXiv:2501.03262), 'reinforce++_baseline' (group mean, then so), 'running_mean' (mean of the role's earlier steps),
    'reinforce' (no baseline), 'gae' (PPO with a value head, arXiv:1506.02438)."""
    returns: str = "rollout"
    """'rollout': each token is credited with all that the role earned; 'to_go': with what was earned from its call
    on."""
    discount: float = 1.0
    """Discount of what is earned one call later, with returns 'to_go' and with 'gae'."""
    signal: str = "both"
    """Which rewards count: the role's 'own', those of the whole 'rollout', or the sum of 'both'."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """Weights of rewards by name; 1 for a name that is not listed."""
    weight: float = 1.0
    """Weight of the role in the loss."""
    schedule: str = "always"
    """When the role is trained: 'always', 'never', steps such as '10-30' or '10-', or in turns such as '1/2' and
    '2/2'; '1/2:5' is five steps each."""
    momentum: float = 0.9
    """Momentum of the running mean."""


@dataclass(frozen=True, slots=True)
class Algorithm(Group):
    """The loss: how advantages become a gradient."""

    loss: str = "ppo"
    """'ppo' (clipped ratio of each token, arXiv:1707.06347), 'gspo' (ratio of the sequence, arXiv:2507.18071) or
    'cispo' (clipped weights, arXiv:2506.13585)."""
    clip_low: float = 0.2
    """The ratio to the old policy is clipped to [1 - clip_low, 1 + clip_high] (DAPO, arXiv:2503.14476, eq. 10)."""
    clip_high: float = 0.28
    """The upper bound, set separately from the lower."""
    clip_dual: float = 0.0
    """Bound of the ratio where the advantage is negative (dual-clip PPO, arXiv:1912.09729); 0: none."""
    aggregation: str = "seq-mean-token-sum-norm"
    """How tokens are weighed: sums divided by a constant (Dr. GRPO, arXiv:2503.20783: unbiased), 'token-mean' (DAPO),
    'seq-mean-token-mean' (GRPO) or 'seq-mean-token-sum'. A sequence is all that a role sampled in one rollout."""
    entropy: float = 0.0
    """Weight of the entropy bonus."""
    epochs: int = 1
    """Passes over each batch."""
    mini_batches: int = 1
    """Optimizer steps in each pass; rollouts are divided among them."""
    dynamic_sampling: int = 0
    """Further rounds of tasks, at most, to replace groups without signal (DAPO, section 3.2)."""


@dataclass(frozen=True, slots=True)
class Divergence(Group):
    """The pull towards the reference model, which is the model that training began with."""

    coefficient: float = 0.0
    """Weight of the divergence; 0 loads no reference model."""
    estimator: str = "k3"
    """'k1', 'k2' or 'k3' (Schulman, "Approximating KL divergence", 2020; k3 is eq. 4 of GRPO)."""
    place: str = "loss"
    """'loss', or 'reward': subtracted from the reward, as in InstructGPT (arXiv:2203.02155, eq. 2)."""


@dataclass(frozen=True, slots=True)
class Importance(Group):
    """Importance sampling between the sampler, which may be older or compute differently, and the trainer."""

    kind: str = "truncate"
    """'truncate' (weights are capped at `high`: IMPALA, arXiv:1802.01561, eq. 1), 'mask' (outside [low, high] a
    token has no policy gradient: IcePop, arXiv:2510.18855) or 'off'."""
    level: str = "token"
    """Ratio of each 'token', or of the whole 'sequence': the product over all that a role sampled in one rollout."""
    high: float = 2.0
    """Upper bound."""
    low: float = 0.5
    """Lower bound, for 'mask' only."""


@dataclass(frozen=True, slots=True)
class Value(Group):
    """The value head of PPO, trained where `credit.advantage` is 'gae'."""

    gae_lambda: float = 0.95
    """Between one-step estimates (0) and whole returns (1); per token."""
    coefficient: float = 0.1
    """Weight of the value loss."""
    clip: float = 0.2
    """How far a new estimate may be from the old one (arXiv:1707.06347, as in OpenAI's baselines); 0: no bound."""
    learning_rate: float = 1e-3
    """Learning rate of the head itself; the model below it learns with `optimizer.learning_rate`."""
    warmup_steps: int = 0
    """Number of first steps in which only the head is trained."""


@dataclass(frozen=True, slots=True)
class Length(Group):
    """What a row holds, and what happens to sequences that are too long."""

    rows: str = "lineage"
    """A row is a 'lineage', calls of which each goes on from exactly what the one before it left, or one 'call', whose
    context is then computed again for each: the same tokens are learned from, in more rows."""
    truncated: str = "train"
    """A completion that ended at the token limit: 'train', 'mask' (its tokens: DAPO's overlong filtering) or 'exclude'
    (what its role did in that rollout)."""
    max_row: int = 0
    """Tokens in one row, at most; 0: no bound."""
    long_rows: str = "cut"
    """A longer row is 'cut' there, or 'exclude' what its role did in that rollout."""
    limit: int = 0
    """Sampled tokens of a role in one rollout beyond which it loses `penalty` (DAPO, eq. 13); 0: none."""
    buffer: int = 0
    """Number of tokens before the limit over which the loss grows from 0."""
    penalty: float = 1.0
    """What is subtracted from the reward at the limit and beyond."""


@dataclass(frozen=True, slots=True)
class Optimizer(Group):
    """AdamW and its schedule."""

    learning_rate: float | None = None
    """None: chosen from the model's size; `config.json` and the log say which value was taken."""
    warmup_steps: int = 3
    """Steps in which the rate rises linearly to its full value."""
    decay: float = 0.3
    """The last fraction of training, in which the rate falls linearly to a tenth."""
    weight_decay: float = 0.0
    """AdamW's, decoupled from the gradient (arXiv:1711.05101)."""
    beta1: float = 0.9
    """Decay of the mean of gradients."""
    beta2: float = 0.99
    """Decay of the mean of their squares."""
    max_norm: float = 1.0
    """Gradients are clipped to this norm."""
    micro_batch_tokens: int = 4096
    """Upper bound of padded tokens in one forward pass."""


@dataclass(frozen=True, slots=True)
class Lora(Group):
    """Low-rank adapters instead of all weights (arXiv:2106.09685)."""

    rank: int = 0
    """Rank of each adapter; 0 trains all weights."""
    alpha: int = 16
    """An adapter's product is scaled by alpha / rank."""
    targets: str = "all-linear"
    """Names of the modules that get an adapter, separated by commas."""


@dataclass(frozen=True, slots=True)
class Serving(Group):
    """How trainable roles' calls are served."""

    host: str = "127.0.0.1"
    """Address that the engine listens on; runners on other machines have to be able to reach it."""
    replicas: int = 0
    """Number of vLLM servers; each rollout stays with one. 0: as many as the serving GPUs allow, 1 without a GPU."""
    tensor_parallel: int = 1
    """GPUs that share one vLLM server's model."""
    memory: float = 0.5
    """Fraction of a GPU's memory that a vLLM server uses for weights and cache."""
    max_length: int = 0
    """Maximum number of tokens of prompt and completion together; 0: as many as the model allows."""
    tool_parser: str = "auto"
    """vLLM's parser of tool calls, such as 'hermes'; 'auto' goes by the model's chat template, 'none' parses none."""


@dataclass(frozen=True, slots=True)
class Cluster(Group):
    """Where VERL trains: the Ray cluster that it uses, and how much of it."""

    address: str = ""
    """Address of a running Ray: 'auto', HOST:PORT, or ray://HOST:PORT; empty starts one on this machine."""
    nodes: int = 1
    """Number of machines of that Ray that train."""
    gpus: int = 0
    """GPUs on each machine that train; 0: all, or those that `engine_gpus` leaves."""
    engine_gpus: int = 0
    """GPUs on each machine that only serve, with `rollouts.staleness`; 0: vLLM takes turns with the learner."""


@dataclass(frozen=True, slots=True)
class Rollouts(Group):
    """Which rollouts are run in each step, and where."""

    tasks_per_step: int = 16
    """Number of tasks in each step."""
    group_size: int = 8
    """Rollouts of each task, which are compared with each other; 1 where `credit.advantage` does not compare."""
    concurrency: int = 64
    """Rollouts under way at once, across all runners."""
    runner: str = "auto"
    """'auto' (asyncio for async agents, threads for the rest), 'threads' or 'asyncio': in the training's own process;
    'processes': one per core; a number: that many processes, 0 for none; 'ray:64', 'ray:64@auto' or
    'ray:64@HOST:PORT': Ray actors."""
    timeout: float = 120.0
    """Seconds for one attempt at a rollout."""
    deadline: float = 600.0
    """Seconds for all rollouts of a step: those not finished by then count as timeouts, and the step continues."""
    staleness: int = 0
    """Asynchronous training: how many versions older than the trained model a rollout's model may be when it begins;
    0: each step waits for the one before."""


@dataclass(frozen=True, slots=True)
class Failure(Group):
    """What happens to a rollout that did not end ok: 'exclude' it, 'retry' it, or 'train' on it with `reward`."""

    agent_error: str = "exclude"
    """The agent raised."""
    reward_error: str = "exclude"
    """The reward function raised, or did not give a finite number."""
    infrastructure_error: str = "retry"
    """Something other than the agent and the reward failed."""
    timeout: str = "retry"
    """It took too long."""
    retries: int = 2
    """Maximum number of further attempts at a rollout; after the last it is excluded."""
    backoff: float = 0.5
    """Seconds before the first further attempt, twice as long before each one after it."""
    refills: int = 1
    """How often an excluded rollout is replaced by another one of the same task, so that groups stay whole."""
    reward: float | None = None
    """What 'train' gives a failed rollout, in addition to what it had earned; there is no default."""
    max_failed: float = 0.5
    """Training stops when more than this fraction of a step's rollouts fail."""
    flat_steps: int = 5
    """Training stops if none of its first steps, this many, had a group with a signal; 0: it never does."""


@dataclass(frozen=True, slots=True)
class Stored(Group):
    """Training from the rollouts of earlier runs, instead of running the agent."""

    method: str = "rejection"
    """'sft' (every rollout), 'rejection' (the best of each group: RAFT, arXiv:2304.06767) or 'dpo' (the best against
    the worst of each group: arXiv:2305.18290, eq. 7)."""
    best: int = 1
    """How many rollouts of each group 'rejection' keeps, including ties."""
    min_reward: float | None = None
    """Rollouts with a lower reward are left out by 'sft' and 'rejection'."""
    beta: float = 0.1
    """How strongly DPO holds the model near the reference model."""


@dataclass(frozen=True, slots=True)
class Evaluation(Group):
    """How the score on held-out tasks is measured."""

    tasks: int = 200
    """Maximum number of held-out tasks."""
    every: int = 0
    """Number of steps between evaluations during training; 0: only before and after."""
    split: float = 0.2
    """Fraction of the tasks held out when no held-out tasks are given."""
    seeds: int = 1
    """Rollouts of each task, with different seeds; more than one needs a temperature."""
    temperature: float = 0.0
    """0 is greedy."""
    reward_low: float | None = None
    """The lowest possible reward of a rollout; by default 0 or -1, unless a lower one is seen."""
    reward_high: float | None = None
    """The highest possible reward of a rollout; by default 1, unless a higher one is seen."""

    @property
    def reward_range(self) -> tuple[float, float] | None:
        """None where it is not set."""
        return None if self.reward_low is None or self.reward_high is None else (self.reward_low, self.reward_high)


@dataclass(frozen=True, slots=True)
class Export(Group):
    """What is sent to an OpenTelemetry collector."""

    otlp_endpoint: str | None = None
    """URL of an OTLP/HTTP collector, such as http://127.0.0.1:4318; by default OTEL_EXPORTER_OTLP_ENDPOINT's."""
    tokens: bool = False
    """Put token ids and log-probs on exported spans, as arrays."""
