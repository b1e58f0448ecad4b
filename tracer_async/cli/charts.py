"""Charts of block characters, whose columns begin at fixed times, so that they do not flicker from one to the next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

__all__ = ["bars", "columns", "step_of"]

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*%#"


def step_of(interval: float, span: float, width: int) -> float:
    """Return the seconds of a column: *interval*, doubled until *width* columns hold *span* seconds."""
    step = interval
    while step * width < span:
        step *= 2
    return step


def columns(points: Iterable[tuple[float, float]], now: float, step: float, width: int) -> list[float | None]:
    """Return the mean of each column's points, the newest last, and None where there are none.

    *points* are (time, value). Columns begin at multiples of *step*, whatever *now* is.
    """
    last = math.floor(now / step)
    sums = [0.0] * width
    counts = [0] * width
    for time, value in points:
        column = width - 1 - (last - math.floor(time / step))
        if 0 <= column < width:
            sums[column] += value
            counts[column] += 1
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def bars(values: Sequence[float | None], low: float, high: float, height: int, *, plain: bool = False) -> list[str]:
    """Draw *values* between *low* and *high* as *height* lines, the top one first; None stays blank.

    With *plain*, of ASCII characters alone.
    """
    glyphs = _ASCII if plain else _BLOCKS
    most = len(glyphs) - 1
    # The lowest value still shows: a blank means that nothing was measured.
    span = high - low
    levels = [
        None if value is None else 1 + round((value - low) / span * (height * most - 1)) if span else height * most // 2
        for value in values
    ]
    return [
        "".join(
            " " if level is None else glyphs[max(0, min(most, level - row * most))]  # what of it is in this row
            for level in levels
        )
        for row in reversed(range(height))
    ]
