"""Waits for input, for a time, or until another thread rings. Nothing else in the blocking client waits for long."""

from __future__ import annotations

import select
import socket
import sys
from contextlib import suppress

__all__ = ["Bell"]


class Bell:
    """Waits for one descriptor at a time. A wait may be interrupted at any moment: it changes nothing."""

    __slots__ = ("_descriptor", "_heard", "_output", "_poll", "_rung", "is_rung")

    def __init__(self) -> None:
        self.is_rung = False
        """Whether it has been rung."""
        self._heard, self._rung = socket.socketpair()
        self._heard.setblocking(False)
        self._rung.setblocking(False)
        self._descriptor = -1
        self._output = False
        if sys.platform != "win32":
            self._poll = select.poll()
            self._poll.register(self._heard, select.POLLIN)

    def attach(self, descriptor: int) -> None:
        """Wait for *descriptor* from now on. -1: for none."""
        if sys.platform != "win32":
            if self._descriptor >= 0:
                with suppress(KeyError):
                    self._poll.unregister(self._descriptor)
            if descriptor >= 0:
                self._poll.register(descriptor, select.POLLIN)
        self._descriptor = descriptor
        self._output = False

    def wait(self, seconds: float, *, output: bool = False) -> None:
        """Return when there is input, after a ring, or after *seconds*. With *output*, also when a write is possible.

        It may return earlier without a reason.
        """
        if sys.platform == "win32":
            own = [] if self._descriptor < 0 else [self._descriptor]
            # select() refuses a negative number: the time may have passed since it was calculated.
            select.select([self._heard, *own], own if output else [], [], max(0.0, seconds))
            return
        if output is not self._output and self._descriptor >= 0:
            self._poll.modify(self._descriptor, select.POLLIN | (select.POLLOUT if output else 0))
            self._output = output
        # In milliseconds. A fraction is rounded up, a negative number would wait without end.
        self._poll.poll(seconds * 1000 if seconds > 0 else 0)

    def ring(self) -> None:
        """End the present wait, and all later ones. Any thread may call this, and a signal handler."""
        self.is_rung = True
        with suppress(OSError):  # it is closed, or has been rung often
            self._rung.send(b"!")

    def close(self) -> None:
        """Release the descriptors."""
        self._heard.close()
        self._rung.close()
