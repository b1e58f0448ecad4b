"""Compare what the gateway's outputs hold with what the controllers said, and report what is wrong. Pure.

It shares no code with the gateway. Each reading carries the stamp of the controller that made it, and when. All times
are in seconds since 1970.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from stress.stamp import STEP, stamp_of_words

__all__ = ["Key", "Made", "Shown", "decreases", "energy_of", "is_within", "judge", "missing"]

# Seconds: outputs round times to milliseconds, and a stamp is rounded down.
_TOLERANCE = 0.002 + STEP

Key = tuple[int, int]
"""A controller, and the ticks of a stamp: one reading."""


class Made(NamedTuple):
    """What the stamp of a reading does not replace."""

    battery: int
    """Hundredths of a volt."""
    temperature: int
    load_on: int
    charging: int


class Shown(NamedTuple):
    """A reading in an output."""

    controller: int
    time: float
    age: float | None
    """None where the output does not tell it."""
    words: tuple[int, int, int, int]
    """PV voltage, load current, charge current and over-discharge voltage, in hundredths."""
    check: int
    """The voltage of the full battery, in hundredths."""
    made: Made


class Judgement(NamedTuple):
    """The readings that an output holds, and what is wrong with them."""

    readings: dict[Key, float]
    """Their times."""
    wrong: list[str]


def judge(output: str, shown: Iterable[Shown], made: Mapping[Key, Made], longest: float) -> Judgement:
    """Judge the readings of one output. *longest* is the largest age that an output may leave out, in seconds."""
    judgement = Judgement({}, [])
    for each in shown:
        stamp = stamp_of_words(list(each.words), each.check)
        if stamp is None:
            judgement.wrong.append(f"{output}: a reading that was never made: {each}")
            continue
        key = stamp.controller, round(stamp.made / STEP)
        age = longest if each.age is None else each.age
        if stamp.controller != each.controller:
            judgement.wrong.append(f"{output}: a reading of controller {stamp.controller}: {each}")
        elif made.get(key) != each.made:
            judgement.wrong.append(f"{output}: the controller has said {made.get(key)}: {each}")
        elif not each.time - age - _TOLERANCE <= stamp.made <= each.time + _TOLERANCE:
            judgement.wrong.append(f"{output}: made {each.time - stamp.made:.3f} s before its time: {each}")
        else:
            judgement.readings[key] = each.time
    return judgement


def missing(output: str, here: Judgement, there: Judgement, calm: Iterable[tuple[float, float]]) -> list[str]:
    """Return the readings in *there* that are not *here*, and whose times are within spans of *calm*."""
    spans = sorted(calm)
    return [
        f"{output}: no reading {key} of {time:.3f}"
        for key, time in there.readings.items()
        if key not in here.readings and is_within(time, spans)
    ]


def is_within(time: float, spans: list[tuple[float, float]]) -> bool:
    """Return whether *time* is within one of some sorted spans."""
    index = bisect_right(spans, (time, float("inf"))) - 1
    return index >= 0 and spans[index][0] <= time <= spans[index][1]


def decreases(what: str, values: Iterable[float | None]) -> list[str]:
    """Return where a total goes back."""
    known = [value for value in values if value is not None]
    return [f"{what} goes back from {before} to {after}" for before, after in pairwise(known) if after < before]


def energy_of(powers: Iterable[tuple[float, float]], longest_gap: float) -> float:
    """Return the watt-hours of readings, given as time and watts in the order of time.

    A gap that is longer than *longest_gap* has no energy.
    """
    return sum(
        (before + after) / 2 * (then - since) / 3600
        for (since, before), (then, after) in pairwise(powers)
        if then - since <= longest_gap
    )
