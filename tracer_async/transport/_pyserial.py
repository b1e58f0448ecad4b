"""pyserial-asyncio's transport, closed without waiting and only once."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

import serial
import serial_asyncio

__all__ = ["PortTransport"]


class PortTransport(serial_asyncio.SerialTransport):  # type: ignore[misc]  # the package has no types
    """A serial port whose `abort` does not block the event loop and may be called again at any time."""

    # Set by the base class, which has no types.
    _serial: Any
    _protocol: Any
    _max_read_size: int

    if sys.platform != "win32":

        def _read_ready(self) -> None:
            # The original calls select(). It fails for descriptors above 1023, and the event loop would then call this
            # method in an endless loop. It also calls _close() after an error, which waits until all output is sent:
            # that never happens if the other side takes no bytes.
            try:
                data = os.read(self._serial.fd, self._max_read_size)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._abort(serial.SerialException(f"read failed: {error}"))
                return
            if data:
                self._protocol.data_received(data)
            else:
                # An unplugged port is always readable and has no bytes.
                self._abort(serial.SerialException("the port was unplugged"))

    def _fatal_error(self, exc: Exception, message: str = "") -> None:  # noqa: ARG002  # called by the base class
        # The original also reports an error in the event loop. But an unplugged port is no error in the program: the
        # client reconnects, and logs the cause.
        self._abort(exc)

    def abort(self) -> None:
        """Close at once, and discard what was not sent."""
        if not self.is_closing():
            self._drop_output()
            super().abort()

    def _call_connection_lost(self, exc: Exception | None) -> None:
        # The original blocks the event loop until all output is sent. It also fails when it is called twice, which
        # happens if an error and a close come together.
        if self._serial is None:
            return
        self._drop_output()
        self._write_buffer.clear()
        port, self._serial = self._serial, None
        protocol, self._protocol = self._protocol, None
        try:
            protocol.connection_lost(exc)
        finally:
            with suppress(OSError):  # the port was unplugged
                port.close()

    def _drop_output(self) -> None:
        # The kernel too waits for unsent output when a port is closed. An unplugged port raises termios.error, which is
        # not an OSError.
        with suppress(Exception):
            self._serial.reset_output_buffer()
