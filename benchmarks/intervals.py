"""How often the verdict errs, what its interval covers, and how small a gain it finds, by simulation.

    python benchmarks/intervals.py [--json] [--trials 4000]

    nothing learned   part of runs called better, and worse, whose mean change is 0: of every shape, at n = 3 to 400
    scores            part of 95% intervals of a single score that hold the true mean
    looks             part of runs that learned nothing and are called better at any of 1 to 20 looks
    gains             the smallest gain that four runs of five are called better for
    worst             the largest part, of what is allowed, that a search over distributions could find

Each beside Student's t, the interval that most reports have. Thousands of samples at a time are judged by the formula
that the product uses for many values; `agreement` is its largest deviation from the exact one that it uses otherwise,
as a part of the chance.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_hub.statistics.looks import ERROR, PLANNED, next_look
from lightning_hub.statistics.mean_bounds import chance_of
from lightning_hub.statistics.reward_range import FEWEST, FEWEST_TRAINED, RangeSource, TrainingRange, reward_range

Array = NDArray[np.float64]
Shape = tuple[int, int]
Draw = Callable[[np.random.Generator, Shape], tuple[Array, Array]]
"""Scores before and after, [trials, tasks] each."""

SIZES = (3, 6, 10, 20, 60, 200, 400)
LOOKS = (1, 5, 10, 20)


# --- runs that learned nothing


def _sampler(chance: Callable[[np.random.Generator, Shape], Array]) -> Draw:
    def draw(generator: np.random.Generator, shape: Shape) -> tuple[Array, Array]:
        task = chance(generator, shape)
        return (generator.random(shape) < task).astype(float), (generator.random(shape) < task).astype(float)

    return draw


def _constant(chance: float) -> Draw:
    return _sampler(lambda _, shape: np.full(shape, chance))


def _shift_scores(before: float, spread: float, change: Callable[[np.random.Generator, Shape], Array]) -> Draw:
    """Scores around `before`, and a change of mean 0."""

    def draw(generator: np.random.Generator, shape: Shape) -> tuple[Array, Array]:
        first = before + spread * generator.standard_normal(shape)
        return first, first + change(generator, shape)

    return draw


def _rare(part: float, size: float) -> Callable[[np.random.Generator, Shape], Array]:
    """A big change of a few tasks, and a small one of all others the other way."""
    return lambda generator, shape: np.where(generator.random(shape) < part, size, -size * part / (1 - part))


def _grade(generator: np.random.Generator, shape: Shape) -> tuple[Array, Array]:
    """Between 0 and 1, with tasks of all difficulties."""
    task = generator.random(shape)
    before, after = (np.clip(task + generator.normal(0, 0.2, shape), 0, 1) for _ in range(2))
    return before, after


NOTHING_LEARNED: dict[str, Draw] = {
    "0/1, easy and hopeless tasks": _sampler(lambda generator, shape: generator.beta(0.3, 0.3, shape)),
    "0/1, all tasks alike": _constant(0.5),
    "0/1, one in 20 solved": _constant(0.05),
    "0 to 1, graded": _grade,
    "0 to 1, one task in 10 loses 0.9": _shift_scores(0.9, 0.0, _rare(0.1, -0.9)),
    "0 to 1, one task in 30 loses 0.9": _shift_scores(0.95, 0.0, _rare(1 / 30, -0.9)),
    "0 to 1, one task in 10 gains 0.9": _shift_scores(0.1, 0.0, _rare(0.1, 0.9)),
    "-1 to 1, one task in 20 loses 1.9": _shift_scores(0.9, 0.0, _rare(0.05, -1.9)),
    "any, normal": _shift_scores(5.0, 1.0, lambda generator, shape: generator.standard_normal(shape)),
    "any, long tail down": _shift_scores(5.0, 1.0, lambda g, shape: math.exp(0.5) - g.lognormal(size=shape)),
    "any, longer tail down": _shift_scores(5.0, 0.0, lambda g, shape: math.exp(1.125) - g.lognormal(0, 1.5, shape)),
    "any, long tail up": _shift_scores(5.0, 1.0, lambda g, shape: g.lognormal(size=shape) - math.exp(0.5)),
    "any, Student's t with 3 degrees": _shift_scores(5.0, 1.0, lambda generator, shape: generator.standard_t(3, shape)),
    "any, one task in 10 loses 2": _shift_scores(5.0, 0.0, _rare(0.1, -2.0)),
    "any, one task in 50 loses 2": _shift_scores(5.0, 0.2, _rare(0.02, -2.0)),
}


def nothing_learned(generator: np.random.Generator, trials: int) -> Iterator[dict[str, Any]]:
    for name, draw in NOTHING_LEARNED.items():
        for tasks in SIZES:
            before, after = draw(generator, (trials, tasks))
            trained = draw(generator, (trials, FEWEST_TRAINED))[1]
            widths = _widths(np.concatenate([before, after], axis=1), trained, tasks)
            better, worse = _verdicts(after - before, widths, ERROR * PLANNED)
            t_better, t_worse = _told_by_t(after - before, ERROR)
            yield {
                "scores": name,
                "tasks": tasks,
                "better": _part(better),
                "worse": _part(worse),
                "covered": _part(~better & ~worse),
                "t_better": _part(t_better),
                "t_worse": _part(t_worse),
            }


def _widths(scores: Array, trained: Array, tasks: int) -> Array:
    """[trials] Width of the range that each trial's reward is taken to have; infinite where that says too little."""
    found = []
    for seen, training in zip(scores.tolist(), trained, strict=True):
        within = reward_range(seen, None, TrainingRange(training.min(), training.max(), len(training)))
        unknown = within is None or (within.source == RangeSource.SEEN and tasks < FEWEST)
        found.append(math.inf if within is None or unknown else within.width)
    return np.array(found)


def _verdicts(changes: Array, widths: Array, error: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[trials] Which are called better, and which worse."""
    known = np.isfinite(widths)
    width = np.where(known, widths, 1.0)[:, None]
    up = known & (_chances(np.concatenate([changes, -width], axis=1)) < error)
    return up, known & (_chances(np.concatenate([-changes, -width], axis=1)) < error)


def _told_by_t(changes: Array, error: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    low, high = _by_t(changes, error)
    return low > 0, high < 0


def _by_t(values: Array, error: float) -> tuple[Array, Array]:
    count = values.shape[1]
    half = _t_quantile(1 - error, count - 1) * values.std(axis=1, ddof=1) / math.sqrt(count)
    return values.mean(axis=1) - half, values.mean(axis=1) + half


def _t_quantile(level: float, degrees: int) -> float:
    """By integration of the density; good to 4 digits."""
    grid = np.linspace(0, 60, 600_001)
    density = (1 + grid**2 / degrees) ** (-(degrees + 1) / 2)
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    below = 0.5 + np.cumsum(density) * scale * (grid[1] - grid[0])
    return float(grid[np.searchsorted(below, level)])


# --- single scores


SCORES: dict[str, tuple[Callable[[np.random.Generator, Shape], Array], float]] = {
    "0/1, half right": (lambda g, shape: (g.random(shape) < 0.5).astype(float), 0.5),
    "0/1, 0.9 right": (lambda g, shape: (g.random(shape) < 0.9).astype(float), 0.9),
    "0/1, 0.02 right": (lambda g, shape: (g.random(shape) < 0.02).astype(float), 0.02),
    "0 to 1, uniform": (lambda g, shape: g.random(shape), 0.5),
    "0 to 1, mostly 0.9, else 0": (lambda g, shape: np.where(g.random(shape) < 0.1, 0.0, 0.9), 0.81),
    "any, normal": (lambda g, shape: 5 + g.standard_normal(shape), 5.0),
    "any, long tail": (lambda g, shape: 3 + g.lognormal(size=shape), 3 + math.exp(0.5)),
    "any, mostly 1.1, else -3": (lambda g, shape: np.where(g.random(shape) < 0.05, -3.0, 1.1), 0.895),
}


def scores(generator: np.random.Generator, trials: int) -> Iterator[dict[str, Any]]:
    for name, (draw, mean) in SCORES.items():
        for tasks in SIZES:
            values = draw(generator, (trials, tasks))
            found = [reward_range(each) for each in values.tolist()]
            known = np.array(
                [each is not None and (each.source != RangeSource.GUESSED or tasks >= FEWEST) for each in found]
            )
            if not known.any():
                continue
            low = np.array([each.low if each else 0.0 for each in found])[:, None]
            high = np.array([each.high if each else 0.0 for each in found])[:, None]
            missed = _chances(np.concatenate([values, low], axis=1) - mean) < ERROR
            missed |= _chances(mean - np.concatenate([values, high], axis=1)) < ERROR
            t_low, t_high = _by_t(values, ERROR)
            yield {
                "scores": name,
                "tasks": tasks,
                "given": _part(known),
                "covered": _part(~missed[known]),
                "t_covered": _part((t_low <= mean) & (mean <= t_high)),
            }


# --- looks


def _solve(generator: np.random.Generator, task: Array) -> Array:
    return (generator.random(task.shape) < task).astype(float)


#: What is drawn of tasks once, and what a run that learned nothing scores on them each time.
LOOKED: dict[str, tuple[Draw, Callable[[np.random.Generator, Array, Array], Array]]] = {
    "0/1, easy and hopeless tasks": (
        lambda g, shape: ((task := g.beta(0.3, 0.3, shape)), _solve(g, task)),
        lambda g, task, before: _solve(g, task),
    ),
    "0 to 1, graded": (
        lambda g, shape: ((task := g.random(shape)), np.clip(task + g.normal(0, 0.2, shape), 0, 1)),
        lambda g, task, before: np.clip(task + g.normal(0, 0.2, task.shape), 0, 1),
    ),
    "0 to 1, one task in 30 loses 0.9": (
        lambda g, shape: (np.zeros(shape), np.full(shape, 0.95)),
        lambda g, task, before: before + _rare(1 / 30, -0.9)(g, before.shape),
    ),
}


def looks(generator: np.random.Generator, trials: int) -> Iterator[dict[str, Any]]:
    """Runs that are evaluated on the way and at the end, and runs that are resumed until they are better."""
    for name, (draw, again) in LOOKED.items():
        for tasks in (20, 60, 200):
            task, before = draw(generator, (trials, tasks))
            changes = [again(generator, task, before) - before for _ in range(max(LOOKS))]
            plain = [_verdicts(each, np.ones(trials), ERROR)[0] for each in changes]
            by_t = [_told_by_t(each, ERROR)[0] for each in changes]
            for count in LOOKS:
                shares = {way: _shares(way == "resumed", count) for way in ("evaluated", "resumed")}
                found = {
                    way: _ever(
                        _verdicts(changes[at], np.ones(trials), ERROR * share)[0] for at, share in enumerate(of_way)
                    )
                    for way, of_way in shares.items()
                }
                chance = {"uncorrected": _ever(plain[:count]), "t": _ever(by_t[:count])}
                yield {"scores": name, "tasks": tasks, "looks": count, **found, **chance}


def _shares(resumed: bool, count: int) -> list[float]:
    """Part of the error that each look has: of a run that is evaluated on the way, or that is resumed each time."""
    lines: list[dict[str, Any]] = [{"name": "before", "planned_step": 1 if resumed else count}]
    for step in range(1, count + 1):
        name = "after" if resumed or step == count else f"step-{step}"
        lines.append({"name": name, "look": {"share": next_look(name, step, lines).share}})
    return [line["look"]["share"] for line in lines[1:]]


def _ever(found: Iterable[NDArray[np.bool_]]) -> float:
    return _part(np.any(list(found), axis=0))


# --- gains


def gains(trials: int) -> Iterator[dict[str, Any]]:
    """The smallest gain that is found four times of five, with tasks of very different difficulty."""
    for tasks in (25, 50, 100, 200, 400):
        for seeds in (1, 4, 16):
            yield {"scores": "0/1", "tasks": tasks, "seeds": seeds, **_smallest(tasks, seeds, False, trials)}
    for tasks in (25, 50, 100, 200, 400):
        yield {"scores": "graded", "tasks": tasks, "seeds": 1, **_smallest(tasks, 1, True, trials)}


def _smallest(tasks: int, seeds: int, graded: bool, trials: int) -> dict[str, float]:
    def rates(gain: float) -> tuple[float, float]:
        generator = np.random.default_rng(5)
        changes = _apply_gain(generator, (trials, tasks), seeds, graded, gain)
        return float(_verdicts(changes, np.ones(trials), ERROR * PLANNED)[0].mean()), float(
            _told_by_t(changes, ERROR)[0].mean()
        )

    return {name: round(_bisect(lambda gain, at=at: rates(gain)[at]), 3) for at, name in enumerate(("gain", "t_gain"))}


def _apply_gain(generator: np.random.Generator, shape: Shape, seeds: int, graded: bool, gain: float) -> Array:
    """Each task loses the same part of what it lacks; the mean lacks a half."""
    task = generator.random(shape) if graded else generator.beta(0.3, 0.3, shape)
    better = task + 2 * gain * (1 - task)
    if graded:
        first, second = (np.clip(each + generator.normal(0, 0.2, shape), 0, 1) for each in (task, better))
    else:
        first, second = (generator.binomial(seeds, each) / seeds for each in (task, better))
    return second - first


def _bisect(power: Callable[[float], float]) -> float:
    low, high = 0.0, 0.5
    while high - low > 0.002:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= 0.8 else (middle, high)
    return round(high, 3)


# --- the worst case, and the formula


def worst(generator: np.random.Generator, seconds: float) -> dict[str, Any]:
    """Distributions of two or three values, 2 to 8 draws: how often the lower bound is above the mean, computed
    exactly, as a part of what is allowed."""
    found, count, began = {"part": 0.0}, 0, time.monotonic()
    while time.monotonic() - began < seconds:
        draws, kinds = int(generator.integers(2, 9)), int(generator.integers(2, 4))
        values = np.sort(generator.random(kinds)) * (generator.random() < 0.5 or np.arange(kinds) > 0)
        weights = generator.dirichlet(np.full(kinds, generator.choice([0.3, 1.0])))
        mean = float(values @ weights)
        missed = sum(
            chance
            for times, chance in _outcomes(draws, weights)
            if chance_of(np.repeat(values, times).tolist(), 0.0, mean) < ERROR * PLANNED
        )
        count += 1
        if missed / (ERROR * PLANNED) > found["part"]:
            found = {"part": round(missed / (ERROR * PLANNED), 4)}
    return {"distributions": count, **found}


def _outcomes(draws: int, weights: Array) -> Iterator[tuple[list[int], float]]:
    """How often each value is drawn, and how likely that is."""
    for times in np.ndindex(*[draws + 1] * (len(weights) - 1)):
        rest = draws - sum(times)
        if rest >= 0:
            each = [*times, rest]
            logarithm = math.lgamma(draws + 1) - sum(math.lgamma(count + 1) for count in each)
            yield each, math.exp(logarithm) * float(np.prod(weights ** np.array(each)))


def agreement(generator: np.random.Generator) -> float:
    """Largest deviation of `_chances` from the exact chance, as a part of it, where it matters."""
    found = 0.0
    for draw in NOTHING_LEARNED.values():
        for tasks in (6, 20, 60, 200):
            before, after = draw(generator, (60, tasks))
            width = float(np.ptp(np.concatenate([before, after]))) or 1.0
            changes = after - before + 0.3 * width / math.sqrt(tasks)
            near = _chances(np.concatenate([changes, np.full((60, 1), -width)], axis=1))
            exact = [chance_of(each.tolist(), -width, 0.0) for each in changes]
            found = max([found, *(abs(x / y - 1) for x, y in zip(near, exact, strict=True) if 0.001 < y < 0.1)])
    return round(found, 4)


def _chances(data: Array) -> Array:
    """[trials] `lightning_hub.statistics.mean_bounds._saddlepoint` for many samples, [trials, values], at once."""
    found = np.where(data.max(axis=1) <= 0, 1.0, 0.0)
    open_ = (data.max(axis=1) > 0) & (data.min(axis=1) < 0)
    data = data[open_]
    under, over, at = 1 / data.min(axis=1), 1 / data.max(axis=1), np.zeros(len(data))
    for _ in range(60):
        scaled = data / (1 - data * at[:, None])
        slope = scaled.sum(axis=1)
        under, over = np.where(slope > 0, under, at), np.where(slope > 0, at, over)
        nearer = at - slope / (scaled**2).sum(axis=1)
        at = np.where((under < nearer) & (nearer < over), nearer, (under + over) / 2)
    scaled = data / (1 - data * at[:, None])
    curvature = (scaled**2).sum(axis=1)
    root = np.sign(at) * np.sqrt(np.maximum(0, 2 * np.log1p(-data * at[:, None]).sum(axis=1)))
    flat = np.abs(root) < 1e-3
    root, scale = np.where(flat, 1.0, root), np.where(flat, 1.0, at * np.sqrt(curvature))
    tail = 0.5 * _ERFC(-root / math.sqrt(2)) + np.exp(-(root**2) / 2) / math.sqrt(2 * math.pi) * (1 / root - 1 / scale)
    skew = 2 * (scaled**3).sum(axis=1) / curvature**1.5
    found[open_] = np.where(flat, 0.5 + skew / (6 * math.sqrt(2 * math.pi)), tail)
    return found


_ERFC = np.frompyfunc(math.erfc, 1, 1)


def _part(found: NDArray[np.bool_]) -> float:
    return round(float(found.mean()), 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    parser.add_argument("--trials", type=int, default=4000)
    chosen = parser.parse_args()
    generator = np.random.default_rng(20_240_514)
    result: dict[str, Any] = {
        "machine": platform.machine(),
        "trials": chosen.trials,
        "allowed": ERROR,
        "agreement": agreement(generator),
        "worst": worst(generator, 30.0),
        "nothing_learned": list(nothing_learned(generator, chosen.trials)),
        "scores": list(scores(generator, chosen.trials)),
        "looks": list(looks(generator, chosen.trials)),
        "gains": list(gains(chosen.trials)),
    }
    if chosen.json:
        print(json.dumps(result))
        return 0
    for name, rows in result.items():
        print(f"\n{name}" if isinstance(rows, list) else f"{name}: {rows}")
        for row in rows if isinstance(rows, list) else ():
            print("  " + "  ".join(f"{key} {value}" for key, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
