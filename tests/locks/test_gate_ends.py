"""What `make frameworks-ends` tests."""

import json

from packaging.version import Version

from tests.frameworks.gate_ends import FRAMEWORKS, RESULTS, End, read_ranges


def test_every_range_that_an_integration_allows_has_its_tests() -> None:
    """The ranges are read from the integrations' own code, and none is without tests."""
    ranges = read_ranges()
    assert set(ranges) == set(FRAMEWORKS)
    assert ranges["agno"] == ("3", "4")


def test_both_ends_of_every_range_passed() -> None:
    """As the integrations allow them now: a range that is changed has to be tested again."""
    ends = [End(**each) for each in json.loads(RESULTS.read_text())]
    for distribution, (low, below) in read_ranges().items():
        found = [each for each in ends if each.distribution == distribution]
        assert len(found) == 2 and all(each.passed for each in found), distribution
        assert {each.allowed for each in found} == {f"{low} to below {below}"}, distribution
        assert all(Version(low) <= Version(each.version) < Version(below) for each in found), distribution
