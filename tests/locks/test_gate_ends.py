"""What `make frameworks-ends` tests."""

from tests.frameworks.gate_ends import FRAMEWORKS, read_ranges


def test_every_range_that_an_integration_allows_has_its_tests() -> None:
    """The ranges are read from the integrations' own code, and none is without tests."""
    ranges = read_ranges()
    assert set(ranges) == set(FRAMEWORKS)
    assert ranges["agno"] == ("3", "4")
