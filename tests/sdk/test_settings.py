"""Settings are checked when they are made; tasks when they are read."""

import json
from pathlib import Path

import pytest

import lightning_sdk as lightning
from lightning_sdk.settings import Settings, parse
from lightning_sdk.tasks import load, split


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


def test_broken_line_of_a_task_file_is_named(tmp_path: Path) -> None:
    """The third line is the broken one, and the message says so."""
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"q": 1}\n\n{"q": \n')
    with pytest.raises(lightning.TaskError, match=r"tasks.jsonl, line 3: not JSON"):
        load(path)
    path.write_text('{"q": 1}\n[1, 2]\n')
    with pytest.raises(lightning.TaskError, match=r"line 2: a task is an object of names and values, not list"):
        load(path)


@pytest.mark.parametrize(("name", "content", "said"), [
    ("missing.jsonl", None, "no file"), ("empty.jsonl", "\n", "holds no task"), ("tasks.csv", "a,b", "neither .jsonl"),
])  # fmt: skip
def test_task_files_that_are_none(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    """A missing, empty or foreign file is refused with its name."""
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(lightning.TaskError, match=said):
        load(tmp_path / name)


def test_tasks_must_be_plain_data() -> None:
    """A task that cannot travel is refused where it is given."""
    with pytest.raises(lightning.TaskError, match=r"tasks\[1\].*plain data"):
        load([{"a": 1}, {"b": object()}])


def test_split_puts_each_task_on_one_side() -> None:
    """Training and held-out tasks are disjoint, complete, and the same for the same seed."""
    tasks = [{"i": i} for i in range(50)]
    train, held_out = split(tasks, 0.2, 8, seed=3)
    assert len(held_out) == 8 and sorted(t["i"] for t in train + held_out) == list(range(50))
    assert split(tasks, 0.2, 8, seed=3) == (train, held_out)


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
