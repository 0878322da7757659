"""The groups of settings: small frozen dataclasses whose defaults work. `lightning_sdk.settings` puts them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Self

from lightning_sdk.settings import placement, schedule
from lightning_sdk.settings.ranges import AtLeast, Between, Grammar, MoreThan, OneOf, ZeroOr

_SHARE = Between(0, 1, words="between 0 and 1")
_DECAY = Between(0, 1, "[)")
#: Longer waits are refused by the operating system.
_SECONDS = Between(0, 1_000_000, "(]", words="more than 0 seconds, at most 1000000")
_TEMPERATURE = Between(
    0.01, 2, words="from 0.01 to 2, the range of engines; greedy rollouts of a group would all be alike"
)
_SCHEDULE = Grammar(schedule.is_valid, schedule.FORMS)
_PLACEMENT = Grammar(placement.is_valid, placement.FORMS)


class Group:
    """Base class of all groups. A group remembers which of its settings were given, because only those change a resumed
    run. A copy does not remember.
    """

    __slots__ = ("given",)
    given: frozenset[str]

    def __new__(cls, **values: Any) -> Self:
        made = super().__new__(cls)
        object.__setattr__(made, "given", frozenset(values))
        return made

    def given_values(self) -> dict[str, Any]:
        """Name -> value of each setting that was given or differs from its default."""
        default = type(self)()
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if name in self.given or value != getattr(default, name)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling(Group):
    """How the engine samples the calls of trainable roles while training. Evaluation has its own temperature."""

    temperature: Annotated[float, _TEMPERATURE] = 1.0
    """Temperature of sampling; it replaces the one that the agent asks for. Other parameters that would shape the
    distribution (top_p, top_k, min_p, penalties, logit_bias) are left out while training, because the learner does not
    apply them."""
    max_tokens: Annotated[int, Between(1, 1 << 30)] = 256
    """Maximum number of completion tokens of a call that does not set one itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit(Group):
    """How the rewards of a role become the advantages of its tokens. `credit.*` applies to every role, `role.NAME.*` to
    one of them."""

    advantage: Annotated[
        str, OneOf("rloo", "grpo", "dr_grpo", "reinforce++", "reinforce++_baseline", "running_mean", "reinforce", "gae")
    ] = "rloo"
    """How advantages are computed: 'rloo' (baseline: mean of the group's other rollouts, arXiv:2402.14740), 'grpo'
    (group mean and standard deviation, arXiv:2402.03300), 'dr_grpo' (group mean, arXiv:2503.20783), 'reinforce++'
    (normalised over the batch, arXiv:2501.03262), 'reinforce++_baseline' (group mean, then normalised over the batch),
    'running_mean' (mean of the role's earlier steps), 'reinforce' (no baseline) or 'gae' (PPO with a value head,
    arXiv:1506.02438)."""
    returns: Annotated[str, OneOf("rollout", "to_go")] = "rollout"
    """What a token is credited with. 'rollout': everything that the role earned; 'to_go': only what it earned in the
    token's own call and later ones."""
    discount: Annotated[float, Between(0, 1, "(]")] = 1.0
    """Discount for rewards earned one call later; used with returns 'to_go' and with 'gae'."""
    signal: Annotated[str, OneOf("own", "rollout", "both")] = "both"
    """Which rewards count: the role's 'own', those of the whole 'rollout', or the sum of 'both'."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """Weights of rewards by name; 1 for a name that is not listed."""
    weight: Annotated[float, AtLeast(0)] = 1.0
    """Weight of the role in the loss."""
    schedule: Annotated[str, _SCHEDULE] = "always"
    """When the role is trained: 'always', 'never', steps such as '10-30' or '10-', or in turns such as '1/2' and
    '2/2'; '1/2:5' is five steps each."""
    momentum: Annotated[float, _DECAY] = 0.9
    """Momentum of the running mean that 'running_mean' uses as its baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm(Group):
    """The loss: how advantages become a gradient."""

    loss: Annotated[str, OneOf("ppo", "gspo", "cispo")] = "ppo"
    """'ppo' (clipped ratio of each token, arXiv:1707.06347), 'gspo' (ratio of the sequence, arXiv:2507.18071) or
    'cispo' (clipped weights, arXiv:2506.13585)."""
    clip_low: Annotated[float, Between(0, 1, "(]")] = 0.2
    """The ratio to the old policy is clipped to [1 - clip_low, 1 + clip_high] (DAPO, arXiv:2503.14476, eq. 10)."""
    clip_high: Annotated[float, MoreThan(0)] = 0.28
    """The upper bound of the ratio, set separately from the lower one; see `clip_low`."""
    clip_dual: Annotated[float, ZeroOr(MoreThan(1))] = 0.0
    """Upper bound of the ratio where the advantage is negative (dual-clip PPO, arXiv:1912.09729); 0: no bound."""
    aggregation: Annotated[
        str, OneOf("seq-mean-token-sum-norm", "token-mean", "seq-mean-token-mean", "seq-mean-token-sum")
    ] = "seq-mean-token-sum-norm"
    """How the losses of tokens are combined: 'seq-mean-token-sum-norm' (sums divided by a constant: unbiased, Dr. GRPO,
    arXiv:2503.20783), 'token-mean' (DAPO), 'seq-mean-token-mean' (GRPO) or 'seq-mean-token-sum'. A sequence is
    everything that a role sampled in one rollout."""
    entropy: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the entropy bonus."""
    epochs: Annotated[int, AtLeast(1)] = 1
    """Number of passes over each batch."""
    mini_batches: Annotated[int, AtLeast(1)] = 1
    """Number of optimizer steps in each pass; the rollouts are divided among them."""
    dynamic_sampling: Annotated[int, AtLeast(0)] = 0
    """Maximum number of further rounds of tasks that replace groups without a signal (DAPO, section 3.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence(Group):
    """The pull towards the reference model, which is the model that training began with."""

    coefficient: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the divergence; 0 loads no reference model."""
    estimator: Annotated[str, OneOf("k1", "k2", "k3")] = "k3"
    """Estimator of the divergence: 'k1', 'k2' or 'k3' (Schulman, "Approximating KL divergence", 2020; k3 is eq. 4 of
    GRPO)."""
    place: Annotated[str, OneOf("loss", "reward")] = "loss"
    """Where the divergence counts: 'loss' (added to the loss) or 'reward' (subtracted from the reward, as in
    InstructGPT, arXiv:2203.02155, eq. 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance(Group):
    """Importance sampling between the sampler, which may be older or compute differently, and the trainer."""

    kind: Annotated[str, OneOf("truncate", "mask", "off")] = "truncate"
    """What happens to importance weights: 'truncate' (they are capped at `high`: IMPALA, arXiv:1802.01561, eq. 1),
    'mask' (a token outside [low, high] gets no policy gradient: IcePop, arXiv:2510.18855) or 'off' (none are used)."""
    level: Annotated[str, OneOf("token", "sequence")] = "token"
    """Whether the ratio is that of each 'token' or of the whole 'sequence', which is the product over everything that a
    role sampled in one rollout."""
    high: Annotated[float, AtLeast(1)] = 2.0
    """Upper bound of the importance weight."""
    low: Annotated[float, _SHARE] = 0.5
    """Lower bound of the importance weight, for 'mask' only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value(Group):
    """The value head of PPO, trained when `credit.advantage` is 'gae'."""

    gae_lambda: Annotated[float, _SHARE] = 0.95
    """The lambda of GAE, per token: 0 uses one-step estimates, 1 whole returns."""
    coefficient: Annotated[float, MoreThan(0)] = 0.1
    """Weight of the value loss."""
    clip: Annotated[float, AtLeast(0)] = 0.2
    """How far a new value may be from the old one (arXiv:1707.06347, as in OpenAI's baselines); 0: no bound."""
    learning_rate: Annotated[float, MoreThan(0)] = 1e-3
    """Learning rate of the value head itself; the model below it learns with `optimizer.learning_rate`."""
    warmup_steps: Annotated[int, AtLeast(0)] = 0
    """Number of steps at the beginning in which only the value head is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Length(Group):
    """What a row of the batch holds, and what happens to sequences that are too long."""

    rows: Annotated[str, OneOf("lineage", "call")] = "lineage"
    """What a row holds. 'lineage': consecutive calls, each of which continues exactly where the one before it ended;
    'call': a single call. With 'call' the same tokens are learned from, but in more rows, and each row's context is
    computed again."""
    truncated: Annotated[str, OneOf("train", "mask", "exclude")] = "train"
    """What happens to a completion that ended at the token limit: 'train' on it, 'mask' its tokens (DAPO's overlong
    filtering), or 'exclude' everything that its role did in that rollout."""
    max_row: Annotated[int, AtLeast(0)] = 0
    """Maximum number of tokens in one row; 0: no bound."""
    long_rows: Annotated[str, OneOf("cut", "exclude")] = "cut"
    """What happens to a row longer than `max_row`: 'cut' it there, or 'exclude' everything that its role did in that
    rollout."""
    limit: Annotated[int, AtLeast(0)] = 0
    """Number of tokens that a role may sample in one rollout before it loses `penalty` (DAPO, eq. 13); 0: no limit."""
    buffer: Annotated[int, AtLeast(0)] = 0
    """Number of tokens before the limit over which the penalty grows from 0."""
    penalty: Annotated[float, AtLeast(0)] = 1.0
    """What is subtracted from the reward at the limit and beyond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer(Group):
    """AdamW and its schedule."""

    learning_rate: Annotated[float | None, MoreThan(0)] = None
    """Peak learning rate. None: chosen from the model's size; `config.json` and the log say which value was chosen."""
    warmup_steps: Annotated[int, AtLeast(0)] = 3
    """Number of steps in which the learning rate rises linearly to its full value."""
    decay: Annotated[float, _SHARE] = 0.3
    """Fraction of training, at its end, in which the learning rate falls linearly to a tenth."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    """Weight decay of AdamW, decoupled from the gradient (arXiv:1711.05101)."""
    beta1: Annotated[float, _DECAY] = 0.9
    """Decay of AdamW's running mean of gradients."""
    beta2: Annotated[float, _DECAY] = 0.99
    """Decay of AdamW's running mean of squared gradients."""
    max_norm: Annotated[float, MoreThan(0)] = 1.0
    """Norm to which gradients are clipped."""
    micro_batch_tokens: Annotated[int, AtLeast(1)] = 4096
    """Maximum number of tokens, padding included, in one forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora(Group):
    """Low-rank adapters instead of all weights (arXiv:2106.09685)."""

    rank: Annotated[int, AtLeast(0)] = 0
    """Rank of each adapter; 0 trains all weights."""
    alpha: Annotated[int, AtLeast(1)] = 16
    """Scale of an adapter: its output is multiplied by alpha / rank."""
    targets: str = "all-linear"
    """Names of the modules that get an adapter, separated by commas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving(Group):
    """How the calls of trainable roles are served."""

    host: str = "127.0.0.1"
    """Address that the engine listens on; runners on other machines must be able to reach it."""
    replicas: Annotated[int, AtLeast(0)] = 0
    """Number of vLLM servers; each rollout stays with one. 0: as many as the serving GPUs allow, 1 without a GPU."""
    tensor_parallel: Annotated[int, AtLeast(1)] = 1
    """GPUs that share one vLLM server's model."""
    memory: Annotated[float, Between(0, 1, "()")] = 0.5
    """Fraction of a GPU's memory that a vLLM server uses for weights and cache."""
    max_length: Annotated[int, AtLeast(0)] = 0
    """Maximum number of tokens of prompt and completion together; 0: as many as the model allows."""
    tool_parser: str = "auto"
    """vLLM's parser of tool calls, such as 'hermes'. 'auto' chooses by the model's chat template; 'none' turns parsing
    off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster(Group):
    """Where VERL trains: the Ray cluster that it uses, and how much of it."""

    address: str = ""
    """Address of a running Ray cluster: 'auto', HOST:PORT, or ray://HOST:PORT; empty starts one on this machine."""
    nodes: Annotated[int, AtLeast(1)] = 1
    """Number of machines in the cluster that train."""
    gpus: Annotated[int, AtLeast(0)] = 0
    """Number of GPUs on each machine that train; 0: all that `engine_gpus` leaves free."""
    engine_gpus: Annotated[int, AtLeast(0)] = 0
    """Number of GPUs on each machine that only serve, with `rollouts.staleness`; 0: vLLM and the learner take turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts(Group):
    """Which rollouts are run in each step, and where."""

    tasks_per_step: Annotated[int, AtLeast(1)] = 16
    """Number of tasks in each step."""
    group_size: Annotated[int, AtLeast(1)] = 8
    """Number of rollouts of each task, which are compared with each other; 1 only with a `credit.advantage` that does
    not compare them."""
    concurrency: Annotated[int, AtLeast(1)] = 64
    """Maximum number of rollouts that run at once, across all runners."""
    runner: Annotated[str, _PLACEMENT] = "auto"
    """Where the agent runs. 'threads' or 'asyncio': in the process that trains; 'auto': there too, with asyncio for
    async agents and threads for the rest; 'processes': in one process per core; a number: in that many processes, 0 for
    none; 'ray:64', 'ray:64@auto' or 'ray:64@HOST:PORT': in 64 Ray actors."""
    timeout: Annotated[float, _SECONDS] = 120.0
    """Maximum number of seconds for one attempt at a rollout."""
    deadline: Annotated[float, _SECONDS] = 600.0
    """Maximum number of seconds for all rollouts of a step; those not finished by then count as timeouts, and the step
    continues without them."""
    staleness: Annotated[int, AtLeast(0)] = 0
    """Asynchronous training: by how many versions the model of a rollout that begins may lag behind the model in
    training; 0: each step waits for the one before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(Group):
    """What happens to a failed rollout: 'exclude' it, 'retry' it, or 'train' on it with `reward`."""

    agent_error: Annotated[str, OneOf("exclude", "retry", "train")] = "exclude"
    """What happens when the agent raised an exception."""
    reward_error: Annotated[str, OneOf("exclude", "retry", "train")] = "exclude"
    """What happens when the reward function raised an exception, or did not return a finite number."""
    infrastructure_error: Annotated[str, OneOf("exclude", "retry")] = "retry"
    """What happens when something other than the agent and the reward function failed."""
    timeout: Annotated[str, OneOf("exclude", "retry", "train")] = "retry"
    """What happens when a rollout took longer than `rollouts.timeout` or `rollouts.deadline`."""
    retries: Annotated[int, Between(0, 20)] = 2
    """Maximum number of further attempts at a rollout; after the last it is excluded."""
    backoff: Annotated[float, Between(0, 3600)] = 0.5
    """Seconds before the second attempt; the wait doubles before each later one."""
    refills: Annotated[int, AtLeast(0)] = 1
    """Maximum number of times that an excluded rollout is replaced by another one of the same task, so that groups stay
    whole."""
    reward: float | None = None
    """Reward that 'train' gives a failed rollout, in addition to what it had already earned; there is no default."""
    max_failed: Annotated[float, _SHARE] = 0.5
    """Fraction of a step's rollouts that may fail; training stops when more do."""
    flat_steps: Annotated[int, AtLeast(0)] = 5
    """Number of steps after which training stops if no group in any of them had a signal; 0: it never stops for
    this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(Group):
    """Training from the rollouts of earlier runs, instead of running the agent."""

    method: Annotated[str, OneOf("sft", "rejection", "dpo", "distill")] = "rejection"
    """What is learned from: 'sft' (every rollout), 'rejection' (the best rollouts of each group: RAFT,
    arXiv:2304.06767), 'dpo' (the best against the worst of each group: arXiv:2305.18290, eq. 7) or 'distill' (what the
    agent did well with tuned prompts, as if it had been asked with its own)."""
    best: Annotated[int, AtLeast(1)] = 1
    """Maximum number of rollouts of each group that 'rejection' keeps, and of each task that 'distill' keeps; among
    equals the earliest."""
    min_reward: float | None = None
    """Lowest reward of a rollout that 'sft', 'rejection' and 'distill' learn from. By default 'distill' learns from
    rollouts that earned more than the agent did with its own prompts on average."""
    beta: Annotated[float, MoreThan(0)] = 0.1
    """How strongly DPO holds the model near the reference model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Group):
    """How the score on held-out tasks is measured."""

    tasks: Annotated[int, AtLeast(1)] = 200
    """Maximum number of held-out tasks."""
    every: Annotated[int, AtLeast(0)] = 0
    """Number of steps between evaluations during training; 0: only before and after."""
    split: Annotated[float, Between(0, 1, "()")] = 0.2
    """Fraction of the tasks held out when no held-out tasks are given."""
    seeds: Annotated[int, AtLeast(1)] = 1
    """Number of rollouts of each task, with different seeds; more than one needs a temperature above 0."""
    temperature: Annotated[float, Between(0, 2)] = 0.0
    """Temperature of sampling during evaluation; 0 is greedy."""
    reward_low: float | None = None
    """The lowest possible reward of a rollout; by default 0 or -1, unless a lower one is seen."""
    reward_high: float | None = None
    """The highest possible reward of a rollout; by default 1, unless a higher one is seen."""

    @property
    def reward_range(self) -> tuple[float, float] | None:
        """The lowest and the highest possible reward; None unless both are set."""
        return None if self.reward_low is None or self.reward_high is None else (self.reward_low, self.reward_high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export(Group):
    """What is sent to an OpenTelemetry collector."""

    otlp_endpoint: str | None = None
    """URL of an OTLP/HTTP collector, such as http://127.0.0.1:4318; default: OTEL_EXPORTER_OTLP_ENDPOINT."""
    tokens: bool = False
    """Whether exported spans carry token ids and log-probs, as arrays."""
