"""Settings are checked when they are made."""

import json

import pytest

import lightning_sdk as lightning
from lightning_sdk.settings import Settings, parse


def test_settings_survive_the_wire() -> None:
    """Nested data and dotted names make the same settings."""
    settings = Settings.from_dict({"steps": 7, "optimizer.learning_rate": 1, "rollouts": {"group_size": 4}})
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings
    assert settings.changed() == {"steps": 7, "optimizer.learning_rate": 1.0, "rollouts.group_size": 4}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"learning_rate": 1.0}, "unknown setting 'learning_rate'; did you mean value.learning_rate or optimizer"),
        ({"optimizer.lr": 1.0}, "unknown setting 'optimizer.lr'"),
        ({"steps": "many"}, "steps='many': expected int"),
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"rollouts.group_size": 1}, "compares rollouts of the same task"),
        ({"sampling.temperature": 0.0}, "greedy rollouts"),
        ({"optimizer.learning_rate": float("nan")}, "learning_rate=nan"),
        ({"credit.advantage": "magic"}, "must be rloo, grpo, dr_grpo"),
        ({"role.writer.weigth": 1.0}, "did you mean role.NAME.weight"),
        ({"role.writer.schedule": "3/2"}, r"role.writer.schedule='3/2': must be always, never, steps such as 10-30"),
        ({"failure.timeout": "train"}, "say what a failed rollout earns, such as failure.reward=-1"),
        ({"evaluation.seeds": 3}, "set evaluation.temperature as well"),
        ({"rollouts.staleness": 1, "importance.kind": "off"}, "rollouts of an older model need importance.kind"),
        ({"credit.rewards.brief": float("inf")}, "credit.rewards.brief=inf: must be a finite number"),
        ({"credit": {"rewards": 3}}, "credit.rewards=3: expected a dict"),
    ],
)
def test_wrong_settings_say_what_is_wanted(values: dict[str, object], said: str) -> None:
    """The message names setting, value and remedy."""
    with pytest.raises(lightning.SettingError, match=said):
        Settings.from_dict(values)


def test_command_line_values_take_their_settings_type() -> None:
    """`--set` values are parsed by the setting's own type."""
    assert parse("optimizer.learning_rate", "1e-5") == 1e-5
    assert parse("rollouts.group_size", "4") == 4
    with pytest.raises(lightning.SettingError, match="expected int"):
        parse("rollouts.group_size", "four")


def test_settings_of_verl_and_vllm_are_kept_by_their_full_names() -> None:
    """As they were typed, through plain data and back; names that begin otherwise are unknown."""
    given = {"actor_rollout_ref.actor.clip_ratio": parse("actor_rollout_ref.actor.clip_ratio", "0.3")}
    settings = Settings.from_dict(given | {"vllm.max_num_seqs": 64})
    assert settings.changed() == {"actor_rollout_ref.actor.clip_ratio": "0.3", "vllm.max_num_seqs": 64}
    assert Settings.from_dict(settings.as_dict()) == settings
    with pytest.raises(lightning.SettingError, match="begins with actor_rollout_ref"):
        Settings.from_dict({"verbatim": {"actor.clip_ratio": 0.3}})
    with pytest.raises(lightning.SettingError, match=r"setting trainer\.x"):
        Settings.from_dict({"trainer.x": {"a": 1}})
