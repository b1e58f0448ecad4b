"""A controller that another master reads, such as the MT-5 meter: the gateway only listens, and never sends a byte.

Readings come when the other master asks for them. A line on which none is heard gives errors instead, so that the
controller is shown as offline, with the reason: that of a port that is lost, or else that the line is silent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from tracer_async import LoadError, Reading, SessionStats, TracerError
from tracer_async.backoff import backoff
from tracer_async.gateway._distinct_times import DistinctTimes
from tracer_async.sharing import Listener

__all__ = ["ListenedLine", "ListensOnlyError", "SilentLineError", "silence_limit"]

_log = logging.getLogger(__name__)

# Initial and maximum seconds until listening begins again after an error that the listener does not handle.
_BACKOFF = (0.5, 30.0)
# Seconds between two errors in a row, if the interval is not longer. Less than `silence_limit`.
_REPEAT = 4.0


class ListensOnlyError(LoadError):
    """The load was not switched, because the gateway only listens to the controller."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name}: the gateway only listens to this controller, so it cannot switch the load; "
            "connect it with url instead of listen"
        )


class SilentLineError(TracerError):
    """No reading was heard for some time. ``seconds`` is how long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no reading heard for {seconds:.0f} s")
        self.seconds = seconds


def silence_limit(interval: float) -> float:
    """Return the seconds without a reading after which a controller is offline. *interval* is the meter's.

    It is also the longest time between two of its events.
    """
    return max(3 * interval, 10.0)


class ListenedLine:
    """Hands the readings that are heard, and errors while there are none, to *publish*. Begins at once.

    :param urls: One URL, or one for each direction, as for a `Listener`.
    :param interval: Seconds between two readings of the other master.
    :raises TracerError: if a package is missing that a URL needs.
    """

    def __init__(self, name: str, urls: Sequence[str], interval: float, publish: Callable[[Reading], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = Listener(*urls, start_offline=True)
        self._urls = urls
        self._name = name
        self._limit = silence_limit(interval)
        self._repeat = max(interval, _REPEAT)
        self._publish = publish
        # Those of earlier listeners.
        self._links = 0
        self._times = DistinctTimes()
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_later(self._limit, self._tell_error)
        self._task = asyncio.create_task(self._keep_listening(), name=f"gateway listening to {name}")

    @property
    def stats(self) -> SessionStats:
        """The counters of what was received. Nothing is requested, so the counters of requests are 0."""
        received = self._listener.stats
        return SessionStats(
            requests=0,
            answers=0,
            timeouts=0,
            late=0,
            unsolicited=0,
            echoes=0,
            frames=sum(each.frames for each in received),
            corrupt_frames=sum(each.corrupt_frames for each in received),
            noise_bytes=sum(each.noise_bytes for each in received),
            links=self._links + sum(self._listener.links),
        )

    async def aclose(self) -> None:
        """Stop listening, and close the ports. Nothing is published after this was called."""
        self._timer.cancel()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _keep_listening(self) -> NoReturn:
        delays = backoff(*_BACKOFF)
        while True:
            try:
                await self._listen()
                error = TracerError("listening ended")
            except TracerError as reason:
                error = reason
            except Exception as reason:  # noqa: BLE001  # the other controllers go on; so does this one after the delay
                _log.exception("listening to %s: an internal error; please report it", self._name)
                error = TracerError(f"internal error: {reason!r}")
            self._tell(Reading(time.time(), None, error))
            await asyncio.sleep(next(delays))
            self._links += sum(self._listener.links)
            self._listener = Listener(*self._urls, start_offline=True)

    async def _listen(self) -> None:
        """Publish what is heard, until the listener ends. A port that is lost is opened again by the listener."""
        async with self._listener as listener:
            readings = listener.readings()
            if self._lost() is not None:
                self._tell_error()
            try:
                async for reading in readings:
                    self._heard_at = self._loop.time()
                    self._tell(self._times.distinct(reading))
            finally:
                await readings.aclose()

    def _tell(self, reading: Reading) -> None:
        """Publish a reading or an error. Without another one until then, an error follows."""
        self._timer.cancel()
        self._timer = self._loop.call_later(self._limit if reading.ok else self._repeat, self._tell_error)
        self._publish(reading)

    def _tell_error(self) -> None:
        error = self._lost() or SilentLineError(self._loop.time() - self._heard_at)
        self._tell(Reading(time.time(), None, error))

    def _lost(self) -> TracerError | None:
        """Return why a port is lost or cannot be opened; None if all are open."""
        return next((error for error in self._listener.errors if error is not None), None)
