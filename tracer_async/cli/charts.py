"""Charts of block characters. Columns begin at fixed times, so that they do not flicker between two drawings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

__all__ = ["bars", "columns", "scale", "step_of"]

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


def scale(values: Sequence[float], least: float) -> tuple[float, float]:
    """Return the ends of the scale: the lowest and the highest value, but at least *least* apart, and not below 0.

    Every chart has its scale by this one rule. *least* keeps the jitter of the last digit from filling a chart.
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    missing = max(0.0, least - (high - low))
    low = max(0.0, low - missing / 2)
    return low, max(high, low + least)


def bars(values: Sequence[float | None], low: float, high: float, height: int, *, plain: bool = False) -> list[str]:
    """Draw *values* between *low* and *high* as *height* lines, the top one first; None stays blank.

    With *plain*, only ASCII characters are used.
    """
    glyphs = _ASCII if plain else _BLOCKS
    most = len(glyphs) - 1
    # The lowest value has a bar, too: a blank means that nothing was measured.
    span = high - low
    levels = [
        None if value is None else 1 + round((value - low) / span * (height * most - 1)) if span else height * most // 2
        for value in values
    ]
    return [
        "".join(
            " " if level is None else glyphs[max(0, min(most, level - row * most))]  # the part in this row
            for level in levels
        )
        for row in reversed(range(height))
    ]
