"""Exact arithmetic on text: a parser for expressions, and two ways to compare an answer with the right one.

Nothing that a model writes is evaluated as code. Expressions are parsed here, into fractions of a bounded size.
"""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 200
"""Characters of an expression."""
BRACKETS = 20
"""Pairs of brackets in it."""
DIGITS = 15
"""Digits of a number in it."""
_TOKEN = re.compile(rf"\s*(?:(\d{{1,{DIGITS}}}(?:\.\d{{1,{DIGITS}}})?|\.\d{{1,{DIGITS}}})|([-+*/()%×÷]))")
_ANSWER = re.compile(r"###\s*ANSWER:\s*(.+?)\s*(?:###|$)|<answer>(.*?)</answer>", re.DOTALL)
_OPTION = re.compile(r"\(?\s*([A-Za-z])\s*\)?")


def evaluate(expression: str) -> Fraction:
    """The value of numbers joined by + - * / % and brackets, where `40%` is 2/5.

    Raises:
        ValueError: this is not such an expression, it is too long, or it divides by zero.
    """
    if len(expression) > LONGEST or expression.count("(") > BRACKETS:
        raise ValueError(f"an expression has at most {LONGEST} characters and {BRACKETS} pairs of brackets")
    return _Parser(_split(expression)).parse()


def show(value: Fraction) -> str:
    """An integer, a decimal fraction that ends, or a fraction: `42`, `2.5`, `7/3`."""
    if value.denominator == 1:
        return str(value.numerator)
    digits = next((digits for digits in range(1, 7) if 10**digits % value.denominator == 0), 0)
    if not digits:
        return f"{value.numerator}/{value.denominator}"
    whole, rest = divmod(abs(value.numerator) * 10**digits // value.denominator, 10**digits)
    return f"{'-' if value < 0 else ''}{whole}.{rest:0{digits}d}"


def final_answer(text: str) -> str:
    """What stands in `### ANSWER: ... ###` or in <answer> tags, the last of them; else the whole text."""
    found = _ANSWER.findall(text)
    return (found[-1][0] or found[-1][1] if found else text).strip()


def is_exact(answer: str, right: str) -> bool:
    """Whether both are the same option, or the same number: `0.5`, `1/2`, `50%` and `3 / 6` are one number."""
    if (option := _OPTION.fullmatch(right)) is not None:
        chosen = _OPTION.fullmatch(answer)
        return chosen is not None and chosen[1] == option[1]
    found, truth = number(answer), number(right)
    return answer == right if truth is None else found == truth


def is_close(answer: str, right: str) -> bool:
    """The rule of Calc-X's own evaluation: numbers that differ by at most 1 % are equal."""
    found, truth = number(answer), number(right)
    if found is None or truth is None:
        return is_exact(answer, right)
    return abs(found - truth) <= Fraction(1, 100) * max(abs(found), abs(truth))


def number(text: str) -> Fraction | None:
    """The number that a text is: an expression, a mixed number such as `2 1/3`, with thousands' commas or without."""
    text = text.split(" = around ", maxsplit=1)[0].strip().removeprefix("$").removesuffix(".")
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    if mixed := re.fullmatch(r"(-?)(\d+)[ _]\(?(\d+/\d+)\)?", text):
        text = f"{mixed[1]}({mixed[2]} + {mixed[3]})"
    try:
        return evaluate(text)
    except ValueError:
        return None


def _split(expression: str) -> list[str]:
    tokens, place, text = [], 0, expression.rstrip()
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise ValueError(f"cannot read {text[place : place + 20]!r}")
        tokens.append(token[0].strip())
        place = token.end()
    return tokens


class _Parser:
    """Recursive descent: sums of products of signed numbers."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = [*tokens, ""]
        self._place = 0

    def parse(self) -> Fraction:
        value = self._sum()
        if self._next():
            raise ValueError(f"did not expect {self._next()!r}")
        return value

    def _next(self) -> str:
        return self._tokens[self._place]

    def _take(self) -> str:
        self._place += 1
        return self._tokens[self._place - 1]

    def _sum(self) -> Fraction:
        value = self._product()
        while self._next() in {"+", "-"}:
            value = value + self._product() if self._take() == "+" else value - self._product()
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while self._next() in {"*", "/", "×", "÷"}:
            sign, factor = self._take(), self._factor()
            if sign in {"/", "÷"} and not factor:
                raise ValueError("division by zero")
            value = value * factor if sign in {"*", "×"} else value / factor
        return value

    def _factor(self) -> Fraction:
        if self._next() in {"+", "-"}:
            return -self._factor() if self._take() == "-" else self._factor()
        token = self._take()
        if token == "(":
            value = self._sum()
            if self._take() != ")":
                raise ValueError("a bracket is not closed")
        elif token[:1].isdigit() or token[:1] == ".":
            value = Fraction(token)
        else:
            raise ValueError(f"expected a number, not {token!r}" if token else "expected a number at the end")
        while self._next() == "%":
            self._take()
            value /= 100
        return value
