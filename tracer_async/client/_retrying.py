"""When to connect again, from which local port, and what to log. Both drivers of a session use it. It does no I/O.

Delays grow exponentially with jitter, and only a good frame resets them: many bridges accept a connection and close it
at once, so a successful connect proves nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

from tracer_async.backoff import backoff
from tracer_async.errors import LinkError, LinkFloodedError, TracerError

__all__ = ["Retrying"]

_log = logging.getLogger("tracer_async")

# Seconds after a reset during which all attempts use the same local port.
_SAME_PORT = 60.0

# Initial and maximum seconds between two summaries in the log, for a connection that is lost again and again.
_FIRST_SUMMARY, _LAST_SUMMARY = 60.0, 3600.0


class Retrying:
    """The attempts to connect to one controller. Times are in seconds, on the clock of the driver."""

    __slots__ = ("_backoff", "_delays", "_losses", "_other_port", "_same_port_since")

    def __init__(self, name: str, delays: tuple[float, float], log_failed: Callable[[Exception], None]) -> None:
        self._backoff = delays
        self._losses = _LossLog(name, log_failed)
        # None: the next delay is the initial one.
        self._delays: Iterator[float] | None = None
        self._same_port_since: float | None = None
        self._other_port = False

    def opened(self) -> None:
        """Record that the link was opened."""
        self._losses.opened()

    def not_opened(self, error: TracerError, now: float) -> float:
        """Record a failed attempt. Return the seconds until the next one."""
        delay = self._next_delay()
        self._losses.not_opened(error, delay, now)
        return delay

    def lost(self, cause: Exception | None, now: float, *, good_frames: bool) -> float:
        """Record that the link was lost. Return the seconds until the next attempt.

        *good_frames* is whether good frames were received on that link.
        """
        if good_frames and not isinstance(cause, LinkFloodedError):
            # A good frame proves that the controller is back, except in a flood, which may contain frames too.
            self._delays = None
        delay = self._next_delay()
        self._losses.lost(cause, delay, now)
        return delay

    def _next_delay(self) -> float:
        if self._delays is None:
            self._delays = backoff(*self._backoff)
        return next(self._delays)

    def local_address(self, address: tuple[Any, ...] | None, now: float) -> tuple[Any, ...] | None:
        """Return the local address of the next connection, or None for any.

        *address* is that of a connection that was reset: the reset may not have arrived, and a bridge for one client
        would then keep the old session until it sees the same port again. But a firewall may drop everything from this
        port, so after a minute every second attempt uses another one.
        """
        if address is None or self._same_port_since is None:
            self._same_port_since = None if address is None else now
            return address
        self._other_port = now >= self._same_port_since + _SAME_PORT and not self._other_port
        return None if self._other_port else address


class _LossLog:
    """Logs the first loss of a connection. While it is lost again and again, logs summaries at growing intervals."""

    __slots__ = ("_failed", "_interval", "_last_line", "_logged", "_losses", "_name", "_up")

    def __init__(self, name: str, failed: Callable[[Exception], None]) -> None:
        self._name = name
        # Called with what a log filter or handler of the application raised: the link must still be kept.
        self._failed = failed
        self._up = True  # so that a failed first attempt is logged too
        # Whether the last loss was logged.
        self._logged = True
        # When the last line was logged, the minimum seconds until the next one, and the losses since the last one.
        self._last_line = -math.inf
        self._interval = _FIRST_SUMMARY
        self._losses = 0

    def opened(self) -> None:
        """Log that the link was opened."""
        # At the level of the loss: otherwise a log that has the loss would lack its end. The text is about the
        # connection only, because the controller may not answer yet.
        if self._up or self._logged:
            self._write(logging.DEBUG if self._up else logging.WARNING, f"{self._name}: connection established")
        self._up = True

    def not_opened(self, error: TracerError, delay: float, now: float) -> None:
        """Log a failed attempt, unless a line in the log already says that the connection is down."""
        if self._up:
            self._losses += 1
        if self._up or not self._logged:
            self._warn(f"{error}; retrying in {delay:.1f} s", now)
        self._up = False

    def lost(self, cause: Exception | None, delay: float, now: float) -> None:
        """Log that the link was lost."""
        self._losses += 1
        reason = cause.reason if isinstance(cause, LinkError) else str(cause or "closed by the other side")
        self._warn(f"{self._name}: connection lost ({reason}), reconnecting in {delay:.1f} s", now)
        self._up = False

    def _warn(self, text: str, now: float) -> None:
        quiet = now - self._last_line
        self._logged = quiet >= self._interval
        if not self._logged:
            return
        if self._losses > 1:
            text += f"; lost {self._losses} times in {quiet:.0f} s"
            self._interval = min(self._interval * 2, _LAST_SUMMARY)
        else:
            self._interval = _FIRST_SUMMARY
        self._last_line = now
        self._losses = 0
        self._write(logging.WARNING, text)

    def _write(self, level: int, text: str) -> None:
        try:
            _log.log(level, "%s", text)
        except Exception as error:  # noqa: BLE001  # anything that the application's filter or handler may raise
            self._failed(error)
