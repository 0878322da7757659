"""A number of things, as a sentence names it."""


def quantity(number: int, one: str, many: str = "") -> str:
    """'1 step', '0 steps', '2 steps'; `many` is what follows other numbers than 1, by default `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
