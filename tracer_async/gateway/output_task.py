"""Runs one output, so that its faults stay its own: nothing that it raises reaches the hub or another output."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from tracer_async.backoff import backoff
from tracer_async.gateway._error_text import error_text
from tracer_async.gateway.events import Controller, ControllerEvent
from tracer_async.gateway.output import Output

__all__ = ["OutputTask"]

_log = logging.getLogger(__name__)

# Seconds from the end of the polling to the end of an output, whatever the output does.
_STOP_SECONDS = 3.0
# Seconds that a cancelled `drain` gets to clean up.
_CANCEL_SECONDS = 0.5
# Initial and maximum delay before an output that raised is started again, in seconds.
_RESTART = (1.0, 60.0)
# Seconds after which an output that raises begins with the initial delay again. A server that is restarted every minute
# must be reached soon each time: with more seconds, the delay would double each time.
_PROVEN_SECONDS = 20.0


class OutputTask:
    """The task of one output."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._name = output.state.name
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._complained = False

    def start(self) -> None:
        """Begin to run the output."""
        self._task = asyncio.create_task(self._keep_running(), name=f"gateway {self._name}")

    async def stop(self) -> None:
        """End the output, and let it deliver what it holds. Takes 3 s, and 0.5 s more if it does not listen."""
        self._stopping = True
        deadline = time.monotonic() + _STOP_SECONDS
        if self._task is not None and not await _ends(self._task, cancel_after=0.0, give_up_after=_STOP_SECONDS):
            _log.error("%s: does not end; what it holds is lost", self._name)
            return
        drain = asyncio.create_task(self.output.drain(), name=f"gateway {self._name} drain")
        remaining = deadline - time.monotonic()
        if not await _ends(drain, cancel_after=remaining, give_up_after=remaining + _CANCEL_SECONDS):
            _log.error("%s: does not end; what it holds is lost", self._name)
        elif drain.cancelled():
            _log.warning("%s: what was left at the end could not be delivered in %g s", self._name, _STOP_SECONDS)
        elif (error := drain.exception()) is not None:
            _log.warning("%s: what was left at the end could not be delivered: %s", self._name, error_text(error))

    # What the hub tells the output. When it ends, it only takes events, for the output that takes its place.

    def add(self, controller: Controller) -> None:
        """Tell the output about a controller."""
        if not self._stopping:
            self._tell(lambda: self.output.add(controller))

    def remove(self, controller: Controller) -> None:
        """Tell the output that a controller is gone."""
        if not self._stopping:
            self._tell(lambda: self.output.remove(controller))

    def publish(self, event: ControllerEvent) -> None:
        """Hand an event to the output. It counts as dropped if the output raises."""
        if not self._tell(lambda: self.output.publish(event)):
            self.output.state.dropped += 1

    def _tell(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except Exception:  # noqa: BLE001  # an output's failure is its own
            if not self._complained:  # once: it may happen with every reading
                self._complained = True
                _log.exception("%s: an internal error; please report it", self._name)
            return False
        return True

    # The task

    async def _keep_running(self) -> None:
        """Run the output; start it again with growing delays when it raises or ends."""
        delays = backoff(*_RESTART)
        while True:
            started = time.monotonic()
            error = await self._run_once()
            if self._stopping:  # it ended instead of passing the cancellation on
                return
            if self.output.state.fails(error):
                _log.warning("%s: %s", self._name, error)
            if time.monotonic() - started > _PROVEN_SECONDS:
                delays = backoff(*_RESTART)
            await asyncio.sleep(next(delays))

    async def _run_once(self) -> str:
        """Run the output until it ends. Return why it ended."""
        try:
            await self.output.run()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something that the output waited for was cancelled, not the output. It must not end silently.
            return "it was cancelled from within"
        except Exception as error:  # noqa: BLE001  # as above
            _log.debug("%s", self._name, exc_info=True)
            return error_text(error)
        return "it ended"


async def _ends(task: asyncio.Task[None], *, cancel_after: float, give_up_after: float) -> bool:
    """Wait for *task*; cancel it after a time. Return whether it ended within the other time."""
    try:
        if cancel_after > 0:
            await asyncio.wait([task], timeout=cancel_after)
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=max(give_up_after - max(cancel_after, 0.0), 0.0))
    finally:
        task.cancel()
    return task.done()
