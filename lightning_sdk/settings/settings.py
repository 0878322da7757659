"""Settings of a training run, checked when made.

A setting has a dotted name, such as `optimizer.learning_rate`; `role.NAME.weight` is `credit.weight` of one role. A
backend declares which names it honours. A setting that differs from its default and is not among them is refused at
start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, get_origin

from lightning_sdk.errors import SettingError
from lightning_sdk.settings import groups
from lightning_sdk.settings.combinations import refuse_combinations
from lightning_sdk.settings.groups import Credit, Group
from lightning_sdk.settings.phases import TrainingPhases
from lightning_sdk.settings.prompts import Prompts
from lightning_sdk.settings.ranges import AtLeast, Between, OneOf, refuse_out_of_range, setting_types
from lightning_sdk.settings.values import convert, convert_verbatim, from_text, mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one run."""

    model: str = "spark"
    """'spark', 'smollm2', a folder in Hugging Face format, or a name on the Hugging Face Hub."""
    backend: str = "embedded"
    """Name of an installed backend."""
    engine: Annotated[str, OneOf("auto", "embedded", "vllm")] = "auto"
    """What serves the model: 'embedded' is part of the embedded backend, 'vllm' runs vLLM servers, and 'auto' is the
    backend's own choice."""
    tune: Annotated[str, OneOf("weights", "prompts")] = "weights"
    """What a backend that trains a model tunes: its 'weights' alone or, with 'prompts', also the agent's prompts, in
    phases that take turns."""
    steps: Annotated[int, AtLeast(1)] = 40
    """Number of updates of the model."""
    seed: Annotated[int, Between(0, (1 << 32) - 1)] = 0
    """Seed for the order of tasks, the choice of held-out tasks and `evaluation.seeds`; it does not affect sampling in
    training."""
    save_every: Annotated[int, AtLeast(1)] = 20
    """Number of steps between checkpoints; the last step is always saved."""
    roles: tuple[str, ...] = ()
    """Roles to train, each by its full name; empty: every role declared trainable."""
    role: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Role -> the settings of `credit` that differ for it, such as {"checker": {"weight": 0.5}}."""
    sampling: groups.Sampling = field(default_factory=groups.Sampling)
    credit: Credit = field(default_factory=Credit)
    algorithm: groups.Algorithm = field(default_factory=groups.Algorithm)
    divergence: groups.Divergence = field(default_factory=groups.Divergence)
    importance: groups.Importance = field(default_factory=groups.Importance)
    value: groups.Value = field(default_factory=groups.Value)
    length: groups.Length = field(default_factory=groups.Length)
    optimizer: groups.Optimizer = field(default_factory=groups.Optimizer)
    lora: groups.Lora = field(default_factory=groups.Lora)
    serving: groups.Serving = field(default_factory=groups.Serving)
    cluster: groups.Cluster = field(default_factory=groups.Cluster)
    rollouts: groups.Rollouts = field(default_factory=groups.Rollouts)
    failure: groups.Failure = field(default_factory=groups.Failure)
    stored: groups.Stored = field(default_factory=groups.Stored)
    prompts: Prompts = field(default_factory=Prompts)
    phases: TrainingPhases = field(default_factory=TrainingPhases)
    evaluation: groups.Evaluation = field(default_factory=groups.Evaluation)
    export: groups.Export = field(default_factory=groups.Export)
    verbatim: Mapping[str, Any] = field(default_factory=dict)
    """Settings of VERL (actor_rollout_ref.*, trainer.* and so on, and verl.NAME for any) and arguments of vLLM's
    servers (vllm.NAME), by their full names. They are passed on unchanged."""

    def __post_init__(self) -> None:
        for role, values in self.role.items():
            _build(Credit, values, f"role.{role}.")
        by_role = {role: self.credit_of(role) for role in self.role}
        _refuse_out_of_range("", self)
        for name in _GROUPS:
            _refuse_out_of_range(f"{name}.", getattr(self, name))
        for role, credit in by_role.items():
            _refuse_out_of_range(f"role.{role}.", credit)
        refuse_combinations(self.flat(), {"": self.credit, **by_role})

    def credit_of(self, role: str) -> Credit:
        """`credit`, with the settings that differ for this role."""
        own = dict(self.role.get(role, {}))
        if "rewards" in own:
            own["rewards"] = {**self.credit.rewards, **own["rewards"]}
        return replace(self.credit, **_build(Credit, own, f"role.{role}.", plain=True)) if own else self.credit

    def credits(self) -> Iterator[Credit]:
        """Every credit that some role may have."""
        yield self.credit
        yield from map(self.credit_of, self.role)

    def as_dict(self) -> dict[str, Any]:
        """Nested plain data, as in `config.json`."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """Dotted name -> value."""
        values = self.as_dict()
        return {**values.pop("verbatim"), **_flatten(values)}

    def changes(self) -> dict[str, Any]:
        """The dotted names whose value differs from the default."""
        defaults = Settings().flat()
        return {name: value for name, value in self.flat().items() if name not in defaults or value != defaults[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Settings of nested or dotted plain data; SettingError for unknown names and wrong types."""
        settings: Settings = _build(cls, _nest(values), "")
        return settings


_GROUPS: dict[str, type[Any]] = {
    each.name: each.default_factory  # type: ignore[misc]
    for each in fields(Settings)
    if isinstance(each.default_factory, type) and each.default_factory is not dict
}
#: What names of `Settings.verbatim` begin with.
VERBATIM = (
    "actor_rollout_ref.",
    "critic.",
    "data.",
    "global_profiler.",
    "ray_kwargs.",
    "reward.",
    "trainer.",
    "transfer_queue.",
    "verl.",
    "vllm.",
)
_OF_ROLE = re.compile(rf"role\.(.+?)\.(rewards\..+|{'|'.join(each.name for each in fields(Credit))})")


def parse(name: str, text: str) -> Any:
    """The value of `text` for the setting with this dotted name, as a command line gives it."""
    if name.startswith(VERBATIM):
        return text
    return from_text(name, text, _hint(name))


def explicit(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted name -> value of each setting that nested or dotted plain data, or groups, give; typed."""
    made: dict[str, Any] = _build(Settings, _nest(values), "", plain=True)
    flat: dict[str, Any] = dict(made.pop("verbatim", {}))
    for name, value in made.items():
        flat.update(_flatten({name: value.given_values() if isinstance(value, Group) else value}))
    return flat


def _hint(name: str) -> Any:
    """The type of the setting with this dotted name."""
    if of_role := _OF_ROLE.fullmatch(name):
        name = f"credit.{of_role[2]}"
    if name.startswith("credit.rewards.") and name != "credit.rewards.":
        return float
    group, _, leaf = name.rpartition(".")
    cls = _GROUPS.get(group) if group else Settings
    hints = setting_types(cls) if cls else {}
    if leaf not in hints or (not group and leaf in _GROUPS) or get_origin(hints[leaf]) is Mapping:
        raise SettingError(_unknown(name))
    return hints[leaf]


def _build(cls: type[Any], values: Any, prefix: str, plain: bool = False) -> Any:
    """An object of `cls` from plain data; if `plain`, only the checked values."""
    if isinstance(values, Group) and isinstance(values, cls):
        values = values.given_values()
    if not isinstance(values, Mapping):
        raise SettingError(
            f"setting {prefix[:-1]}={values!r}: expected a dict, or lightning_sdk.settings.{cls.__name__}"
        )
    hints = setting_types(cls)
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            raise SettingError(_unknown(prefix + name))
        if name in _GROUPS and not prefix:
            made[name] = _build(_GROUPS[name], value, name + ".")
        else:
            made[name] = _convert(prefix + name, value, hints[name])
    return made if plain else cls(**made)


def _refuse_out_of_range(prefix: str, settings: Any) -> None:
    """SettingError for the first of these settings whose value is out of its range."""
    for name, hint in setting_types(type(settings)).items():
        value = getattr(settings, name)
        if get_origin(hint) is Mapping and prefix:
            for key, each in value.items():
                refuse_out_of_range(f"{prefix}{name}.{key}", each, float)
        else:
            refuse_out_of_range(prefix + name, value, hint)


def _convert(name: str, value: Any, hint: Any) -> Any:
    if name == "verbatim":
        return dict(_verbatim(mapping(name, value)))
    if name == "role":
        return {str(role): _role(role, given) for role, given in mapping(name, value).items()}
    if get_origin(hint) is Mapping:
        return {str(key): convert(f"{name}.{key}", each, float) for key, each in mapping(name, value).items()}
    return convert(name, value, hint)


def _verbatim(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if not str(name).startswith(VERBATIM):
            raise SettingError(f"setting verbatim.{name}: the name has to begin with one of {', '.join(VERBATIM)}")
        yield str(name), convert_verbatim(name, value)


def _role(role: str, given: Any) -> dict[str, Any]:
    """What is different for one role, as plain data: of a `Credit` what was given."""
    return dict(_build(Credit, given, f"role.{role}.", plain=True))


def _unknown(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only on the way to an error

    known = [*Settings().flat(), "credit.rewards.NAME", *(f"role.NAME.{each.name}" for each in fields(Credit))]
    close = [k for k in known if k.endswith("." + name)] or get_close_matches(name, known, 1, 0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else f"; known settings: {', '.join(known)}"
    return f"unknown setting {name!r}{hint}"


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested data."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        given = value.given_values() if name in _GROUPS and isinstance(value, _GROUPS[name]) else value
        path = name.split(".")
        if of_role := _OF_ROLE.fullmatch(name):  # a role's name may have dots
            path = ["role", of_role[1], *of_role[2].split(".", 1)]
        elif name.startswith(VERBATIM):
            path = ["verbatim", name]
        elif name.startswith("credit.rewards."):
            path = ["credit", "rewards", name.removeprefix("credit.rewards.")]
        elif len(path) > 2:
            raise SettingError(_unknown(name))
        _put(nested, path, given, name)
    return nested


def _put(nested: dict[str, Any], path: list[str], value: Any, name: str) -> None:
    *above, leaf = path
    for group in above:
        inner = nested.setdefault(group, {})
        if not isinstance(inner, dict):
            raise SettingError(f"setting {name} is given twice: inside {group}={inner!r} and by itself")
        nested = inner
    if isinstance(value, Mapping) and isinstance(nested.get(leaf), dict):
        nested[leaf].update(value)
    else:
        nested[leaf] = dict(value) if isinstance(value, Mapping) else value
