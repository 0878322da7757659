"""What a run that goes on keeps, what may change in it, and what is refused with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.commands import resume_hints
from lightning_sdk.commands.earlier_run import EarlierRun, describe, describe_origin, read
from lightning_sdk.markers.reward import reward_functions
from lightning_sdk.results.run_origin import RunOrigin
from lightning_sdk.rollouts.tasks import divide, task_id
from lightning_sdk.settings import Credit, Optimizer, Settings
from lightning_sdk.settings.settings import explicit

OWN = {
    "model": "spark",
    "steps": 40,
    "roles": ("solver",),
    "optimizer.learning_rate": 1e-5,
    "optimizer.warmup_steps": 9,
    "rollouts.group_size": 4,
    "divergence.coefficient": 0.1,
    "sampling.max_tokens": 64,
    "lora.rank": 0,
    "credit.rewards.brief": 0.5,
    "role.solver.weight": 0.5,
    "vllm.max_num_seqs": 8,
}
TASKS = [{"q": number} for number in range(10)]


def run(folder: Path, *, done: int = 0, status: str = "", **config: Any) -> EarlierRun:
    """A run's folder with a checkpoint after the step `done`, and the report of one that ended with `status`."""
    folder.mkdir()
    settings = Settings.from_dict({**OWN, **config.pop("settings", {})})
    values = {"kind": "training", "settings": settings.as_dict(), "rewards": {"right": None}, "from_runs": []}
    (folder / "config.json").write_text(json.dumps(values | config))
    training = [task_id(task) for task in TASKS[2:]]
    (folder / "tasks.json").write_text(json.dumps({"held_out": TASKS[:2], "training": training}))
    if done:
        (folder / "checkpoints" / f"step-{done:05d}").mkdir(parents=True)
    if status:
        (folder / "report.json").write_text(json.dumps({"status": status, "steps": done}))
    return read(folder, "runs")


def test_nothing_changes_but_what_is_given(tmp_path: Path) -> None:
    """Each changed setting is told in one line, old and new; a group changes what it was given and nothing else."""
    earlier = run(tmp_path / "run", done=20)
    assert earlier.settings_with({}) == Settings.from_dict(OWN)
    given = {
        "steps": 60,
        "optimizer": Optimizer(learning_rate=5e-4, weight_decay=0.0),
        "role.solver.schedule": "1/2",
        "credit": Credit(weight=1.0),
        "vllm.max_num_seqs": 16,
        "roles": ["solver"],
        "model": "spark",
    }
    new = earlier.settings_with(explicit(given))
    assert list(describe(earlier.settings, new)) == [
        "changed in this run: vllm.max_num_seqs 8 -> 16",
        "changed in this run: steps 40 -> 60",
        "changed in this run: optimizer.learning_rate 1e-05 -> 0.0005",
        "changed in this run: role.solver.schedule always -> 1/2",
    ]
    assert new.optimizer == Optimizer(learning_rate=5e-4, warmup_steps=9) and new.divergence.coefficient == 0.1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"model": "other"},
            "setting model='other': it is 'spark' in this run, and cannot change: its checkpoints and",
        ),
        ({"backend": "verl"}, "setting backend='verl'.*no other backend reads its checkpoints"),
        ({"seed": 1}, "setting seed=1.*the order of the tasks"),
        ({"roles": "writer"}, r"setting roles=\('writer',\).*measured with these roles"),
        ({"evaluation.split": 0.5}, "held-out tasks of a run stay the same"),
        ({"evaluation.tasks": 3}, "score before training was measured with it"),
        ({"evaluation.temperature": 1.0}, "score before training was measured with it"),
        ({"sampling.max_tokens": 65}, "setting sampling.max_tokens=65: it is 64"),
        ({"credit.rewards.brief": 1.0}, "setting credit.rewards.brief=1.0: it is 0.5"),
        ({"credit.rewards.new": 2.0}, "setting credit.rewards.new=2.0: it is 1.0"),
        ({"role.solver.rewards.brief": 2.0}, r"setting role\.solver\.rewards\.brief=2\.0"),
        ({"lora.rank": 8}, "setting lora.rank=8.*the adapters that it began with"),
        ({"credit.advantage": "gae"}, "setting credit.advantage: 'gae' trains a value head"),
        ({"role.solver.advantage": "gae"}, "setting credit.advantage: 'gae' trains a value head"),
    ],
)
def test_what_cannot_change_is_refused_with_the_way_out(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    """A new run that begins with the model of this one."""
    earlier = run(tmp_path / "run", done=20)
    with pytest.raises(lightning.SettingError, match=said) as raised:
        earlier.settings_with(explicit(given))
    assert str(raised.value).endswith(
        f"start a new run from this model, without --resume: --model {tmp_path}/run/checkpoints/step-00020"
    )


def test_what_may_change_does(tmp_path: Path) -> None:
    """Everything else: these are what one would want to change."""
    given = {
        "engine": "vllm",
        "save_every": 5,
        "credit.advantage": "grpo",
        "algorithm.loss": "cispo",
        "steps": 21,
        "divergence.coefficient": 0.0,
        "optimizer.beta1": 0.5,
        "rollouts.group_size": 16,
        "evaluation.every": 5,
        "rollouts.runner": 4,
        "failure.timeout": "exclude",
        "role.solver.weight": 2.0,
    }
    new = run(tmp_path / "run", done=20).settings_with(explicit(given))
    assert {name: new.flat()[name] for name in given} == {**given, "rollouts.runner": "4"}


@pytest.mark.parametrize(
    ("done", "status", "given", "said"),
    [
        (40, "finished", {}, r"has done all of its 40 steps; give the new total, such as steps=80 \(--steps 80\)"),
        (
            40,
            "finished",
            {"steps": 40},
            "setting steps=40: .* has already done 40 steps; give the new total.* steps=80",
        ),
        (20, "stopped", {"steps": 10}, "setting steps=10: .* has already done 20 steps"),
        (40, "", {}, None),  # killed while it was measured after its last step
        (40, "stopped", {}, None),
        (20, "stopped", {"steps": 20}, None),  # to be measured where it is
        (0, "", {}, None),
    ],
)
def test_steps_are_those_of_the_whole_run(
    tmp_path: Path, done: int, status: str, given: dict[str, Any], said: str | None
) -> None:
    """One that has done them all is told what to type."""
    earlier = run(tmp_path / "run", done=done, status=status)
    if said is None:
        assert earlier.settings_with(given).steps == given.get("steps", 40)
    else:
        with pytest.raises(lightning.SettingError, match=said):
            earlier.settings_with(given)


def test_a_model_may_be_in_another_place(tmp_path: Path) -> None:
    """The same folder by another path is not a change; if the old one is gone, a new place is taken, and told."""
    (tmp_path / "model").mkdir()
    earlier = run(tmp_path / "run", done=20, settings={"model": str(tmp_path / "model")})
    assert earlier.settings_with({"model": f"{tmp_path}/run/../model"}) == earlier.settings
    (tmp_path / "moved").mkdir()
    with pytest.raises(lightning.SettingError, match="cannot change"):
        earlier.settings_with({"model": str(tmp_path / "moved")})
    (tmp_path / "model").rmdir()
    assert earlier.settings_with({"model": str(tmp_path / "moved")}).model == str(tmp_path / "moved")


def test_a_listening_engine_does_not_go_on_listening(tmp_path: Path) -> None:
    """Where nobody is let in from elsewhere this time, the engine is on this machine's own address again."""
    earlier = run(tmp_path / "run", settings={"serving.host": "0.0.0.0"})
    assert earlier.settings_with({}).serving.host == "127.0.0.1"
    assert earlier.settings_with({}, "tcp://0.0.0.0:4718").serving.host == "0.0.0.0"
    assert earlier.settings_with({"serving.host": "::1"}).serving.host == "::1"


def test_held_out_tasks_stay_held_out(tmp_path: Path) -> None:
    """Whatever the task file holds now: new ones join training, held-out ones do not, and that is said."""
    earlier = run(tmp_path / "run")
    assert earlier.divide(TASKS, None) == (TASKS[2:], TASKS[:2], (), ())
    parts = earlier.divide([{"q": 1.0}, {"q": 5}, {"q": 77}, {"q": 78}], None)
    assert parts.training == [{"q": 5}, {"q": 77}, {"q": 78}] and parts.held_out == TASKS[:2]
    assert parts.notices == ("the tasks have changed: 2 are new, 7 are gone; the 2 held-out tasks stay the same",)
    assert earlier.divide(TASKS, TASKS[1::-1]).held_out == TASKS[:2]
    with pytest.raises(lightning.TaskError, match=r"keeps its 2 held-out tasks .*lightning-sdk evaluate"):
        earlier.divide(TASKS, TASKS[:3])
    with pytest.raises(lightning.TaskError, match="all 1 are held out"):
        earlier.divide(TASKS[:1], None)


def test_tasks_on_both_sides_are_told_and_not_trained_on() -> None:
    """And held-out ones that are there twice count once."""
    parts = divide(TASKS, [{"q": 1}, {"q": 2}, {"q": 2.0}, {"q": 99}], Settings())
    assert parts.training == [TASKS[0], *TASKS[3:]] and parts.held_out == [{"q": 1}, {"q": 2}, {"q": 99}]
    assert parts.warnings[0].startswith("2 of 10 tasks are held out as well, and are not trained on: ")
    assert parts.warnings[1] == "1 of 4 held-out tasks are duplicates: each counts once"
    with pytest.raises(lightning.TaskError, match=r"all 10 are in held_out as well.*leave held_out out"):
        divide(TASKS, TASKS, Settings())
    assert divide(TASKS, None, Settings()).warnings == ()


def test_other_rewards_are_refused(tmp_path: Path) -> None:
    """By name or by the weight that they are marked with: before and after would be of two kinds."""
    earlier = run(tmp_path / "run", rewards={"right": None, "brief": 0.5})
    earlier.refuse_other_rewards({"brief": 0.5, "right": None})
    for other in ({"right": None}, {"right": None, "brief": 1.0}):
        with pytest.raises(lightning.SettingError, match=r"this run was rewarded by right, brief \(weight 0.5\), and"):
            earlier.refuse_other_rewards(other)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", "{", "cannot be resumed: its config.json is missing or damaged"),
        ("config.json", '{"kind": "an evaluation", "settings": {}}', "holds an evaluation, not a training"),
        ("tasks.json", "[]", "its tasks.json, which lists the held-out tasks, is missing or damaged"),
    ],
)
def test_a_folder_that_cannot_go_on_says_why(tmp_path: Path, file: str, content: str, said: str) -> None:
    """Damage, or the folder of something that is not a training."""
    run(tmp_path / "run")
    (tmp_path / "run" / file).write_text(content)
    with pytest.raises(lightning.SettingError, match=said):
        read(tmp_path / "run", "runs")


def begun_with(folder: Path, **origin: Any) -> EarlierRun:
    """A run whose agent, reward and tasks are in files beside its folder, unless `origin` says otherwise."""
    (folder / "own.py").write_text("def solve(task): return 1\ndef score(task, answer): return 1.0\n")
    (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, TASKS)))
    own = {"agent": f"{folder}/own.py:solve", "rewards": [f"{folder}/own.py:score"], "tasks": f"{folder}/tasks.jsonl"}
    return run(folder / "run", origin=own | origin)


def test_a_run_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    """Agent, rewards and tasks are found by the names that the run keeps of them, whatever folder one is in."""
    earlier = begun_with(tmp_path)
    agent, rewards = earlier.load_agent()
    assert (agent.__name__, [each.__name__ for each in rewards]) == ("solve", ["score"])
    assert earlier.load_tasks() == TASKS
    assert describe_origin(agent, reward_functions(rewards), tmp_path / "tasks.jsonl", None) == earlier.origin
    assert resume_hints.after_death(earlier.folder).count(f"lightning-sdk train --resume {earlier.folder} ") == 1


def test_a_file_of_tasks_that_is_not_the_same_is_refused(tmp_path: Path) -> None:
    """Gone, or with other content: the message says what, and how to go on with it all the same."""
    earlier = begun_with(tmp_path)
    file = tmp_path / "tasks.jsonl"
    file.write_text("\n".join(json.dumps(task) for task in [*TASKS[:9], {"q": 77}, {"q": 78}]))
    with pytest.raises(lightning.TaskError, match=rf"2 are new, 1 are gone\. To go on .*--tasks {file}"):
        earlier.load_tasks()
    file.unlink()
    with pytest.raises(lightning.TaskError, match=rf"{file}, .* is not there any more: name the file \(--tasks FILE"):
        earlier.load_tasks()


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ({"agent": ""}, "how the agent of .* is called is not known"),
        ({"agent": "/nowhere/agent.py:solve"}, "was started with /nowhere/agent.py:solve; no file /nowhere/agent.py"),
        ({"agent": "HERE/run/own.py:solve"}, "own.py:solve is inside the run's own folder, and is not run"),
        ({"backend_python": "HERE/run/python"}, "run/python is inside the run's own folder, and is not run"),
        ({"rewards": ["HERE/run/../run/own.py:score"]}, "own.py:score is inside the run's own folder, and is not run"),
    ],
)
def test_an_agent_that_is_not_found_is_to_be_named(tmp_path: Path, origin: dict[str, Any], said: str) -> None:
    """Nor does a folder that comes from elsewhere bring the code that runs."""
    filled = json.loads(json.dumps(origin).replace("HERE", str(tmp_path)))
    with pytest.raises(lightning.SettingError, match=said) as raised:
        begun_with(tmp_path, **filled).load_agent()
    assert str(raised.value).endswith(f"name it: lightning-sdk train FILE.py:FUNCTION --resume {tmp_path}/run")


def test_what_has_no_name_is_not_kept(tmp_path: Path) -> None:
    """Functions inside functions, and lists of tasks; a hint then says the option alone."""
    assert describe_origin(lambda task: 1, [], TASKS, None) == RunOrigin()
    inside = reward_functions(lambda task, answer: 1.0)
    assert describe_origin(describe, inside, "tasks.jsonl", "python3").agent == ""
    earlier = run(tmp_path / "run")
    assert "lightning-sdk" not in resume_hints.after_death(earlier.folder)
    with pytest.raises(lightning.TaskError, match=r"did not come from a file: give them again"):
        earlier.load_tasks()


def test_a_run_is_found_by_its_name(tmp_path: Path) -> None:
    """In the folder of runs, as everywhere."""
    run(tmp_path / "run")
    assert read("run", tmp_path).folder == tmp_path / "run"
    with pytest.raises(lightning.SettingError, match=r"nothing is not the folder or the name of a run"):
        read("nothing", tmp_path)
