"""Requests, and the order in which they are sent.

Load and settings commands go before readings: a user waits for them, while readings repeat. Before the first command on
a connection goes a reading, the *probe*. Its answer proves that no late reply from an earlier connection is on its way.
"""

from __future__ import annotations

from math import inf
from typing import Any

from tracer_async.protocol._load_switch import LoadSwitch
from tracer_async.protocol.commands import Command, ReadRealtime
from tracer_async.protocol.frame import Frame

__all__ = ["Request", "RequestQueue"]

_READ = ReadRealtime()
_READ_REALTIME = int(_READ.code)

# Encoded requests. Thousands of sessions send the same few requests again and again, so each is encoded only once.
_Encoded = tuple[Frame, bytes, bool]
"""A command as a frame and as the bytes to write, and whether it is a reading."""
_encoded: dict[tuple[bool, int, int, bytes], _Encoded] = {}
_MAX_ENCODED = 64


class Request:
    """A request, from the time it is queued until it is answered or fails."""

    __slots__ = (
        "attempts",
        "attempts_left",
        "command",
        "data",
        "echoes",
        "first_sent",
        "frame",
        "fresh",
        "internal",
        "links",
        "measured_after",
        "queued_at",
        "reading",
        "received_before",
        "send_by",
        "switch",
        "waiters",
    )

    def __init__(
        self,
        command: Command[Any],
        encoded: _Encoded,
        attempts: int,
        now: float,
        links: int,
    ) -> None:
        self.command: Command[Any] = command
        """The command to send. During a switch of the load it changes: the command, the reading that verifies it."""
        self.frame: Frame
        self.data: bytes
        self.reading: bool
        """Whether the command is a reading."""
        self.frame, self.data, self.reading = encoded
        self.attempts: int = 0
        """Number of times that it was sent."""
        self.attempts_left: int = attempts
        self.queued_at: float = now
        self.links: int = links
        """Number of connections that had been established when it was posted, or sent last."""
        # The next two are set when it is first sent.
        self.first_sent: float
        self.received_before: tuple[int, int, int]
        """Frames, damaged frames and stray bytes that had been received when it was first sent."""
        self.echoes: int = 0
        """Number of echoes of it."""
        self.switch: LoadSwitch | None = None
        self.internal: bool = False
        """Whether the session has queued it for itself, and no caller has joined it."""
        self.measured_after: float | None = None
        """A reading that may have been taken before this time is not accepted as the answer. None: any is."""
        self.fresh: bool = False
        """Whether a caller wants `measured_after`, and not only the session itself."""
        self.send_by: float = inf
        """It is dropped without an event if it would be sent after this time. See `Session.post`."""
        self.waiters: list[Any] = []
        """The callers that wait for the answer. Only the driver uses it."""

    @property
    def urgent(self) -> bool:
        """Whether it is sent before requests that are not urgent. All steps of a switch of the load are urgent."""
        return self.command.urgent or self.switch is not None


class RequestQueue:
    """The requests that wait to be sent: first the urgent ones, then the others, each in the order of posting."""

    __slots__ = ("_controller_id", "_encoded_reading", "_probe", "_start_up", "links", "requests")

    def __init__(self, controller_id: int, *, start_up: bool) -> None:
        self._controller_id = controller_id
        self._start_up = start_up
        self._encoded_reading = self._encode(_READ)
        self._probe: Request | None = None
        self.requests: list[Request] = []
        """In the order in which they will be sent."""
        self.links: int = 0
        """Number of connections that have been established."""

    @property
    def has_command(self) -> bool:
        """Whether a command other than a reading waits."""
        # All of the queue is searched: a command that is not urgent is queued after its probe.
        return any(not request.reading for request in self.requests)

    def find(self, command: Command[Any]) -> Request | None:
        """Return a queued request for the same command, if there is one."""
        for request in self.requests:
            if request.switch is None and request.command == command:
                return request
        return None

    def find_unsent_reading(self) -> Request | None:
        """Return a queued reading that was never sent, if there is one."""
        for request in self.requests:
            if request.switch is None and request.command == _READ and not request.attempts:
                return request
        return None

    def drop_overdue(self, now: float) -> None:
        """Remove requests with `Request.send_by` in the past from the front of the queue."""
        requests = self.requests
        while requests and requests[0].send_by < now:
            del requests[0]

    def put(self, command: Command[Any], attempts: int, now: float, switch: LoadSwitch | None = None) -> Request:
        """Add a request at the end."""
        if type(command) is ReadRealtime:  # nearly always
            request = Request(command, self._encoded_reading, attempts, now, self.links)
            self.requests.append(request)
            return request
        request = Request(command, self._encode(command), attempts, now, self.links)
        request.switch = switch
        if command.urgent:
            self.requests.insert(self._urgent(), request)
        else:
            self.requests.append(request)
        return request

    def put_back(self, request: Request) -> None:
        """Add a request that is sent again. It goes before all others of its kind."""
        request.links = self.links
        self.requests.insert(0 if request.urgent else self._urgent(), request)

    def put_step(self, request: Request, step: Command[Any], attempts: int) -> None:
        """Add the next step of switching the load, before all other commands."""
        request.command = step
        request.frame, request.data, request.reading = self._encode(step)
        request.attempts = request.echoes = 0
        request.attempts_left = attempts
        request.links = self.links
        self.requests.insert(0, request)

    def remove(self, request: Request) -> None:
        """Remove a request, if it is queued."""
        if request in self.requests:
            self.requests.remove(request)

    def clear(self) -> list[Request]:
        """Remove and return all requests."""
        requests = self.requests.copy()
        self.requests.clear()
        self._probe = None
        return requests

    # The probe: the reading that must be answered before the first command is sent (rule 8 of `exchange`).

    def probe(self, now: float, attempts: int) -> Request:
        """Return the probe. A queued reading of a caller serves as the probe too."""
        if self._probe is None:
            request = self.find(_READ)
            if request is None:
                request = Request(_READ, self._encoded_reading, attempts, now, self.links)
                request.internal = True
                self.requests.insert(self._urgent(), request)
            request.measured_after = now
            self._probe = request
        return self._probe

    def is_needed(self, request: Request) -> bool:
        """Return whether *request* is the probe, and a command waits for it."""
        return request is self._probe and self.has_command

    def end_probe(self, request: Request) -> bool:
        """Record that a request has ended or will not be sent again. Return whether it was the probe."""
        if request is not self._probe:
            return False
        self._probe = None
        return True

    def drop_probe(self) -> None:
        """Drop the probe, because it is not needed or its connection is lost. Callers that joined it keep a reading."""
        probe, self._probe = self._probe, None
        if probe is not None:
            if not probe.fresh:
                probe.measured_after = None
            if probe.internal:
                self.remove(probe)

    # Lost connections.

    def losses(self, request: Request) -> int:
        """Return how many connections were established and lost while *request* waited, if there is none now.

        A connection that was established before it was posted does not count: perhaps it was dead already.
        """
        return self.links - request.links

    def earliest(self, down_since: float) -> float | None:
        """Return since when the first request has waited for a connection, if it is down since *down_since*."""
        return min((max(request.queued_at, down_since) for request in self.requests), default=None)

    def expired(self, down_since: float, now: float, timeout: float) -> list[Request]:
        """Return the requests that have waited for a connection for *timeout* seconds."""
        return [request for request in self.requests if now >= max(request.queued_at, down_since) + timeout]

    def _urgent(self) -> int:
        """Return the number of urgent requests, which is the position of the first other one."""
        return sum(request.urgent for request in self.requests)

    def _encode(self, command: Command[Any]) -> _Encoded:
        # Not a `CommandCode`: plain numbers are compared faster.
        key = (self._start_up, self._controller_id, int(command.code), command.to_bytes())
        encoded = _encoded.get(key)
        if encoded is None:
            # Custom commands may have any number of different requests.
            if len(_encoded) >= _MAX_ENCODED:
                _encoded.clear()
            frame = Frame(*key[1:])
            encoded = _encoded[key] = frame, frame.encode(start_up=self._start_up), frame.command == _READ_REALTIME
        return encoded
