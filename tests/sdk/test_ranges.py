"""Ranges of settings: a value that no backend can take is refused where it is typed."""

from typing import Any, get_args, get_type_hints

import pytest

import lightning_sdk as lightning
from lightning_hub.credit.estimators import COMPARED
from lightning_sdk.settings.combinations import GROUPED
from lightning_sdk.settings.settings import _GROUPS, Settings
from tests.sdk.ends import ACCEPTED, ENDS, INF, NAN

REFUSED = [(name, value) for name, (_, refused) in ENDS.items() for value in [*refused, NAN, INF, -INF]]


def numeric() -> set[str]:
    """The dotted names of all settings that may be a number."""
    found = set()
    for group, kind in {"": Settings, **_GROUPS}.items():
        for name, hint in get_type_hints(kind).items():
            if {int, float} & {hint, *get_args(hint)} and (group or name not in _GROUPS) and not _is_table(hint):
                found.add(f"{group}.{name}" if group else name)
    return found


def _is_table(hint: Any) -> bool:
    return len(get_args(hint)) == 2 and str in get_args(hint)


def test_every_number_has_a_range() -> None:
    """A setting that is added needs one too."""
    assert numeric() == set(ENDS)


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_the_ends_of_a_range_are_in_it(name: str, value: Any) -> None:
    """As far as settings say."""
    assert Settings.from_dict({name: value}).flat()[name] == value


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_is_beyond_is_refused(name: str, value: Any) -> None:
    """With the setting's name and the value; so for a role."""
    with pytest.raises(lightning.SettingError, match=name.replace(".", r"\.")):
        Settings.from_dict({name: value})
    if name.startswith("credit."):
        leaf = name.removeprefix("credit.")
        with pytest.raises(lightning.SettingError, match=rf"role\.writer\.{leaf}"):
            Settings.from_dict({f"role.writer.{leaf}": value})


def test_a_group_of_one_is_for_estimators_that_compare_nothing() -> None:
    """The others say what to type; a role's own too."""
    alone: dict[str, Any] = {"rollouts.group_size": 1}
    for advantage in ("running_mean", "reinforce", "reinforce++", "gae"):
        assert Settings.from_dict({**alone, "credit.advantage": advantage}).rollouts.group_size == 1
    assert set(COMPARED) == GROUPED
    for advantage in GROUPED:
        with pytest.raises(
            lightning.SettingError, match=r"set rollouts\.group_size to 2 or more, or credit\.advantage to"
        ):
            Settings.from_dict({**alone, "credit.advantage": advantage})
    with pytest.raises(lightning.SettingError, match=r"role\.writer\.advantage='grpo' compares rollouts"):
        Settings.from_dict({**alone, "credit.advantage": "reinforce", "role.writer.advantage": "grpo"})
    with pytest.raises(lightning.SettingError, match="dynamic_sampling=2: it replaces groups"):
        Settings.from_dict({**alone, "credit.advantage": "reinforce", "algorithm.dynamic_sampling": 2})
