"""Opens the connection, and opens it again after each loss. `Retrying` decides when."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from tracer_async.client._connection import Connection
from tracer_async.client._options import Target
from tracer_async.client._retrying import Retrying
from tracer_async.client._status import ConnectionState
from tracer_async.errors import LinkError, TracerError
from tracer_async.transport._link import Link
from tracer_async.transport._opening import open_link

__all__ = ["LinkKeeper"]

# Seconds after which an attempt no longer counts for the limit of simultaneous attempts. A healthy device connects
# faster, so thousands of dead ones do not delay it.
_PLACE_HELD = 0.25


class LinkKeeper:
    """Keeps the link of one connection open while `run` runs."""

    __slots__ = ("_connection", "_places", "_retrying", "_target")

    def __init__(
        self, target: Target, connection: Connection, places: AbstractAsyncContextManager[object] | None = None
    ) -> None:
        self._target = target
        self._connection = connection
        self._places = places
        """Limits the number of simultaneous attempts. Many clients can share it."""
        self._retrying = Retrying(target.session.name, target.backoff, _log_failed)

    async def run(self, opened: asyncio.Future[None] | None) -> None:
        """Open the link, and open it again whenever it is lost, until the connection is closed.

        *opened* gets the outcome of the first attempt. If that is an error, `run` returns. Without *opened* it retries.
        """
        connection, retrying = self._connection, self._retrying
        loop = asyncio.get_running_loop()
        while not connection.status.closed:
            frames = connection.stats.frames
            try:
                link = await self._open()
            except TracerError as error:
                if opened is not None and not opened.done():
                    opened.set_exception(error)
                    return
                connection.note_down(error)
                delay = retrying.not_opened(error, loop.time())
            else:
                if opened is not None and not opened.done():
                    opened.set_result(None)
                retrying.opened()
                # Shielded: a cancellation of this task must not cancel the future of the link.
                await asyncio.shield(link.lost)
                good_frames = connection.stats.frames > frames
                delay = retrying.lost(connection.down_cause, loop.time(), good_frames=good_frames)
            connection.status.set(ConnectionState.DOWN)
            await asyncio.sleep(delay)

    async def _open(self) -> Link:
        """Return a link, or raise a TracerError, whatever the transport factory does to its task."""
        attempt: asyncio.Task[Link] | None = None
        name, task = self._target.session.name, asyncio.current_task()
        try:
            if self._places is None:
                attempt = asyncio.create_task(self._attempt())
            else:
                async with self._places:
                    attempt = asyncio.create_task(self._attempt())
                    await asyncio.wait([attempt], timeout=_PLACE_HELD)
            return await attempt
        except TracerError:
            raise
        except asyncio.CancelledError:
            if task is None or task.cancelling():  # the client is closed
                if attempt is not None:
                    await _cancel(attempt)
                raise
            raise LinkError(name, "the transport factory has cancelled the attempt to connect") from None
        except Exception as error:
            raise LinkError(name, f"the attempt to connect failed: {type(error).__name__}") from error

    async def _attempt(self) -> Link:
        connection, target = self._connection, self._target
        return await open_link(
            target.session.name,
            target.factory,
            lambda: Link(connection),
            target.session.link_timeout,
            local_address=self._retrying.local_address(connection.reset_address, asyncio.get_running_loop().time()),
        )


async def _cancel(attempt: asyncio.Task[Link]) -> None:
    """Cancel an attempt, and close its link if it was opened at the same moment."""
    attempt.cancel()
    await asyncio.wait([attempt])
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


def _log_failed(error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": "logging failed", "exception": error})
