"""Settings of a training run: small frozen groups with defaults that work, checked when made.

A setting has a dotted name, such as `optimizer.learning_rate`. A backend declares the names it honours; any other
name whose value differs from its default is refused at start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args, get_type_hints

from lightning_sdk.errors import SettingError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the engine samples the calls of trainable roles while training. Evaluation is greedy."""

    temperature: float = 1.0
    """Replaces whatever temperature the agent asks for: training needs the distribution it corrects for."""
    top_p: float = 1.0
    """Nucleus sampling, likewise; 1 samples from the whole distribution."""
    max_tokens: int = 256
    """Upper bound for calls that name none."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """How rewards become a gradient."""

    advantage: str = "rloo"
    """'rloo' (leave-one-out baseline, arXiv:2402.14740) or 'grpo' (group mean and deviation, arXiv:2402.03300)."""
    clip_low: float = 0.2
    """The ratio to the old policy is clipped to [1 - clip_low, 1 + clip_high] (DAPO, arXiv:2503.14476, eq. 10)."""
    clip_high: float = 0.28
    """The upper bound, apart from the lower."""
    importance_cap: float = 2.0
    """Truncated importance sampling: trainer-to-sampler ratios are cut at this value; 0 turns the correction off."""
    kl: float = 0.0
    """Weight of the KL estimate k3 to the reference model; 0 loads no reference."""
    epochs: int = 1
    """Passes over each batch."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """AdamW and its schedule."""

    learning_rate: float | None = None
    """None: chosen from the model's size; `config.json` and the log say which value was taken."""
    warmup_steps: int = 3
    """Steps in which the rate rises linearly to its full value."""
    decay: float = 0.3
    """The last part of training, as a fraction, in which the rate falls linearly to a tenth."""
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
class Rollouts:
    """What is run in each step, where, and what happens when it fails."""

    tasks_per_step: int = 16
    """Different tasks in each step."""
    group_size: int = 8
    """Rollouts of the same task that are compared with each other."""
    concurrency: int = 64
    """Rollouts under way at once, over all runners."""
    runner: str = "auto"
    """'threads', 'asyncio' or 'processes'; 'auto' takes asyncio for async agents and threads for the rest."""
    timeout: float = 120.0
    """Seconds for one rollout."""
    retries: int = 2
    """Further attempts after an infrastructure error or a timeout."""
    max_failed: float = 0.5
    """Training stops when more than this part of a step's rollouts fail."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How the score on held-out tasks is measured."""

    tasks: int = 200
    """Held-out tasks used, at most."""
    every: int = 0
    """Also evaluate every so many steps; 0 only before and after."""
    split: float = 0.2
    """Part of the tasks held out when no held-out tasks are given."""


@dataclass(frozen=True, slots=True)
class Export:
    """What is sent to an OpenTelemetry collector."""

    otlp_endpoint: str | None = None
    """URL of an OTLP/HTTP collector, such as http://127.0.0.1:4318; by default OTEL_EXPORTER_OTLP_ENDPOINT's."""
    tokens: bool = False
    """Put token ids and log-probs on exported spans, as arrays."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one run."""

    model: str = "spark"
    """'spark', a folder in Hugging Face format, or a hub name."""
    backend: str = "embedded"
    """Name of an installed backend."""
    steps: int = 40
    """Updates of the model."""
    seed: int = 0
    """Of the order of tasks and the draw of held-out ones. Sampling is not seeded."""
    save_every: int = 20
    """Steps between checkpoints; the last step is always saved."""
    roles: tuple[str, ...] = ()
    """Train only these roles; empty: every role declared trainable."""
    sampling: Sampling = field(default_factory=Sampling)
    algorithm: Algorithm = field(default_factory=Algorithm)
    optimizer: Optimizer = field(default_factory=Optimizer)
    rollouts: Rollouts = field(default_factory=Rollouts)
    evaluation: Evaluation = field(default_factory=Evaluation)
    export: Export = field(default_factory=Export)

    def __post_init__(self) -> None:
        _check(self)

    def as_dict(self) -> dict[str, Any]:
        """Nested plain data, as in `config.json`."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """Dotted name -> value."""
        return _flatten(self.as_dict())

    def changed(self) -> dict[str, Any]:
        """The dotted names whose value differs from the default."""
        defaults = Settings().flat()
        return {name: value for name, value in self.flat().items() if value != defaults[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Settings of nested or dotted plain data; SettingError for unknown names and wrong types."""
        settings: Settings = _build(cls, _nest(values), "")
        return settings


_GROUPS: dict[str, type[Any]] = {
    "sampling": Sampling,
    "algorithm": Algorithm,
    "optimizer": Optimizer,
    "rollouts": Rollouts,
    "evaluation": Evaluation,
    "export": Export,
}


def parse(name: str, text: str) -> Any:
    """The value of `text` for the setting with this dotted name, as a command line gives it."""
    group, _, leaf = name.rpartition(".")
    cls = _GROUPS.get(group) if group else Settings
    hints = get_type_hints(cls) if cls else {}
    if leaf not in hints or leaf in _GROUPS:
        raise SettingError(_unknown(name))
    if leaf == "roles":
        return tuple(part for part in text.split(",") if part)
    kinds = [kind for kind in (get_args(hints[leaf]) or (hints[leaf],)) if kind is not type(None)]
    if kinds == [bool]:
        if text.lower() not in {"true", "false"}:
            raise SettingError(f"setting {name}={text!r}: expected true or false")
        return text.lower() == "true"
    try:
        return kinds[0](text)
    except ValueError:
        raise SettingError(f"setting {name}={text!r}: expected {kinds[0].__name__}") from None


def _build(cls: type[Any], values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(cls)
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            raise SettingError(_unknown(prefix + name))
        if name in _GROUPS and not prefix:
            made[name] = value if isinstance(value, _GROUPS[name]) else _build(_GROUPS[name], value, name + ".")
        else:
            made[name] = _typed(prefix + name, value, hints[name])
    return cls(**made)


def _typed(name: str, value: Any, hint: Any) -> Any:
    if name == "roles":
        return tuple(value)
    kinds = get_args(hint) or (hint,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join("none" if kind is type(None) else kind.__name__ for kind in kinds)
        raise SettingError(f"setting {name}={value!r}: expected {wanted}")
    return value


def _unknown(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only on the way to an error

    known = list(Settings().flat())
    close = get_close_matches(name, known, 1, 0.5) or [k for k in known if k.endswith("." + name)]
    hint = f"; did you mean {close[0]}?" if close else f"; known settings: {', '.join(known)}"
    return f"unknown setting {name!r}{hint}"


def _check(settings: Settings) -> None:
    """Range checks, in one table: (name, test, what is wanted)."""
    flat = settings.flat()
    at_least_one = ("steps", "rollouts.tasks_per_step", "rollouts.concurrency", "sampling.max_tokens",
                    "algorithm.epochs", "optimizer.micro_batch_tokens", "evaluation.tasks")  # fmt: skip
    rules = [(name, lambda v: v >= 1, "at least 1") for name in at_least_one]
    rules += [
        ("rollouts.group_size", lambda v: v >= 2, "at least 2: an advantage compares rollouts of the same task"),
        ("rollouts.runner", lambda v: v in {"auto", "threads", "asyncio", "processes"},
         "auto, threads, asyncio or processes"),
        ("rollouts.timeout", lambda v: v > 0, "more than 0 seconds"),
        ("rollouts.retries", lambda v: v >= 0, "0 or more"),
        ("rollouts.max_failed", lambda v: 0 <= v <= 1, "between 0 and 1"),
        ("sampling.temperature", lambda v: v > 0, "more than 0: greedy rollouts of a group are all alike"),
        ("sampling.top_p", lambda v: 0 < v <= 1, "in (0, 1]"),
        ("algorithm.advantage", lambda v: v in {"rloo", "grpo"}, "rloo or grpo"),
        ("algorithm.clip_low", lambda v: 0 < v < 1, "in (0, 1)"),
        ("algorithm.clip_high", lambda v: v > 0, "more than 0"),
        ("algorithm.importance_cap", lambda v: v == 0 or v >= 1, "0 (off) or at least 1"),
        ("algorithm.kl", lambda v: v >= 0, "0 or more"),
        ("optimizer.learning_rate", lambda v: v is None or v > 0, "more than 0"),
        ("optimizer.max_norm", lambda v: v > 0, "more than 0"),
        ("optimizer.decay", lambda v: 0 <= v <= 1, "between 0 and 1"),
        ("evaluation.split", lambda v: 0 < v < 1, "between 0 and 1"),
        ("evaluation.every", lambda v: v >= 0, "0 or more"),
        ("save_every", lambda v: v >= 1, "at least 1"),
    ]  # fmt: skip
    test: Callable[[Any], bool]
    for name, test, wanted in rules:
        value = flat[name]
        if (isinstance(value, float) and not math.isfinite(value)) or not test(value):
            raise SettingError(f"setting {name}={value!r}: must be {wanted}")


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, prefix + name + "."))
        else:
            flat[prefix + name] = value
    return flat


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        group, _, leaf = name.rpartition(".")
        if group:
            nested.setdefault(group, {})[leaf] = value
        elif isinstance(value, Mapping):
            nested.setdefault(name, {}).update(value)
        else:
            nested[name] = value
    return nested


assert {f.name for f in fields(Settings)} >= set(_GROUPS)
