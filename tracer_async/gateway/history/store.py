"""The output that writes the history, and answers questions about it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import date, tzinfo
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from tracer_async.backoff import backoff
from tracer_async.gateway.config import HistoryConfig
from tracer_async.gateway.events import ControllerEvent
from tracer_async.gateway.history.batch import write
from tracer_async.gateway.history.database import DamageError, Database, is_damage, reason
from tracer_async.gateway.history.query import DayEnergy, Series
from tracer_async.gateway.history.reader import DatabaseReader
from tracer_async.gateway.history.rollup import ClockWatch, delete_old, reclaim, roll_up
from tracer_async.gateway.history.schema import five_minutes, hours, readings
from tracer_async.gateway.output import EventQueue, Output

__all__ = ["HistoryOutput"]

_log = logging.getLogger(__name__)

_HOUR = 3600.0
_DAY = 86_400.0

# Initial and maximum delay before a batch that could not be written is tried again, in seconds.
_RETRY = (0.5, 30.0)

# Seconds for the transaction that is going on at the end.
_END = 1.5


class HistoryOutput(Output):
    """Writes events to a database in batches. Also implements `HistoryReader`.

    Events wait in a bounded queue. A batch that could not be written goes back to its front, and is tried again with
    growing delays.
    """

    def __init__(
        self,
        config: HistoryConfig,
        *,
        directory: Path,
        zone: tzinfo | None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("history")
        self._config = config
        self._queue = EventQueue(self.state, config.buffer)
        self._is_filling = asyncio.Event()
        self._is_ending = asyncio.Event()
        self._database = Database(config, directory)
        self._reader = DatabaseReader(self._database, zone, self._suspect_damage)
        self._is_suspect = False
        self._clock = ClockWatch(wall, monotonic)
        self._monotonic = monotonic
        self._maintain_at = monotonic()

    def publish(self, event: ControllerEvent) -> None:
        """Take an event. Returns at once and never raises."""
        self._queue.put(event)
        if self._is_half_full():
            self._is_filling.set()  # write early rather than drop

    async def series(self, controller_id: str, start: float, end: float, step: float | None = None) -> Series:
        """See `DatabaseReader.series`."""
        return await self._reader.series(controller_id, start, end, step)

    async def days(self, controller_id: str, first: date, last: date) -> list[DayEnergy]:
        """See `DatabaseReader.days`."""
        return await self._reader.days(controller_id, first, last)

    async def run(self) -> None:
        """Write a batch from time to time until cancelled. Failures are shown in `state`, and retried.

        A transaction is not cancelled, but given some time to end: a SQLite connection that is abandoned in one may
        keep its lock for an unknown time.
        """
        self._is_ending.clear()
        work = asyncio.create_task(self._work(), name="history writer")
        try:
            await asyncio.shield(work)
        finally:
            self._is_ending.set()
            self._is_filling.set()
            await asyncio.wait([work], timeout=_END)
            work.cancel()
            await asyncio.wait([work])
            await self._database.close()

    async def _work(self) -> None:
        delays = backoff(*_RETRY)
        while not self._is_ending.is_set():
            try:
                await self._write_and_maintain()
            except Exception as error:  # noqa: BLE001  # whatever fails here must not stop the service
                await self._report(error)
                await _wait_for(self._is_ending, next(delays))
            else:
                delays = backoff(*_RETRY)
                # Until the time of the next batch, or until the queue is half full.
                await _wait_for(self._is_filling, self._config.flush_seconds)
                if not self._is_half_full():
                    self._is_filling.clear()

    async def drain(self) -> None:
        """Write what is left, and close the database. Raises OSError with a reason for people."""
        try:
            await self._flush()
        except Exception as error:
            raise OSError(reason(error)) from error
        finally:
            await self._database.close()

    def take_left(self) -> list[ControllerEvent]:
        """Remove and return what could not be written."""
        return self._queue.take(len(self._queue))

    def _is_half_full(self) -> bool:
        return 2 * len(self._queue) >= self._config.buffer

    async def _write_and_maintain(self) -> None:
        if self._is_suspect and not await self._database.is_sound():
            raise DamageError("database disk image is malformed")
        self._is_suspect = False
        self._clock.observe()
        await self._flush()
        if self._monotonic() < self._maintain_at:
            return
        next_flush = self._monotonic() + self._config.flush_seconds
        async with aclosing(self._maintenance(await self._database.writer())) as steps:
            async for _ in steps:
                if self._is_ending.is_set():
                    return
                if self._is_half_full() or self._monotonic() >= next_flush:
                    next_flush = self._monotonic() + self._config.flush_seconds
                    await self._flush()
        self._maintain_at = self._monotonic() + _HOUR

    async def _maintenance(self, connection: AsyncConnection) -> AsyncGenerator[None]:
        """Roll up and delete. Yields after each short transaction, so that batches can be written between them."""
        async for _ in roll_up(connection):
            yield
        if self._clock.steady_seconds() < _HOUR:
            return
        now = self._clock.now()
        async for _ in delete_old(connection, readings, now - self._config.raw_days * _DAY):
            yield
        for table in (five_minutes, hours):
            async for _ in delete_old(connection, table, now - self._config.five_minute_days * _DAY):
                yield
        async for _ in reclaim(connection):
            yield

    async def _flush(self) -> None:
        """Write all events of the queue in one transaction. They go back to the queue if that fails."""
        events = self._queue.take(len(self._queue))
        try:
            connection = await self._database.writer()
            await self._database.forget_pages()
            if events:
                async with connection.begin():
                    await write(connection, events)
        except BaseException:
            self._queue.put_back(events)
            await self._database.close()
            raise
        self.state.delivered += len(events)
        if self.state.error is not None:
            _log.info("history: writing again")
        self.state.works()

    async def _report(self, error: Exception) -> None:
        """Show and log why it does not work. A damaged file is renamed, so that a new one is started."""
        file = self._database.file
        text = reason(error) if file is None else f"{file.name}: {reason(error)}"
        if self.state.fails(text):
            _log.warning("history: %s. Readings are kept in memory, and writing is tried again", text)
            _log.debug("history", exc_info=error)
        await self._database.close()
        if not is_damage(error):
            return
        self._is_suspect = False
        try:
            path = await self._database.set_aside()
        except OSError as failure:
            self.state.fails(f"{text}. The damaged file cannot be renamed: {failure.strerror or failure}")
            return
        self.state.notice = f"the database was damaged. It is now {path.name}, and a new one was started"
        _log.warning("history: %s", self.state.notice)

    def _suspect_damage(self) -> None:
        """Let the next batch wait for a check of the whole file: a reader has seen damage."""
        self._is_suspect = True
        self._is_filling.set()


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
