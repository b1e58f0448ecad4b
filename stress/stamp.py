"""Readings that carry the identity of their controller and the time of measurement."""

from __future__ import annotations

from typing import NamedTuple

from tracer_async import RealtimeData

__all__ = ["STEP", "Stamp", "stamp_of", "stamp_of_words", "stamped"]

STEP = 0.0001
"""Seconds of the fast clock: the resolution of a stamp."""


class Stamp(NamedTuple):
    """Which controller made a reading, and when, in seconds of the fast clock."""

    controller: int
    made: float


def stamped(reading: RealtimeData, stamp: Stamp) -> RealtimeData:
    """Return *reading* with a stamp, and a sum over it, in place of what was measured."""
    ticks = int(stamp.made / STEP)
    words = [ticks >> 32 & 0xFFFF, ticks >> 16 & 0xFFFF, ticks & 0xFFFF, stamp.controller]
    return reading._replace(
        pv_voltage=words[0] / 100,
        load_current=words[1] / 100,
        charge_current=words[2] / 100,
        over_discharge_voltage=words[3] / 100,
        battery_full_voltage=_sum(words) / 100,
    )


def stamp_of(reading: RealtimeData) -> Stamp | None:
    """Return the stamp of a reading, None if no controller ever made it."""
    fields = (reading.pv_voltage, reading.load_current, reading.charge_current, reading.over_discharge_voltage)
    return stamp_of_words([round(value * 100) for value in fields], round(reading.battery_full_voltage * 100))


def stamp_of_words(words: list[int], check: int) -> Stamp | None:
    """Return the stamp in PV voltage, load current, charge current and over-discharge voltage, all in hundredths.

    *check* is the voltage of the full battery, in hundredths. Returns None if no controller ever made such a reading.
    """
    if _sum(words) != check:
        return None
    return Stamp(words[3], (words[0] << 32 | words[1] << 16 | words[2]) * STEP)


def _sum(words: list[int]) -> int:
    return sum(word * factor for word, factor in zip(words, (1, 3, 5, 7), strict=True)) & 0xFFFF
