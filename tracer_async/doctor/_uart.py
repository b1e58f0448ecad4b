"""What a serial receiver makes of an inverted line, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator

from tracer_async.protocol import SYNC

__all__ = ["idles_low", "looks_inverted"]

_SIGNIFICANT = 4
"""Bytes in a row that noise does not contain by chance."""

_MAX_BREAKS = 3
"""More zeros are data, received at a much higher baud rate than they are sent."""


def looks_inverted(data: bytes) -> bool:
    """Return whether *data* is what a receiver makes of sync bytes on an inverted line, or of a line held low."""
    return idles_low(data) or any(pattern in data for pattern in _PATTERNS)


def idles_low(data: bytes) -> bool:
    """Return whether *data* is a few zeros only: a line that is held low is a break, which is received as one zero."""
    return 1 <= len(data) <= _MAX_BREAKS and not data.strip(b"\x00")


def _inverted_line(data: bytes) -> list[int]:
    """Return the levels of an inverted line: each byte has a start bit, 8 data bits, lowest first, and a stop bit."""
    line = [0]
    for byte in data:
        line += [1, *(~byte >> bit & 1 for bit in range(8)), 0]
    return [*line, 0]


def _received(line: list[int], *, restart_at_stop: bool) -> Iterator[int]:
    """Yield the bytes that a receiver finds. A start bit is a fall of the line.

    After a wrong stop bit some receivers (the 16550, for example) take that bit for the next start bit. Others wait
    for the next fall of the line.
    """
    at = 1
    while at + 9 < len(line):
        if not (line[at - 1] and not line[at]):
            at += 1
            continue
        while at + 9 < len(line):
            yield sum(line[at + 1 + bit] << bit for bit in range(8))
            at += 9
            if line[at] or not restart_at_stop:
                break
        at += 1


def _patterns() -> set[bytes]:
    line = _inverted_line(SYNC)
    found = {bytes(_received(line, restart_at_stop=restart)) for restart in (False, True)}
    return {seen[start : start + _SIGNIFICANT] for seen in found for start in range(len(seen) - _SIGNIFICANT + 1)}


_PATTERNS = _patterns()
