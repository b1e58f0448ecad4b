"""When a link is opened, and opened again."""

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
from tracer_async.transport.link import Link
from tracer_async.transport.opening import open_link

__all__ = ["LinkKeeper", "backoff"]

_log = logging.getLogger("tracer_async")

# Seconds after which an attempt that has not connected makes room for others.
_PLACE_HELD = 0.25

# Seconds for which a link that was reset is opened again only from the same local port.
_SAME_PORT = 60.0

# Seconds between summaries of a link that is lost again and again: at first, and at most.
_FIRST_SUMMARY, _LAST_SUMMARY = 60.0, 3600.0


def backoff(initial: float, maximum: float) -> Iterator[float]:
    """Yield the delays between attempts: doubling from *initial* to *maximum*, each shortened at random by up to half.

    The jitter keeps clients that lost their links at the same moment from coming back at the same moment.
    """
    delay = initial
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, no secret
        delay = min(delay * 2, maximum)


class LinkKeeper:
    """Keeps the link of one connection open, for as long as `run` runs."""

    __slots__ = ("_connection", "_delays", "_losses", "_other_port", "_places", "_same_port_since", "_target")

    def __init__(
        self, target: Target, connection: Connection, places: AbstractAsyncContextManager[object] | None = None
    ) -> None:
        self._target = target
        self._connection = connection
        self._places = places
        """Limits how many links are opened at the same time, where many clients share it."""
        self._losses = _LossLog(target.session.name)
        # None from the beginning, and again after a reset, until a link could not be opened or was lost.
        self._delays: Iterator[float] | None = None
        self._same_port_since: float | None = None
        self._other_port = False

    async def run(self, opened: asyncio.Future[None] | None) -> None:
        """Open the link, and open it again whenever it is lost.

        The outcome of the first attempt goes to *opened*, and ends it where it is an error; without *opened*, a first
        error is one like any other.
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
                await asyncio.shield(link.lost)
                if connection.stats.frames > frames and not isinstance(connection.down_cause, LinkFloodedError):
                    # Only a good frame proves that the controller is back; many a bridge accepts and hangs up. In a
                    # flood it proves nothing.
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
        """Return where the next connection must come from, if that matters.

        Something on the way may swallow all that comes from this port. So after a minute every second attempt uses
        another one.
        """
        address = self._connection.reset_address
        now = asyncio.get_running_loop().time()
        if address is None or self._same_port_since is None:
            self._same_port_since = None if address is None else now
            return address
        self._other_port = now >= self._same_port_since + _SAME_PORT and not self._other_port
        return None if self._other_port else address


async def _cancel(attempt: asyncio.Future[Link]) -> None:
    """End an attempt with the task that waited for it; a link that it opened at this moment is closed."""
    attempt.cancel()
    await asyncio.wait([attempt])
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


class _LossLog:
    """Logs the first loss of a link; while it is lost again and again, a summary at growing intervals."""

    __slots__ = ("_interval", "_last_line", "_logged", "_losses", "_name", "_up")

    def __init__(self, name: str) -> None:
        self._name = name
        self._up = True  # so that a first failure is logged too
        self._logged = True
        # Since the last line, until the next one may be written.
        self._last_line = -math.inf
        self._interval = _FIRST_SUMMARY
        self._losses = 0

    def opened(self) -> None:
        """Note that the link was opened."""
        if self._up:
            _write(logging.DEBUG, f"{self._name}: connected")
        elif self._logged:
            # As loud as the loss was: else a log would show only half of what happened.
            _write(logging.WARNING, f"{self._name}: reconnected")
        self._up = True

    def not_opened(self, error: TracerError, delay: float) -> None:
        """Note that an attempt failed: worth a line if none has said yet that the link is down."""
        if self._up:
            self._losses += 1
        if self._up or not self._logged:
            self._warn(f"{error}; trying again in {delay:.1f} s")
        self._up = False

    def lost(self, cause: Exception | None, delay: float) -> None:
        """Note that the link was lost."""
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
    except Exception as error:  # noqa: BLE001  # a filter of the application; the link has to be kept all the same
        asyncio.get_running_loop().call_exception_handler({"message": "logging failed", "exception": error})
