"""A port of a listener, which is opened again whenever it is lost."""

from __future__ import annotations

import asyncio

from tracer_async.client._retrying import Retrying
from tracer_async.errors import LinkError, TracerError
from tracer_async.sharing._direction import Direction
from tracer_async.sharing._inputs import Input
from tracer_async.transport.address import Address

__all__ = ["ListenedPort"]

# Initial and maximum seconds until a port that was lost is opened again.
_BACKOFF = (0.5, 30.0)


class ListenedPort:
    """One port, or one connection to a bridge. A serial port receives only after `start`."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._direction: Direction | None = None
        self._input: Input | None = None
        self._task: asyncio.Task[None] | None = None
        self.error: TracerError | None = None
        """Why it was lost or cannot be opened. None while it is open."""
        self.links: int = 0
        """How often it was opened."""

    async def open(self, direction: Direction) -> None:
        """Open it. *direction* gets what it receives. Raises a LinkError, which is then `error`."""
        self._direction = direction
        await self._open(direction)

    async def _open(self, direction: Direction) -> Input:
        def received(data: bytes, not_before: float) -> None:
            # Bytes can come in the same step of the event loop as the connection, so before `Input.open` has returned.
            self.error = None
            direction.received(data, not_before)

        self._input = opened = Input(self._address, received)
        try:
            await opened.open()
        except TracerError as error:
            self.error = error
            raise
        self.error = None
        self.links += 1
        return opened

    def start(self) -> None:
        """Begin to receive, and keep it open from now on. If it could not be opened, keep trying."""
        assert self._direction is not None  # noqa: S101  # `open` was called before
        assert self._input is not None  # noqa: S101
        if self.error is None:
            self._input.start()
        keeping = self._keep_open(self._direction, self._input)
        self._task = asyncio.create_task(keeping, name=f"tracer_async listener {self._address}")

    def close(self) -> None:
        """Close it. Nothing is received after this."""
        # Not in the task: it may be cancelled before its first step.
        if self._task is not None:
            self._task.cancel()
        if self._input is not None:
            self._input.close()

    async def wait_closed(self) -> None:
        """Wait until its task has ended. Call `close` first."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def is_read(self) -> bool:
        """Return whether everything that has arrived is read."""
        return self._input is None or self._input.is_read()

    async def _keep_open(self, direction: Direction, opened: Input) -> None:
        loop = asyncio.get_running_loop()
        retrying = Retrying(str(self._address), _BACKOFF, _log_failed)
        if self.error is None:
            retrying.opened()
        else:
            opened = await self._open_again(direction, retrying, retrying.not_opened(self.error, loop.time()))
        while True:
            frames = direction.stats.frames
            cause = await opened.lost
            good_frames = direction.stats.frames > frames
            reason = str(cause or "closed by the other side")
            self.error = cause if isinstance(cause, TracerError) else LinkError(str(self._address), reason)
            delay = retrying.lost(cause, loop.time(), good_frames=good_frames)
            opened = await self._open_again(direction, retrying, delay)

    async def _open_again(self, direction: Direction, retrying: Retrying, delay: float) -> Input:
        """Return the input as soon as it can be opened, first after *delay* seconds."""
        while True:
            await asyncio.sleep(delay)
            try:
                opened = await self._open(direction)
            except TracerError as error:
                delay = retrying.not_opened(error, asyncio.get_running_loop().time())
            else:
                opened.start()
                retrying.opened()
                return opened


def _log_failed(error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": "logging failed", "exception": error})
