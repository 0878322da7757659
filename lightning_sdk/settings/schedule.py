"""Schedules: in which steps a role is trained, as `credit.schedule` says."""

from __future__ import annotations

import re

SCHEDULE = re.compile(r"always|never|(?P<first>\d+)-(?P<last>\d*)|(?P<turn>\d+)/(?P<turns>\d+)(:(?P<block>\d+))?")
#: The grammar, as messages tell it.
FORMS = "always, never, steps such as 10-30 or 10-, or turns such as 1/2 or 1/2:5"


def is_valid(text: str) -> bool:
    """Whether `text` is a schedule: of steps that do not end before they begin, or of a turn that there is."""
    found = SCHEDULE.fullmatch(text)
    if found is None:
        return False
    if found["turn"]:
        return 1 <= int(found["turn"]) <= int(found["turns"]) and int(found["block"] or 1) >= 1
    return not found["last"] or int(found["first"] or 0) <= int(found["last"])
