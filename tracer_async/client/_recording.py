"""What a connection needs of a recorder. `tracer_async.capture.Recorder` is one."""

from __future__ import annotations

from typing import Protocol

__all__ = ["LineRecorder"]


class LineRecorder(Protocol):
    """Records one connection. Its methods are called in the event loop and must not block, except `close`.

    *now* is in seconds of any monotonic clock, the same one in all calls.
    """

    def begin(self, recorded: str, now: float, *, timeout: float | None = None) -> None:
        """Begin to record the client of *recorded*, the address of a controller, which waits *timeout* for answers."""

    def record(self, sender: str, data: bytes | memoryview, now: float, /) -> None:
        """Record what *sender* has sent: ``client`` or ``controller``. A memoryview is valid only during the call."""

    def record_link(self, now: float, *, up: bool, by_client: bool = False, cause: str = "") -> None:
        """Record that the connection was established or lost."""

    def end(self) -> None:
        """Record nothing more."""

    def close(self) -> None:
        """Wait until everything is stored. It is called in a thread of its own."""
