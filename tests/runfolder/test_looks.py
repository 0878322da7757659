"""How often a run's score was looked at, and what that leaves for one look more."""

from typing import Any

import pytest

from lightning_hub.statistics.looks import ERROR, PLANNED, next_look


def life(names: list[tuple[str, int]], planned: int) -> list[Any]:
    """The looks of a run with these evaluations, which was to end at step `planned`."""
    lines: list[dict[str, Any]] = [{"name": "before", "step": 0, "planned_step": planned}]
    found = []
    for name, step in names:
        found.append(next_look(name, step, lines))
        lines.append({"name": name, "step": step, "look": {"number": found[-1].number, "share": found[-1].share}})
    return found


def test_the_planned_look_has_most_of_the_error_wherever_it_comes() -> None:
    """Alone, and after those on the way."""
    (alone,) = life([("after", 40)], 40)
    *_, last = life([("step-10", 10), ("step-20", 20), ("step-30", 30), ("after", 40)], 40)
    assert (alone.number, alone.share, last.number, last.share) == (1, PLANNED, 4, PLANNED)


def test_a_further_look_is_stricter_than_the_one_before() -> None:
    """A run that is resumed until it is better pays for each time."""
    found = life([("after", step) for step in (20, 40, 60, 80)], 20)
    assert [each.number for each in found] == [1, 2, 3, 4] and found[0].share == PLANNED
    assert found[1].share > found[2].share > found[3].share > 0
    assert 0.95 <= found[0].level < found[1].level < found[2].level < 1


def test_an_end_that_was_chosen_after_a_look_is_not_the_planned_one() -> None:
    """Ended where a look on the way was best, it would be judged by what it was chosen for."""
    found = life([("step-10", 10), ("step-20", 20), ("after", 20)], 40)
    assert found[-1].share < found[0].share < PLANNED
    before_any_look = life([("after", 30)], 40)
    assert before_any_look[0].share == PLANNED


@pytest.mark.parametrize("resumed", [False, True])
def test_no_number_of_looks_spends_more_than_the_error(resumed: bool) -> None:
    """The parts of a thousand looks add up to less than the whole, so that chance is called better in 2.5% of runs."""
    names = [("after" if resumed or step == 1000 else f"step-{step}", step) for step in range(1, 1001)]
    shares = [each.share for each in life(names, 1 if resumed else 1000)]
    assert 0.99 < sum(shares) <= 1 and ERROR == 0.025
