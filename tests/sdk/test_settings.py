"""Settings are checked when they are made."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import lightning_sdk as lightning
from lightning_sdk.settings import Credit, Lora, Optimizer, Rollouts, Settings
from lightning_sdk.settings.settings import explicit, parse


def test_settings_survive_the_wire() -> None:
    """Nested data and dotted names make the same settings."""
    settings = Settings.from_dict({"steps": 7, "optimizer.learning_rate": 1, "rollouts": {"group_size": 4}})
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings
    assert settings.changes() == {"steps": 7, "optimizer.learning_rate": 1.0, "rollouts.group_size": 4}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"learning_rate": 1.0}, "unknown setting 'learning_rate'; did you mean value.learning_rate or optimizer"),
        ({"optimizer.lr": 1.0}, "unknown setting 'optimizer.lr'"),
        ({"steps": "many"}, "steps='many': expected a whole number, at least 1"),
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"rollouts.group_size": 1}, "compares rollouts of the same task"),
        ({"sampling.temperature": 0.0}, "greedy rollouts"),
        ({"optimizer.learning_rate": float("nan")}, "learning_rate=nan"),
        ({"credit.advantage": "magic"}, "must be rloo, grpo, dr_grpo"),
        ({"role.writer.weigth": 1.0}, "did you mean role.NAME.weight"),
        ({"role.writer.schedule": "3/2"}, r"role.writer.schedule='3/2': must be always, never, steps such as 10-30"),
        ({"failure.timeout": "train"}, "set what a failed rollout earns too, such as failure.reward=-1"),
        ({"evaluation.seeds": 3}, "set evaluation.temperature as well"),
        ({"rollouts.staleness": 1, "importance.kind": "off"}, "rollouts of an older model need importance.kind"),
        ({"credit.rewards.brief": float("inf")}, "credit.rewards.brief=inf: must be a finite number"),
        ({"rollouts.runner": 8.5}, r"rollouts.runner=8.5: must be 'auto', 'threads' or .* a number of processes"),
        ({"rollouts.runner": -1}, r"rollouts.runner='-1': must be 'auto'"),
        ({"algorithm.loss": 3}, "algorithm.loss=3: must be ppo, gspo or cispo"),
        ({"credit.advantage": True}, "credit.advantage=True: must be rloo, grpo"),
        ({"optimizer.learning_rate": [1]}, r"learning_rate=\[1\]: expected a number, more than 0, or none"),
        ({"steps": 2.5}, "steps=2.5: expected a whole number, at least 1"),
        ({"steps": True}, "steps=True: expected a whole number"),
        ({"export.tokens": 1}, "export.tokens=1: expected true or false"),
        ({"model": 7}, "model=7: expected text"),
        ({"roles": 7}, r"roles=7: expected a name or a list of names, such as \['a', 'b'\]"),
        ({"credit": {"rewards": 3}}, "credit.rewards=3: expected a dict"),
    ],
)
def test_wrong_settings_say_what_is_wanted(values: dict[str, object], said: str) -> None:
    """The message names setting, value and remedy."""
    with pytest.raises(lightning.SettingError, match=said):
        Settings.from_dict(values)


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("rollouts.runner", 8, "8"),
        ("rollouts.runner", np.int64(0), "0"),
        ("rollouts.group_size", np.int32(4), 4),
        ("rollouts.group_size", 4.0, 4),
        ("rollouts.group_size", "4", 4),
        ("rollouts.group_size", "4e0", 4),
        ("rollouts.timeout", 5, 5.0),
        ("rollouts.timeout", torch.tensor(5), 5.0),
        ("optimizer.learning_rate", np.float32(0.5), 0.5),
        ("optimizer.learning_rate", "1e-5", 1e-5),
        ("optimizer.learning_rate", "none", None),
        ("export.tokens", np.bool_(True), True),
        ("export.tokens", "false", False),
        ("model", Path("models") / "mine", "models/mine"),
        ("model", np.str_("spark"), "spark"),
        ("roles", ["writer", "checker"], ("writer", "checker")),
        ("roles", "Researcher, senior (C++)", ("Researcher, senior (C++)",)),
        ("lora.targets", ["q_proj", "v_proj"], "q_proj,v_proj"),
        ("credit.rewards.brief", np.float64(0.5), 0.5),
        ("role.writer.weight", 2, 2.0),
        ("role.writer.schedule", "1/2", "1/2"),
        ("vllm.max_num_seqs", np.int64(64), 64),
        ("trainer.logger", ("console",), ["console"]),
    ],
)
def test_python_may_give_whatever_the_command_line_may(name: str, given: object, wanted: object) -> None:
    """Numbers for a text that is a number, text for numbers, NumPy's and torch's values, paths, lists, tuples."""
    found = Settings.from_dict({name: given}).flat()[name]
    assert found == wanted and type(found) is type(wanted)
    if isinstance(given, int | str | float):
        assert parse(name, str(given)) == wanted


def test_groups_are_checked_as_plain_data_is() -> None:
    """Their fields have the same types, the same forms and the same errors."""
    settings = Settings.from_dict(
        {"rollouts": Rollouts(runner=8, timeout=5), "optimizer": Optimizer(learning_rate="1e-5")}
    )  # type: ignore[arg-type]
    assert (settings.rollouts.runner, settings.rollouts.timeout) == ("8", 5.0)
    assert settings.optimizer.learning_rate == 1e-5
    with pytest.raises(
        lightning.SettingError, match=r"optimizer\.learning_rate='fast': expected a number, more than 0"
    ):
        Settings.from_dict({"optimizer": Optimizer(learning_rate="fast")})  # type: ignore[arg-type]
    with pytest.raises(
        lightning.SettingError, match=r"optimizer=Lora\(.*expected a dict, or lightning_sdk\.settings\.Optimizer"
    ):
        Settings.from_dict({"optimizer": Lora(rank=2)})


def test_a_group_knows_what_it_was_given() -> None:
    """Also where that is the default; a run that goes on changes these settings alone."""
    given = explicit(
        {
            "optimizer": Optimizer(weight_decay=0.0, learning_rate=1e-5),
            "rollouts": {"group_size": 8},
            "credit.weight": 1,
            "credit": Credit(rewards={"brief": 0.5}),
            "role": {"a.b": Credit(weight=1.0)},
            "vllm.max_num_seqs": 4,
        }
    )
    assert given == {
        "optimizer.weight_decay": 0.0,
        "optimizer.learning_rate": 1e-5,
        "rollouts.group_size": 8,
        "credit.weight": 1.0,
        "credit.rewards.brief": 0.5,
        "role.a.b.weight": 1.0,
        "vllm.max_num_seqs": 4,
    }
    assert explicit({}) == {} and Optimizer() == Optimizer(weight_decay=0.0)
    assert pickle.loads(pickle.dumps(Optimizer(beta1=0.5))).given_values() == {"beta1": 0.5}


def test_command_line_values_take_their_settings_type() -> None:
    """`--set` values are parsed by the setting's own type."""
    assert parse("optimizer.learning_rate", "1e-5") == 1e-5
    assert parse("rollouts.group_size", "4") == 4
    assert parse("prompts.algorithm", "apo") == "apo"  # whose last word also names a group
    with pytest.raises(lightning.SettingError, match="expected a whole number, at least 1"):
        parse("rollouts.group_size", "four")


def test_settings_of_verl_and_vllm_are_kept_by_their_full_names() -> None:
    """As they were typed, through plain data and back; names that begin otherwise are unknown."""
    given = {"actor_rollout_ref.actor.clip_ratio": parse("actor_rollout_ref.actor.clip_ratio", "0.3")}
    settings = Settings.from_dict(given | {"vllm.max_num_seqs": 64})
    assert settings.changes() == {"actor_rollout_ref.actor.clip_ratio": "0.3", "vllm.max_num_seqs": 64}
    assert Settings.from_dict(settings.as_dict()) == settings
    with pytest.raises(lightning.SettingError, match="begin with one of actor_rollout_ref"):
        Settings.from_dict({"verbatim": {"actor.clip_ratio": 0.3}})
    with pytest.raises(lightning.SettingError, match=r"setting trainer\.x"):
        Settings.from_dict({"trainer.x": {"a": 1}})
