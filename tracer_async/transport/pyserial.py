"""pyserial-asyncio's transport, closed without waiting."""

from __future__ import annotations

from contextlib import suppress

import serial_asyncio

__all__ = ["PortTransport"]


class PortTransport(serial_asyncio.SerialTransport):  # type: ignore[misc]  # the package has no types
    """A serial port whose `abort` cannot hold up the event loop."""

    def abort(self) -> None:
        """Close at once. pyserial-asyncio drains the port as it closes, on the loop: leave it nothing to drain."""
        if not self.is_closing():
            with suppress(Exception):  # a port that was pulled raises termios.error, which is nothing known
                self.serial.reset_output_buffer()
        super().abort()
