"""Random arithmetic expressions, as text, and the calculator that evaluates them.

The shapes are those of reasoning-gym's `basic_arithmetic` and `chain_sum`, implemented independently and slightly
wider: one more term and one more digit, so that no task is at the edge of what the model has seen.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction
from random import Random

LONGEST = 200
"""Maximum number of characters of an expression."""
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def calculate(expression: str) -> str:
    """The value as text: an integer, or rounded to 4 decimals. ValueError unless it is + - * / on numbers."""
    if len(expression) > LONGEST:
        raise ValueError(f"the expression has {len(expression)} characters; at most {LONGEST} are allowed")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, RecursionError, MemoryError) as error:
        raise ValueError(f"cannot calculate {expression!r}: {error}") from None
    return str(value.numerator) if value.denominator == 1 else str(round(float(value), 4))


def expression(rng: Random) -> str:
    """A random expression of 2 to 7 numbers with up to 5 digits, separated by single spaces."""
    shape = rng.random()
    if shape < 0.35:
        return _chain(rng, rng.randint(2, 6), rng.randint(1, 4))
    if shape < 0.85:
        return " ".join(_tree(rng, rng.randint(2, 6), 10 ** rng.randint(1, 4) - 1))
    if shape < 0.93:
        return _chain(rng, rng.randint(2, 7), rng.randint(1, 5))
    return " ".join(_tree(rng, rng.randint(2, 7), 10 ** rng.randint(1, 5) - 1))


def decimals(rng: Random) -> str:
    """Two or three numbers with up to two decimals, added and subtracted."""
    parts = [f"{rng.randint(0, 999)}.{rng.randint(1, 99)}" for _ in range(rng.randint(2, 3))]
    return parts[0] + "".join(f" {rng.choice('+-')} {part}" for part in parts[1:])


def as_fraction(text: str) -> str:
    """The value of an expression as a fraction, such as 7/3."""
    return str(_value(ast.parse(text.strip(), mode="eval").body))


def normalise(text: str) -> str:
    """An expression without whitespace, for comparing tasks."""
    return "".join(text.split())


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return Fraction(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
    raise ValueError(f"cannot calculate {ast.unparse(node)!r}: only + - * / and brackets on numbers")


def _chain(rng: Random, terms: int, digits: int) -> str:
    """Terms with the same number of digits, added and subtracted."""
    low = 0 if digits == 1 else 10 ** (digits - 1)
    parts = [str(rng.randint(low, 10**digits - 1)) for _ in range(terms)]
    return parts[0] + "".join(f" {rng.choice('+-')} {part}" for part in parts[1:])


def _tree(rng: Random, terms: int, high: int) -> list[str]:
    """Signed terms up to `high` with all four operators and nested brackets, as a list of parts."""
    left = rng.randint(1, terms)
    parts: list[str] = []
    if left > 1 and rng.random() < 0.5:
        parts += [rng.choice(("(", "-(")), *_tree(rng, left, high), ")"]
    else:
        for index in range(left):
            if index:
                parts.append(rng.choice("+-*"))
            parts.append(str(rng.randint(-high, high)))
    rest = terms - left
    if not rest:
        return parts
    sign = rng.choice("+-*/")
    if sign == "/":
        return _divide(rng, parts, rest, high)
    return [*parts, sign, *_tree(rng, rest, high)]


def _divide(rng: Random, parts: list[str], rest: int, high: int) -> list[str]:
    """`parts` divided by a number that usually divides them exactly; then the other terms."""
    try:
        dividend = Fraction(calculate(" ".join(parts) if parts[-1] == ")" else parts[-1]))
    except ValueError:
        dividend = Fraction(0)
    divisors = [d for d in (*range(1, 100), int(abs(dividend))) if d and dividend % d == 0]
    divisor = rng.choice(divisors) if dividend and divisors else rng.randint(1, high)
    if rest == 1:
        return [*parts, "/", str(divisor)]
    more = _tree(rng, rest - 1, high)
    if more[-1] == ")" and rng.random() < 0.5:
        return [*parts, "/", *more[:-1], rng.choice("+-"), str(divisor), ")"]
    return [*parts, "/", str(divisor), rng.choice("+-"), *more]
