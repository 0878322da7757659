"""What a start is made of: phases that add up, and processes that import ahead of their time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_process.phases import Phases
from lightning_sdk.settings import Settings
from lightning_verl.config import RunPlacement, configuration
from lightning_vllm.preimport import Preimport, model_modules
from tests.processes import wait_until_ended
from tests.waiting import wait_for

PLACE = RunPlacement(device="cuda", nodes=1, gpus=2, model="spark", name="spark", max_length=512)


def test_phases_add_up() -> None:
    """Also those that another process measured, and one that was over before it was told."""
    times = iter([13.0, 20.0, 31.0, 33.0])
    phases = Phases(10.0, clock=lambda: next(times))
    phases.end("imports")
    phases.end("trainer", {"workers": 2.0, "vllm": 4.0})
    phases.end("early", at=28.0)
    phases.end("late")
    assert phases.seconds == {"imports": 3.0, "trainer": 1.0, "workers": 2.0, "vllm": 4.0, "early": 8.0, "late": 3.0}
    assert phases.facts()["start.total"] == sum(phases.seconds.values()) == 21.0
    assert str(phases).startswith("started in 21.0 s: imports 3.0, trainer 1.0")


def test_one_gpu_for_each_server_is_one_process_for_each_server() -> None:
    """Where vLLM needs no more, and the user has not said otherwise."""
    named = "actor_rollout_ref.rollout.tensor_model_parallel_size"
    for given, expected in (
        ({}, "uni"),
        ({"serving.tensor_parallel": 2}, None),
        ({named: "2"}, None),
        ({"vllm.distributed_executor_backend": "mp"}, "mp"),
    ):
        config = configuration(Settings.from_dict(given), PLACE, Path("run"))
        assert config.actor_rollout_ref.rollout.engine_kwargs.vllm.get("distributed_executor_backend") == expected


def test_the_configuration_is_made_without_importing_verl() -> None:
    """Which takes many seconds, and is for VERL's own processes."""
    program = (
        "import sys, pathlib; from lightning_sdk.settings import Settings; from lightning_verl import cluster, config\n"
        "place = config.RunPlacement(device='cpu', nodes=1, gpus=1, model='spark', name='spark', max_length=512)\n"
        "config.configuration(Settings(), place, pathlib.Path('run'))\n"
        "assert not {'verl', 'vllm', 'torch'} & set(sys.modules), 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_modules_are_imported_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In separate processes; a module that cannot be imported stops nothing."""
    (tmp_path / "imported_ahead.py").write_text("from pathlib import Path\nPath(__file__).with_suffix('.seen').touch()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Preimport([("there.is.none", "imported_ahead")], fewest=1) as ahead:
        assert [each.wait() for each in ahead.processes] == [0]
    assert (tmp_path / "imported_ahead.seen").exists()


def test_few_cores_import_nothing_ahead() -> None:
    """It would take the time that it is to save."""
    assert Preimport([("json",)], fewest=10**6).processes == []


def test_an_import_that_takes_too_long_ends_with_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has started itself."""
    slow = "import subprocess, pathlib\nchild = subprocess.Popen(['sleep', '1000'])\n"
    slow += f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid) + ' ')\nchild.wait()"
    (tmp_path / "slow_to_import.py").write_text(slow)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Preimport([("slow_to_import",)], fewest=1) as ahead:
        pid = tmp_path / "pid"
        wait_for(lambda: pid.exists() and pid.read_text().endswith(" "), "the import's own process")
    (process,) = ahead.processes
    assert process.poll() is not None
    wait_until_ended(int(pid.read_text()))


@pytest.mark.timeout(600)
def test_what_vllm_finds_out_of_a_model_is_found_out_ahead(tmp_path: Path) -> None:
    """By the class that its config names; there may be no such folder, or no such name."""
    assert model_modules(str(tmp_path)) == model_modules("org/name") == ["vllm.model_executor.models.registry"]
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    assert model_modules(str(tmp_path)) == ["model=LlamaForCausalLM"]
    cache = tmp_path / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CACHE_ROOT", str(cache))
        with Preimport([model_modules(str(tmp_path))], fewest=1) as ahead:
            assert [each.wait() for each in ahead.processes] == [0]
    assert any("LlamaForCausalLM" in found.name for found in (cache / "modelinfos").iterdir())
