"""Logs and records the bytes between one client and its controller. Both drivers use it."""

from __future__ import annotations

import logging

from tracer_async.client._recording import LineRecorder

__all__ = ["Trace"]

# At level DEBUG. The arguments are the name of the controller, "sent" or "received", and the bytes in hexadecimal.
_wire = logging.getLogger("tracer_async.wire")


class Trace:
    """The log and the recorder of one client. Times are in seconds, on the clock of the session."""

    __slots__ = ("_name", "_recorder", "active")

    def __init__(self, name: str, recorder: LineRecorder | None) -> None:
        self._name = name
        self._recorder = recorder
        self.active: bool = False
        """Whether anything wants the bytes. Checked once for each link, because the check is slow."""

    def begin(self, now: float, timeout: float) -> None:
        """Begin the recording of a client that waits *timeout* for answers."""
        if self._recorder is not None:
            self._recorder.begin(self._name, now, timeout=timeout)

    def end(self) -> None:
        """Record nothing more."""
        if self._recorder is not None:
            self._recorder.end()

    def link_up(self, now: float) -> None:
        """Record that the link was established."""
        self.active = self._recorder is not None or _wire.isEnabledFor(logging.DEBUG)
        if self._recorder is not None:
            self._recorder.record_link(now, up=True)

    def link_down(self, now: float, *, by_client: bool, cause: Exception | None = None) -> None:
        """Record that the link was lost or closed."""
        if self._recorder is not None:
            self._recorder.record_link(now, up=False, by_client=by_client, cause=str(cause or ""))

    def sent(self, data: bytes, now: float) -> None:
        """Log and record what the client has sent."""
        self._bytes("sent", "client", data, now)

    def received(self, data: bytes | memoryview, now: float) -> None:
        """Log and record what the client has received."""
        self._bytes("received", "controller", data, now)

    def _bytes(self, verb: str, sender: str, data: bytes | memoryview, now: float) -> None:
        if self._recorder is not None:
            self._recorder.record(sender, data, now)
        if _wire.isEnabledFor(logging.DEBUG):
            _wire.debug("%s: %s %s", self._name, verb, data.hex(" "))
