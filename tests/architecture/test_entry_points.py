"""Entry points: what an installed integration and an installed backend have to be."""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points

import pytest

from lightning_hub.backend import BackendSpec
from lightning_hub.rollouts.plan import refuse_ignored
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Optimizer, Settings
from lightning_sdk.settings.settings import VERBATIM
from tests.architecture.sources import integrations, modules, pyproject

GROUPS = pyproject()["project"]["entry-points"]


def ours(group: str) -> list[EntryPoint]:
    return [entry for entry in entry_points(group=group) if entry.dist and entry.dist.name == "lightning-agent-sdk"]


@pytest.mark.parametrize("group", ["lightning_sdk.integrations", "lightning_sdk.backends", "lightning_sdk.trackers"])
def test_installed_as_declared(group: str) -> None:
    """What is installed is what pyproject.toml says; if not, install again."""
    assert {entry.name: entry.value for entry in ours(group)} == GROUPS[group]


def test_every_integration_has_an_entry_point() -> None:
    """An integration without one would never be loaded."""
    assert {value.split(":")[0] for value in GROUPS["lightning_sdk.integrations"].values()} == integrations()


def test_every_tracker_has_an_entry_point_and_an_extra() -> None:
    """`--log-to NAME` finds the module NAME, and what it says to install is an extra of that name."""
    names = {module.name.partition(".")[2] for module in modules() if module.package == "lightning_trackers"} - {""}
    assert GROUPS["lightning_sdk.trackers"].keys() == names <= pyproject()["project"]["optional-dependencies"].keys()


@pytest.mark.parametrize("entry", ours("lightning_sdk.integrations"), ids=lambda entry: entry.name)
def test_an_integration_takes_patches(entry: EntryPoint) -> None:
    """It is a function of `Patches`, in one of our modules."""
    assert entry.module in integrations()
    assert list(inspect.signature(entry.load()).parameters) == ["patches"]


@pytest.mark.parametrize("entry", ours("lightning_sdk.backends"), ids=lambda entry: entry.name)
def test_a_backend_is_a_spec(entry: EntryPoint) -> None:
    """It carries its own name, honours settings that exist, and starts from settings and a folder."""
    spec = entry.load()
    assert isinstance(spec, BackendSpec)
    assert spec.name == entry.name
    flat = [*Settings().flat(), *VERBATIM]
    for name in spec.honours:
        assert name in flat or any(known.startswith(name.removesuffix("*")) for known in flat if name.endswith(".*"))
    assert len(inspect.signature(spec.start).parameters) == 2


def test_a_setting_that_a_backend_does_not_honour_is_refused() -> None:
    """The wall between settings and backends: no setting is ignored in silence."""
    spec = BackendSpec(name="deaf", honours=frozenset({"model"}), start=lambda settings, folder: pytest.fail("started"))
    refuse_ignored(Settings(steps=3), spec)
    with pytest.raises(SettingError, match=r"deaf.*optimizer\.max_norm=0\.5"):
        refuse_ignored(Settings(optimizer=Optimizer(max_norm=0.5)), spec)
