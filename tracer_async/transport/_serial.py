"""Serial ports. pyserial or serialx opens each one in a separate thread, because a driver may block without limit."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tracer_async.transport import _threads
from tracer_async.transport.address import SerialAddress

if TYPE_CHECKING:
    import serial

__all__ = ["PyserialOpener", "SerialxOpener", "open_port"]

# Maximum seconds that a cancelled opening waits until the port is closed again. Usually this takes milliseconds, and
# the next user finds the port free. A driver that hangs must not delay the cancellation longer.
_CLOSE_TIMEOUT = 1.0


class PyserialOpener:
    """Opens one port with pyserial: a `TransportFactory`."""

    __slots__ = ("_address",)

    def __init__(self, address: SerialAddress) -> None:
        self._address = address

    async def __call__(self, protocol: Callable[[], Any]) -> tuple[Any, Any]:
        """Open the port."""
        from tracer_async.transport._pyserial import PortTransport

        made = protocol()
        opening = _threads.call(open_port, self._address, discard=_close)
        try:
            # Shielded: a thread cannot be cancelled, and the port that it opens later must be closed.
            port = await asyncio.shield(opening)
        except asyncio.CancelledError:
            try:
                await asyncio.wait([opening], timeout=_CLOSE_TIMEOUT)
            finally:
                if not opening.cancel() and opening.exception() is None:
                    _close(opening.result())
            raise
        transport = PortTransport(asyncio.get_running_loop(), made, port)
        try:
            await asyncio.sleep(0)  # the event loop calls connection_made in this iteration
        except asyncio.CancelledError:
            transport.abort()
            raise
        return transport, made


def open_port(address: SerialAddress) -> serial.Serial:
    """Open a port with pyserial. May block without limit. Raises serial.SerialException."""
    import serial

    try:
        return serial.Serial(
            address.path,
            address.baudrate,
            bytesize=address.bytesize,
            parity=address.parity,
            stopbits=address.stopbits,
            exclusive=True,
        )
    except serial.SerialException:
        raise
    except Exception as error:  # termios.error, which is not an OSError: the file is not a terminal
        raise serial.SerialException(errno.ENOTTY, str(error)) from error


def _close(port: serial.Serial) -> None:
    with suppress(OSError):
        port.close()


class SerialxOpener:
    """Opens one port with serialx: a `TransportFactory`."""

    __slots__ = ("_address",)

    def __init__(self, address: SerialAddress) -> None:
        self._address = address

    async def __call__(self, protocol: Callable[[], Any]) -> tuple[Any, Any]:
        """Open the port."""
        import serialx

        address = self._address
        made = protocol()
        loop = _LoopWithThreads(asyncio.get_running_loop())
        opening = asyncio.get_running_loop().create_task(
            serialx.create_serial_connection(
                loop,  # type: ignore[arg-type]  # has all methods that serialx uses
                lambda: made,
                address.path,
                address.baudrate,
                parity=serialx.Parity(address.parity),
                stopbits=serialx.StopBits(address.stopbits),
                byte_size=address.bytesize,
                exclusive=True,
                transport_cls=serialx.get_serial_classes(address.path)[1],  # otherwise an executor looks it up
            )
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # When it is cancelled, serialx waits for the driver to close the port again, without limit.
            opening.cancel()
            opening.add_done_callback(_abort)
            try:
                await asyncio.wait([opening], timeout=_CLOSE_TIMEOUT)
            finally:
                loop.abandon_calls()  # otherwise the end of asyncio.run would wait for the driver too
            raise


def _abort(opening: asyncio.Task[tuple[Any, Any]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].abort()


class _LoopWithThreads:
    """An event loop whose executor uses a separate thread for each call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: set[asyncio.Future[Any]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def run_in_executor(self, executor: None, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # noqa: ARG002
        """See `asyncio.AbstractEventLoop`."""
        future = _threads.call(function, *args, discard=os.close if function is os.open else None)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    def abandon_calls(self) -> None:
        """Do not wait for running calls. A port that one of them opens later is closed again."""
        for future in list(self._calls):
            future.cancel()
