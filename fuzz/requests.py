"""The rules for the requests of a session: their order, their number, their outcomes. It sees no bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fuzz.controller import Asked
from tracer_async.protocol import DUPLICATE_WINDOW, Command, CommandCode, LoadState, Request

__all__ = ["Open", "RequestJudge"]

_READ = CommandCode.READ_REALTIME


@dataclass(eq=False)
class Open:
    """A request without an outcome."""

    request: Request
    command: Command[Any]
    posted_at: float
    order: int
    load: LoadState | None = None
    """The wanted state, if this is a load switch."""
    callers: int = 1
    sent: list[Asked] = field(default_factory=list)

    @property
    def commands_sent(self) -> list[Asked]:
        """The sendings of the command itself, without the readings that verify a switched load."""
        return [asked for asked in self.sent if asked.frame.command == self.command.code]

    @property
    def is_reading(self) -> bool:
        """Whether it asks for a reading and nothing else."""
        return self.command.code == _READ


class RequestJudge:
    """Records independently what was posted, and checks the order in which it is sent."""

    def __init__(self, retries: int) -> None:
        self.open: dict[Request, Open] = {}
        self._retries = retries
        self._orders = 0
        # Readings that the session asks for itself, before a command.
        self._own: dict[Request, list[Asked]] = {}
        self._posted = self._connections = 0
        # When each command was sent last. Of this connection's readings: when each was sent and when its reply came,
        # and since when each is that the session says was answered.
        self._last_sent: dict[int, float] = {}
        self._replies: list[tuple[float, float]] = []
        self._answers: list[float] = []
        self._connected_at = 0.0

    def connect(self, now: float) -> None:
        """Begin a new connection."""
        self._replies.clear()
        self._answers.clear()
        self._connected_at = now
        self._connections += 1

    def post(self, request: Request, command: Command[Any], now: float, *, join: bool, probe: Request | None) -> None:
        """A caller has posted a request, or joined one; *probe* is what the session was about to ask for itself."""
        equal = [entry for entry in self.open.values() if entry.load is None and entry.command == command]
        self._posted += 1
        own = join and request not in self.open and (request in self._own or request is probe)
        if join and equal and not own:
            assert request in {entry.request for entry in equal}, "not joined to an equal request"
        else:
            assert request not in self.open, "two callers got one request"
        entry = self.open.get(request)
        if entry is not None:
            entry.callers += 1
        else:
            # The session's own reading comes before all other waiting requests.
            self._open(Open(request, command, now, -1 if own else self._orders, sent=self._own.get(request, [])))

    def switch_load(self, request: Request, load: LoadState, now: float) -> None:
        """A caller switches the load."""
        assert request not in self.open, "two callers got one request"
        self._posted += 1
        self._open(Open(request, request.command, now, self._orders, load))

    def _open(self, entry: Open) -> None:
        self.open[entry.request] = entry
        self._orders += 1

    def sent(self, request: Request, asked: Asked, now: float) -> None:
        """*request* is sent. It may be the session's own reading."""
        code = asked.frame.command
        entry = self.open.get(request)
        if entry is None:
            assert code == _READ, "a command that nobody asked for is sent"
            # This reading may no longer be needed: its command was cancelled, or may be sent already.
            self._own.setdefault(request, []).append(asked)
            assert len(self._own) <= self._posted * (self._retries + 1) * self._connections, (
                "a reading that nobody asked for is sent"
            )
        else:
            self._check_order(entry, code, now)
            entry.sent.append(asked)
            self._check_number(entry)
        switching = [
            other
            for other in self.open.values()
            if other.load is not None and other.sent and other.request is not request
        ]
        assert code == _READ or not switching, "a command is sent while the load is switched"
        self._last_sent[code] = now

    def reading_came(self, asked: Asked, now: float) -> None:
        """The reply to a reading has arrived, accepted by the session or not."""
        if asked.at >= self._connected_at:
            self._replies.append((asked.at, now))

    def reading_answered(self, since: float) -> None:
        """The session says that a reading was answered."""
        if since >= self._connected_at:
            self._answers.append(since)

    def end(self, request: Request) -> Open | None:
        """*request* has its outcome; return None if it was the session's own."""
        return self.open.pop(request, None)

    # The order.

    def _check_order(self, entry: Open, code: int, now: float) -> None:
        if entry.load is not None and code == _READ:
            return  # its next step
        others = [other for other in self.open.values() if other is not entry]
        urgent = [other for other in others if other.command.urgent]
        if entry.command.urgent:
            assert not any(other.sent for other in urgent), "a command is sent before the one before it has ended"
            assert entry.sent or all(other.order > entry.order for other in urgent), "a command overtakes another one"
            self._check_clear(entry, now)
            return
        goes_ahead = entry.is_reading and self._blocked()
        assert not urgent or goes_ahead, "a request overtakes an urgent one"
        if not entry.is_reading:
            self._check_clear(entry, now)
        if not entry.sent and not goes_ahead:
            unsent = [other for other in others if not other.command.urgent and not other.sent]
            assert all(other.order > entry.order for other in unsent), "a request overtakes an earlier one"

    def _blocked(self) -> bool:
        """Return whether a reading has to be answered before the next command."""
        commands = [entry for entry in self.open.values() if not entry.is_reading]
        urgent = [entry for entry in commands if entry.command.urgent]
        if urgent:
            commands = [min(urgent, key=lambda entry: (not entry.sent, entry.order))]
        return any(all(since <= self._after(entry) for since in self._answers) for entry in commands)

    def _after(self, entry: Open) -> float:
        """Return the time after which a reading has to be sent and answered before a command is sent."""
        return self._last_sent.get(entry.command.code, 0.0) if entry.load is None else 0.0

    def _check_clear(self, entry: Open, now: float) -> None:
        after = self._after(entry)
        assert any(sent >= after and now >= came + DUPLICATE_WINDOW - 1e-9 for sent, came in self._replies), (
            "a command is sent whose reply may be confused with an earlier one's"
        )

    def _check_number(self, entry: Open) -> None:
        limit = self._retries + 1 if entry.command.repeatable else 1
        assert entry.is_reading or len(entry.commands_sent) <= limit, "a command is sent too often"
