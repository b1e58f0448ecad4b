"""Inputs of a listener: they receive, and never send a byte.

An input knows when it was last empty. The application may block the event loop for seconds, and bytes that are read
after that can have come at any moment since then. After a suspend of the machine nothing shows how old they are, so the
input counts as lost.
"""

from __future__ import annotations

import asyncio
import os
import sys
from array import array
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

from tracer_async.client._suspend import SuspendWatch
from tracer_async.errors import LinkError, LinkFloodedError, TracerError
from tracer_async.protocol._reception import FLOOD_RATE
from tracer_async.transport._open_errors import explain
from tracer_async.transport._opening import transport_factory
from tracer_async.transport._serial import port_key
from tracer_async.transport._threads import call, wait_for_turn
from tracer_async.transport.address import Address, SerialAddress

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["Input", "Received"]

Received = Callable[[bytes, float], None]
"""Takes the bytes, and the time when the input was last known to be empty before they came."""

_READ_SIZE = 4096
_CONNECT_TIMEOUT = 5.0

# Seconds from one look at whether the input is empty to the next.
_LOOK = 0.1

# Seconds after a connection to a bridge was opened. What comes until then can have waited in the bridge for any time.
_MAY_BE_OLD = 0.5


class Input:
    """One port, or one connection to a bridge. *received* gets the bytes."""

    def __init__(self, address: Address, received: Received) -> None:
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._received = received
        self._descriptor = -1
        self._transport: asyncio.Transport | None = None
        self._empty_at = self._loop.time()
        # What a connection receives until then is of unknown age.
        self._old_until = -inf
        self._suspends = SuspendWatch()
        # When all that was received would have come at `FLOOD_RATE`.
        self._paid_at = self._empty_at
        self._looking: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[Exception | None] = self._loop.create_future()
        """Done when the port was unplugged, the connection was lost or the machine was suspended."""

    async def open(self) -> None:
        """Open it. Raises a LinkError. A serial port receives only after `start`."""
        name = str(self._address)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                if isinstance(self._address, SerialAddress):
                    self._descriptor = await _open_in_thread(self._address)
                else:
                    connect: Any = transport_factory(self._address)
                    self._transport, _ = await connect(lambda: _Connection(self._connected, self._take, self._lose))
        except TracerError:
            raise
        except (OSError, ValueError) as error:
            raise explain(name, error, _CONNECT_TIMEOUT) from error

    def start(self) -> None:
        """Begin to receive. A connection may be lost by now."""
        if self.lost.done():
            return
        self._look_again()
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Close it."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _connected(self) -> None:
        self._old_until = self._loop.time() + _MAY_BE_OLD

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._take(data)
        else:
            self._lose(LinkError(str(self._address), "the port was unplugged"))

    def _take(self, data: bytes) -> None:
        if self._ends_after_suspend():
            return
        # More than a second's worth at once would take the time of everything else in the event loop.
        now = self._loop.time()
        self._paid_at = max(self._paid_at, now) + len(data) / FLOOD_RATE
        if self._paid_at > now + 1.0:
            reason = f"more than {FLOOD_RATE // 1024} KiB/s arrive: this is not the line of a controller"
            self._lose(LinkFloodedError(str(self._address), reason))
            return
        not_before = -inf if now < self._old_until else self._empty_at
        self.is_read()
        self._received(data, not_before)

    def _ends_after_suspend(self) -> bool:
        """Return whether the machine was suspended since this was created. Then the input is lost."""
        suspended = self._suspends.noticed()
        if suspended:
            self._lose(LinkError(str(self._address), "the machine was suspended"))
        return suspended

    def _look_again(self) -> None:
        if self._ends_after_suspend():
            return
        self.is_read()
        self._looking = self._loop.call_later(_LOOK, self._look_again)

    def is_read(self) -> bool:
        """Return whether the input is empty now, so that everything that has come is read. True if it is closed."""
        now = self._loop.time()
        descriptor = self._descriptor
        if self._transport is not None and not self._transport.is_closing():
            descriptor = self._transport.get_extra_info("socket").fileno()
        if descriptor < 0:
            return True
        unread = array("i", [0])
        if sys.platform != "win32":
            # A port that was unplugged just now raises. The next read reports it.
            with suppress(OSError):
                fcntl.ioctl(descriptor, termios.FIONREAD, unread)
        if unread[0]:
            return False
        self._empty_at = now
        return True

    def _lose(self, cause: Exception | None) -> None:
        self.close()
        if not self.lost.done():
            self.lost.set_result(cause)


class _Connection(asyncio.Protocol):
    def __init__(
        self, connected: Callable[[], None], take: Callable[[bytes], None], lost: Callable[[Exception | None], None]
    ) -> None:
        self._connected = connected
        self._take = take
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: ARG002  # the opener returns it
        self._connected()

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)


async def _open_in_thread(address: SerialAddress) -> int:
    key = port_key(address)
    await wait_for_turn(key)
    opening = call(_open_read_only, address, key=key, discard=os.close)
    try:
        return await opening
    except asyncio.CancelledError:
        # The port may have been opened in the same step of the event loop.
        if not opening.cancelled() and opening.exception() is None:
            os.close(opening.result())
        raise


def _open_read_only(address: SerialAddress) -> int:
    """Open a serial port for reading only, and set its format. Its signals DTR and RTS stay on when it is closed."""
    if sys.platform == "win32":
        raise LinkError(str(address), "a serial port cannot be opened for reading only on Windows")
    # Not to wait for a carrier, and not to become the terminal that controls this process.
    descriptor = os.open(address.path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        # As clients do. Two programs that read one port take the bytes from each other.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        speed = getattr(termios, f"B{address.baudrate}", None)
        if speed is None:
            raise LinkError(str(address), f"this system has no baud rate {address.baudrate}")
        # Bytes that waited in the port came at an unknown time.
        termios.tcflush(descriptor, termios.TCIFLUSH)
        characters = termios.tcgetattr(descriptor)[6]
        characters[termios.VMIN], characters[termios.VTIME] = 1, 0
        control = getattr(termios, f"CS{address.bytesize}") | termios.CREAD | termios.CLOCAL
        if address.parity != "N":
            control |= termios.PARENB | (termios.PARODD if address.parity == "O" else 0)
        if address.stopbits == 2:
            control |= termios.CSTOPB
        # No input and output processing, and above all no echo: the driver would send what it receives.
        termios.tcsetattr(descriptor, termios.TCSANOW, [0, 0, control, 0, speed, speed, characters])
    except termios.error as error:  # it is not an OSError. The file is not a terminal
        os.close(descriptor)
        raise OSError(*error.args) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
