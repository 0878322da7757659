"""The recipes of docs/algorithms.md, each as our settings and as what VERL is told for the same."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from verl.trainer.config import AlgoConfig
from verl.trainer.config.algorithm import RolloutCorrectionConfig
from verl.workers.config import CriticConfig, FSDPActorConfig
from verl.workers.config.actor import PolicyLossConfig

from lightning_sdk.settings.settings import Settings, parse
from tests.verl.batches import actor

PAGE = Path(__file__).resolve().parents[2] / "docs" / "algorithms.md"


class Recipe(NamedTuple):
    name: str
    settings: dict[str, Any]
    """Ours, by dotted name."""
    algorithm: AlgoConfig
    actor: FSDPActorConfig
    correction: RolloutCorrectionConfig
    cliprange_value: float

    def of(self, **changes: Any) -> Settings:
        named = {name.replace("__", "."): value for name, value in changes.items()}
        return Settings.from_dict({**self.settings, **named})


def recipes() -> list[Recipe]:
    """Those of the page, in order."""
    found = re.findall(
        r"^### (.+?)\n.*?^```bash\n(.*?)^```\n\n^```text\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [_recipe(name, ours, theirs) for name, ours, theirs in found]


def _recipe(name: str, ours: str, theirs: str) -> Recipe:
    words = shlex.split(ours.replace("\\\n", " "))
    pairs = [words[place + 1].partition("=") for place, word in enumerate(words) if word == "--set"]
    told: dict[str, dict[str, Any]] = {
        "algorithm": {},
        "correction": {},
        "kl": {},
        "actor": {},
        "loss": {},
        "critic": {},
    }
    for line in theirs.split():
        path, _, value = line.partition("=")
        group, leaf = _place(path)
        told[group][leaf] = _value(value)
    kl = told["kl"].get("kl_coef", 0.0)
    return Recipe(
        name,
        {name: parse(name, value) for name, _, value in pairs},
        AlgoConfig(**told["algorithm"], kl_ctrl={"kl_coef": kl}),
        actor(**told["actor"], policy_loss=PolicyLossConfig(**told["loss"])),
        RolloutCorrectionConfig(**told["correction"]),
        told["critic"].get("cliprange_value", CriticConfig.cliprange_value),
    )


_PREFIXES = {
    "algorithm.rollout_correction.": "correction",
    "algorithm.kl_ctrl.": "kl",
    "algorithm.": "algorithm",
    "actor_rollout_ref.actor.policy_loss.": "loss",
    "actor_rollout_ref.actor.": "actor",
    "critic.": "critic",
}


def _place(path: str) -> tuple[str, str]:
    """Where VERL's configuration has it; the constructors refuse what is unknown."""
    for prefix, group in _PREFIXES.items():
        if path.startswith(prefix):
            return group, path.removeprefix(prefix)
    raise ValueError(f"{path} is not an option of VERL's that is known here")


def _value(text: str) -> Any:
    if text in {"True", "False"}:
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
