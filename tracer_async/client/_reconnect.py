"""Opens the connection, and opens it again after each loss.

Delays grow exponentially with jitter, and only a good frame resets them: many bridges accept a connection and close it
at once, so a successful connect proves nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from tracer_async.client._connection import Connection, ConnectionState
from tracer_async.client._options import Target
from tracer_async.errors import LinkError, LinkFloodedError, TracerError
from tracer_async.transport._link import Link
from tracer_async.transport._opening import open_link

__all__ = ["LinkKeeper", "backoff"]

_log = logging.getLogger("tracer_async")

# Seconds after which an attempt no longer counts for the limit of simultaneous attempts. A healthy device connects
# faster, so thousands of dead ones do not delay it.
_PLACE_HELD = 0.25

# Seconds after a reset during which all attempts use the same local port.
_SAME_PORT = 60.0

# Initial and maximum seconds between two summaries in the log, for a connection that is lost again and again.
_FIRST_SUMMARY, _LAST_SUMMARY = 60.0, 3600.0


def backoff(initial: float, maximum: float) -> Iterator[float]:
    """Yield the delays between attempts: doubling from *initial* to *maximum*, each shortened at random by up to half.

    Without the jitter, clients that lost their connections at the same time would all reconnect at the same time.
    """
    delay = initial
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, no secret
        delay = min(delay * 2, maximum)


class LinkKeeper:
    """Keeps the link of one connection open while `run` runs."""

    __slots__ = ("_connection", "_delays", "_losses", "_other_port", "_places", "_same_port_since", "_target")

    def __init__(
        self, target: Target, connection: Connection, places: AbstractAsyncContextManager[object] | None = None
    ) -> None:
        self._target = target
        self._connection = connection
        self._places = places
        """Limits the number of simultaneous attempts. Many clients can share it."""
        self._losses = _LossLog(target.session.name)
        # None: the next delay is the initial one.
        self._delays: Iterator[float] | None = None
        self._same_port_since: float | None = None
        self._other_port = False

    async def run(self, opened: asyncio.Future[None] | None) -> None:
        """Open the link, and open it again whenever it is lost.

        *opened* gets the outcome of the first attempt. If that is an error, `run` returns. Without *opened* it retries.
        """
        connection = self._connection
        while True:
            frames = connection.stats.frames
            try:
                link = await self._open()
            except TracerError as error:
                if opened is not None and not opened.done():
                    opened.set_exception(error)
                    return
                connection.note_down(error)
                delay = self._next_delay()
                self._losses.not_opened(error, delay)
            else:
                if opened is not None and not opened.done():
                    opened.set_result(None)
                self._losses.opened()
                connection.set_state(ConnectionState.UP)
                # Shielded: a cancellation of this task must not cancel the future of the link.
                await asyncio.shield(link.lost)
                if connection.stats.frames > frames and not isinstance(connection.down_cause, LinkFloodedError):
                    # A good frame proves that the controller is back, except in a flood, which may contain frames too.
                    self._delays = None
                delay = self._next_delay()
                self._losses.lost(connection.down_cause, delay)
            connection.set_state(ConnectionState.DOWN)
            await asyncio.sleep(delay)

    def _next_delay(self) -> float:
        if self._delays is None:
            self._delays = backoff(*self._target.backoff)
        return next(self._delays)

    async def _open(self) -> Link:
        if self._places is None:
            return await self._attempt()
        async with self._places:
            attempt = asyncio.ensure_future(self._attempt())
            try:
                await asyncio.wait([attempt], timeout=_PLACE_HELD)
            except asyncio.CancelledError:
                await _cancel(attempt)
                raise
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            await _cancel(attempt)
            raise

    async def _attempt(self) -> Link:
        connection, target = self._connection, self._target
        return await open_link(
            target.session.name,
            target.factory,
            lambda: Link(connection),
            target.session.link_timeout,
            local_address=self._local_address(),
        )

    def _local_address(self) -> tuple[Any, ...] | None:
        """Return the local address of the next connection, or None for any.

        After a reset it is that of the connection that was reset: the reset may not have arrived, and a bridge for one
        client would then keep the old session until it sees the same port again. But a firewall may drop everything
        from this port, so after a minute every second attempt uses another one.
        """
        address = self._connection.reset_address
        now = asyncio.get_running_loop().time()
        if address is None or self._same_port_since is None:
            self._same_port_since = None if address is None else now
            return address
        self._other_port = now >= self._same_port_since + _SAME_PORT and not self._other_port
        return None if self._other_port else address


async def _cancel(attempt: asyncio.Future[Link]) -> None:
    """Cancel an attempt, and close its link if it was opened at the same moment."""
    attempt.cancel()
    await asyncio.wait([attempt])
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


class _LossLog:
    """Logs the first loss of a connection. While it is lost again and again, logs summaries at growing intervals."""

    __slots__ = ("_interval", "_last_line", "_logged", "_losses", "_name", "_up")

    def __init__(self, name: str) -> None:
        self._name = name
        self._up = True  # so that a failed first attempt is logged too
        # Whether the last loss was logged.
        self._logged = True
        # When the last line was logged, the minimum seconds until the next one, and the losses since the last one.
        self._last_line = -math.inf
        self._interval = _FIRST_SUMMARY
        self._losses = 0

    def opened(self) -> None:
        """Log that the link was opened."""
        if self._up:
            _write(logging.DEBUG, f"{self._name}: connected")
        elif self._logged:
            # At the level of the loss: otherwise a log that has the loss would lack its end.
            _write(logging.WARNING, f"{self._name}: reconnected")
        self._up = True

    def not_opened(self, error: TracerError, delay: float) -> None:
        """Log a failed attempt, unless a line in the log already says that the connection is down."""
        if self._up:
            self._losses += 1
        if self._up or not self._logged:
            self._warn(f"{error}; retrying in {delay:.1f} s")
        self._up = False

    def lost(self, cause: Exception | None, delay: float) -> None:
        """Log that the link was lost."""
        self._losses += 1
        reason = cause.reason if isinstance(cause, LinkError) else str(cause or "closed by the other side")
        self._warn(f"{self._name}: connection lost ({reason}), reconnecting in {delay:.1f} s")
        self._up = False

    def _warn(self, text: str) -> None:
        now = asyncio.get_running_loop().time()
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
        _write(logging.WARNING, text)


def _write(level: int, text: str) -> None:
    try:
        _log.log(level, "%s", text)
    except Exception as error:  # noqa: BLE001  # a log filter of the application failed; the link must still be kept
        asyncio.get_running_loop().call_exception_handler({"message": "logging failed", "exception": error})
