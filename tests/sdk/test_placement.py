"""Where rollouts run, as a setting says it, and the names of machines."""

from __future__ import annotations

import pytest

import lightning_sdk as lightning
from lightning_sdk.settings import placement
from lightning_sdk.settings.placement import Placement
from lightning_sdk.system import addresses

EVERY = "[::]"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("auto", Placement("auto")),
        ("asyncio", Placement("asyncio")),
        ("processes", Placement("processes")),
        ("0", Placement("none")),
        ("4", Placement("processes", 4)),
        ("ray:64", Placement("ray", 64)),
        ("ray:64@auto", Placement("ray", 64, "auto")),
        ("ray:2@10.0.0.7:6379", Placement("ray", 2, "10.0.0.7:6379")),
        ("ray:2@ray://head:10001", Placement("ray", 2, "ray://head:10001")),
    ],
)
def test_where_runners_are_placed(text: str, wanted: Placement) -> None:
    """Each form means one thing, and is a setting that is taken."""
    assert placement.parse(text) == wanted
    assert lightning.Settings.from_dict({"rollouts.runner": text}).rollouts.runner == text


@pytest.mark.parametrize(
    "text", ["", "thread", "-1", "ray", "ray:0", "ray:4@", "ray:4@host", "ray:4@http://h:1", "4@h:1"]
)
def test_what_is_not_a_placement(text: str) -> None:
    """The message tells all forms."""
    with pytest.raises(lightning.SettingError, match=r"rollouts\.runner=.*ray:64@HOST:PORT"):
        lightning.Settings.from_dict({"rollouts.runner": text})


@pytest.mark.parametrize(
    ("given", "through", "wanted"),
    [
        ("http://0.0.0.0:8123/v1", "tcp://trainer.example:4718", "http://trainer.example:8123/v1"),
        ("http://127.0.0.1:8123/v1", "tcp://trainer.example:4718", "http://127.0.0.1:8123/v1"),
        ("http://engine.example:8123/v1", "tcp://trainer.example:4718", "http://engine.example:8123/v1"),
        ("tcp://0.0.0.0:4718", "tcp://127.0.0.1:0", "tcp://127.0.0.1:4718"),
        (f"http://{EVERY}:8123/v1", "tcp://[::1]:4718", "http://[::1]:8123/v1"),
        ("ipc:///tmp/hub", "tcp://trainer.example:4718", "ipc:///tmp/hub"),
    ],
)
def test_a_wildcard_is_reached_by_the_name_of_its_machine(given: str, through: str, wanted: str) -> None:
    """Nobody can call 0.0.0.0; what has a name keeps it."""
    assert addresses.reachable_address(given, through) == wanted


def test_this_machine_has_a_name_that_can_be_told() -> None:
    """It stands for no more than one address."""
    assert not addresses.is_wildcard(addresses.own_name())
    assert (
        addresses.is_loopback("localhost")
        and addresses.is_loopback("127.0.0.9")
        and not addresses.is_loopback("10.0.0.7")
    )
