"""Notes when the bytes of a client are sent and received."""

from __future__ import annotations

__all__ = ["Traffic"]

_MAX_KEPT = 65536


class Traffic:
    """A recorder of a `TracerClient` that writes no file. Times are in seconds, on the clock of the event loop.

    `Reading.age` is no latency: it is an upper limit that counts from the oldest request that the reply may belong to.
    """

    def __init__(self) -> None:
        self.sent_at: float = 0.0
        """When the last request was sent."""
        self.received_at: float = 0.0
        """When the last bytes were received."""
        self.received: bytearray = bytearray()
        """What was received, at most 64 KiB."""
        self.losses: list[str] = []
        """Why a connection was lost, each reason once."""
        self._address = ""

    def begin(self, recorded: str, now: float, *, timeout: float | None = None) -> None:  # noqa: ARG002
        """See `LineRecorder`."""
        self._address = recorded

    def record(self, sender: str, data: bytes | memoryview, now: float, /) -> None:
        """See `LineRecorder`."""
        if sender == "client":
            self.sent_at = now
        else:
            self.received_at = now
            self.received += data[: _MAX_KEPT - len(self.received)]

    def record_link(self, now: float, *, up: bool, by_client: bool = False, cause: str = "") -> None:  # noqa: ARG002
        """See `LineRecorder`."""
        reason = cause.removeprefix(f"{self._address}: ") if by_client else "the connection was lost"
        # Without a reason if the client is closed.
        if not up and reason and reason not in self.losses:
            self.losses.append(reason)

    def end(self) -> None:
        """See `LineRecorder`."""

    def close(self) -> None:
        """See `LineRecorder`."""
