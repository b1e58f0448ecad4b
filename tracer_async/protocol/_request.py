"""Requests, and the order in which they are sent."""

from __future__ import annotations

from typing import Any

from tracer_async.protocol._load_switch import LoadSwitch
from tracer_async.protocol.commands import Command, ReadRealtime
from tracer_async.protocol.decoder import DecoderStats
from tracer_async.protocol.frame import Frame

__all__ = ["Request", "RequestQueue"]

_READ = ReadRealtime()

# A request is encoded once for all the times that it is sent. Thousands of sessions send few different ones.
_encoded: dict[tuple[bool, int, int, bytes], tuple[Frame, bytes]] = {}
_MAX_ENCODED = 64


class Request:
    """A request from its queueing to its end. `waiters` belongs to the driver."""

    __slots__ = (
        "attempts",
        "attempts_left",
        "command",
        "data",
        "echoes",
        "first_sent",
        "frame",
        "internal",
        "last_sent",
        "measured_after",
        "queued_at",
        "received_before",
        "switch",
        "waiters",
    )

    def __init__(
        self,
        command: Command[Any],
        encoded: tuple[Frame, bytes],
        attempts: int,
        now: float,
        switch: LoadSwitch | None = None,
    ) -> None:
        self.command: Command[Any] = command
        """What is sent now; while a load is switched, also the reading that verifies it."""
        self.frame: Frame = encoded[0]
        self.data: bytes = encoded[1]
        self.attempts: int = 0
        """How often it was sent."""
        self.attempts_left: int = attempts
        self.queued_at: float = now
        self.first_sent: float = now
        self.last_sent: float = now
        self.received_before: DecoderStats | None = None
        """What had been received when it was first sent."""
        self.echoes: int = 0
        """How often it came back."""
        self.switch: LoadSwitch | None = switch
        self.internal: bool = False
        """Whether it is the session's own, and no caller has joined it."""
        self.measured_after: float | None = None
        """A reading is no answer if it may have been taken before this time; None: any is."""
        self.waiters: list[Any] = []
        """Who waits for the answer. The driver fills it, the session never looks."""

    @property
    def urgent(self) -> bool:
        """Whether it is sent before those that are not; so are all steps of switching the load."""
        return self.command.urgent or self.switch is not None


class RequestQueue:
    """The requests that wait to be sent: urgent ones first, each kind in the order of posting."""

    __slots__ = ("_controller_id", "_probe", "_start_up", "requests")

    def __init__(self, controller_id: int, *, start_up: bool) -> None:
        self._controller_id = controller_id
        self._start_up = start_up
        self._probe: Request | None = None
        self.requests: list[Request] = []
        """In their order."""

    @property
    def has_command(self) -> bool:
        """Whether anything but readings waits. A command that is not urgent stands behind its probe."""
        return any(request.command.code != _READ.code for request in self.requests)

    def find(self, command: Command[Any]) -> Request | None:
        """Return a request for the same that waits."""
        for request in self.requests:
            if request.switch is None and request.command == command:
                return request
        return None

    def put(self, command: Command[Any], attempts: int, now: float, switch: LoadSwitch | None = None) -> Request:
        """Add a request at the end."""
        request = Request(command, self._encode(command), attempts, now, switch)
        if command.urgent:
            self.requests.insert(self._urgent(), request)
        else:
            self.requests.append(request)
        return request

    def put_back(self, request: Request) -> None:
        """Add a request that was sent before all others of its kind: it is to be sent again."""
        self.requests.insert(0 if request.urgent else self._urgent(), request)

    def put_step(self, request: Request, step: Command[Any], attempts: int) -> None:
        """Add the next step of switching the load, before all other commands."""
        request.command = step
        request.frame, request.data = self._encode(step)
        request.attempts = 0
        request.attempts_left = attempts
        self.requests.insert(0, request)

    def remove(self, request: Request) -> None:
        """Take a request out, if it is in."""
        if request in self.requests:
            self.requests.remove(request)

    def clear(self) -> list[Request]:
        """Take all requests out."""
        requests = self.requests.copy()
        self.requests.clear()
        self._probe = None
        return requests

    # The probe: the reading that has to be answered before the first command can be sent.

    def probe(self, now: float, attempts: int) -> Request:
        """Return the probe; one that waits for a caller serves too."""
        if self._probe is None:
            request = self.find(_READ)
            if request is None:
                request = Request(_READ, self._encode(_READ), attempts, now)
                request.internal = True
                self.requests.insert(self._urgent(), request)
            request.measured_after = now
            self._probe = request
        return self._probe

    def is_needed(self, request: Request) -> bool:
        """Return whether *request* is the probe, and a command waits for it."""
        return request is self._probe and self.has_command

    def end_probe(self, request: Request) -> bool:
        """Note that a request has ended or will not be sent again; return whether it was the probe."""
        if request is not self._probe:
            return False
        self._probe = None
        return True

    def drop_probe(self) -> None:
        """Drop the probe, because the connection it was for is gone; for callers that joined it, it is a reading."""
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.measured_after = None
            if probe.internal:
                self.remove(probe)

    # While there is no connection.

    def earliest(self, down_since: float) -> float | None:
        """Return since when the first request has been waiting for a connection that has been down since then."""
        return min((max(request.queued_at, down_since) for request in self.requests), default=None)

    def expired(self, down_since: float, now: float, timeout: float) -> list[Request]:
        """Return the requests that have been waiting for a connection for *timeout* seconds."""
        return [request for request in self.requests if now >= max(request.queued_at, down_since) + timeout]

    def _urgent(self) -> int:
        """Return how many urgent requests there are."""
        return sum(request.urgent for request in self.requests)

    def _encode(self, command: Command[Any]) -> tuple[Frame, bytes]:
        key = (self._start_up, self._controller_id, command.code, command.to_bytes())
        encoded = _encoded.get(key)
        if encoded is None:
            if len(_encoded) >= _MAX_ENCODED:
                _encoded.clear()
            frame = Frame(*key[1:])
            encoded = _encoded[key] = frame, frame.encode(start_up=self._start_up)
        return encoded
