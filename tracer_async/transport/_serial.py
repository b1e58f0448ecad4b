"""Serial ports. pyserial or serialx opens each one in a separate thread, because a driver may block without limit."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tracer_async.transport import _threads
from tracer_async.transport.address import SerialAddress

if sys.platform != "win32":
    import termios

if TYPE_CHECKING:
    import serial

__all__ = ["PyserialOpener", "SerialxOpener", "open_port", "port_key"]

# Maximum seconds that a cancelled opening waits until the port is closed again. Usually this takes milliseconds, and
# the next user finds the port free. A driver that hangs must not delay the cancellation longer.
_CLOSE_TIMEOUT = 1.0


def port_key(address: SerialAddress) -> Hashable:
    """Return the key of all calls in threads for this port: opening it waits until none is running.

    A driver may hang, and the next attempt must not add another thread that hangs.
    """
    return ("port", address.path)


class PyserialOpener:
    """Opens one port with pyserial: a `TransportFactory`."""

    __slots__ = ("_address",)

    def __init__(self, address: SerialAddress) -> None:
        self._address = address

    async def __call__(self, protocol: Callable[[], Any]) -> tuple[Any, Any]:
        """Open the port."""
        from tracer_async.transport._pyserial import PortTransport

        made = protocol()
        key = port_key(self._address)
        await _threads.wait_for_turn(key)
        opening = _threads.call(open_port, self._address, key=key, discard=_close)
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
    """Open a port with pyserial. May block without limit. Raises OSError, ValueError if it lacks the baud rate."""
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
    except Exception as error:
        if (reason := _terminal_error(error)) is None:
            raise
        raise OSError(*reason.args) from error


def _terminal_error(error: Exception) -> Exception | None:
    """Return the termios.error, which is not an OSError, that *error* is or that pyserial made *error* from.

    The SerialException that pyserial makes from it has no error number.
    """
    if sys.platform == "win32":
        return None
    return next((each for each in (error, error.__context__) if isinstance(each, termios.error)), None)


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
        key = port_key(address)
        loop = _LoopWithThreads(asyncio.get_running_loop(), key)

        async def connect() -> tuple[Any, Any]:
            # In the task: serialx starts its call at once after this, so no other client can start one in between.
            await _threads.wait_for_turn(key)
            return await serialx.create_serial_connection(
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

        opening = asyncio.get_running_loop().create_task(connect())
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
    """An event loop whose executor uses a separate thread for each call. *key* is that of these calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop, key: Hashable) -> None:
        self._loop = loop
        self._key = key
        self._calls: set[asyncio.Future[Any]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def run_in_executor(self, executor: None, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # noqa: ARG002
        """See `asyncio.AbstractEventLoop`."""
        # Never waits for its turn: a descriptor would stay open if its closing had to wait for a call that hangs.
        future = _threads.call(function, *args, key=self._key, discard=os.close if function is os.open else None)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    def abandon_calls(self) -> None:
        """Do not wait for running calls. A port that one of them opens later is closed again."""
        for future in list(self._calls):
            future.cancel()
