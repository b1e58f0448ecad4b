"""``--trace`` and ``-vv``: every byte in both directions, with its time, in hexadecimal and decoded."""

from __future__ import annotations

import logging
import time

from tracer_async.capture import CapturedEvent
from tracer_async.cli.capture_counts import counted
from tracer_async.cli.meanings import meaning_of
from tracer_async.protocol import Event, FrameDecoder

__all__ = ["WIRE", "LogFormatter"]

WIRE = "tracer_async.wire"
"""The name of the library's logger for the bytes that it sends and receives."""

# So a line has 77 columns.
_BYTES_PER_LINE = 20
_INDENT = " " * 18

# Seconds of quiet after which a frame that is not complete never will be.
_PAUSE = 1.0


class LogFormatter(logging.Formatter):
    """Formats the bytes of the wire log as a trace, and other records on one line each."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._directions: dict[tuple[str, str], _Direction] = {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        if record.name != WIRE or not isinstance(record.args, tuple):
            return super().format(record)
        name, what, text = (str(argument) for argument in record.args)
        sender = "client" if what == "sent" else "controller"
        direction = self._directions.setdefault((name, what), _Direction(sender))
        data = bytes.fromhex(text)
        first = f"{_clock(record.created)} {'>' if what == 'sent' else '<'} "
        rows = [data[at : at + _BYTES_PER_LINE].hex(" ").upper() for at in range(0, len(data), _BYTES_PER_LINE)]
        return "\n".join(
            [
                f"{first}{counted(len(data), 'byte')} {what}, {name}",
                *(_INDENT + row for row in rows),
                *(f"{_INDENT}= {meaning}" for meaning in direction.meanings(data, record.created)),
            ]
        )


class _Direction:
    """What passes in one direction between the client and one controller."""

    def __init__(self, sender: str) -> None:
        self._sender = sender
        self._decoder = FrameDecoder()
        self._last = 0.0

    def meanings(self, data: bytes, now: float) -> list[str]:
        """Return what the bytes mean, a line for each event. A frame is reported with the bytes that complete it."""
        events: list[Event] = []
        if now - self._last > _PAUSE:
            events = self._decoder.flush()
        self._last = now
        events += self._decoder.feed(data)
        lines = [_words(event, self._sender) for event in events]
        if self._decoder.pending:
            lines.append(f"no complete frame yet, {counted(self._decoder.pending, 'byte')} of one or of noise")
        return lines


def _words(event: Event, sender: str) -> str:
    meaning = meaning_of(CapturedEvent(0, sender, event))
    return f"{meaning.kind}: {meaning.words}" if meaning.words else meaning.kind


def _clock(created: float) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(created))}.{created % 1 * 1e6:06.0f}"
