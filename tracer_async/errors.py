"""Every error that the library raises on purpose, except ValueError and TypeError for misuse.

::

    TracerError
    |-- AddressError                (also ValueError)
    |-- MissingExtraError           (also ImportError)
    |-- CaptureError                (also ValueError)
    |-- LinkError                   (also ConnectionError)
    |   |-- PortNotFoundError       (also FileNotFoundError)
    |   |-- PortPermissionError     (also PermissionError)
    |   |-- PortBusyError
    |   |-- HostNotFoundError
    |   |-- LinkRefusedError        (also ConnectionRefusedError)
    |   |-- LinkTimeoutError        (also TimeoutError)
    |   |-- TlsError
    |   |-- LinkLostError
    |   |-- LinkFloodedError
    |   `-- LinkClosedError
    |-- ResponseTimeoutError        (also TimeoutError)
    |   `-- EchoError
    |-- AmbiguousReplyError
    |-- MalformedReplyError         (also ValueError)
    `-- LoadError
        |-- LoadRefusedError
        `-- LoadUnknownError

Each error carries its evidence as attributes. Its text says what failed, why if that is known, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer_async.protocol.values import RealtimeData

__all__ = [
    "AddressError",
    "AmbiguousReplyError",
    "CaptureError",
    "EchoError",
    "HostNotFoundError",
    "LinkClosedError",
    "LinkError",
    "LinkFloodedError",
    "LinkLostError",
    "LinkRefusedError",
    "LinkTimeoutError",
    "LoadError",
    "LoadRefusedError",
    "LoadUnknownError",
    "MalformedReplyError",
    "MissingExtraError",
    "PortBusyError",
    "PortNotFoundError",
    "PortPermissionError",
    "ResponseTimeoutError",
    "TlsError",
    "TracerError",
]


class TracerError(Exception):
    """The root of the tree."""


class AddressError(TracerError, ValueError):
    """A URL that names no controller; the text says what is wrong, and what is right."""


class MissingExtraError(TracerError, ImportError):
    """A package of an optional extra is not installed; the text names the command that installs it."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs a package that is not installed: pip install 'tracer-async[{extra}]'")
        self.extra = extra


class CaptureError(TracerError, ValueError):
    """A file is not a capture in the expected format."""


class LinkError(TracerError, ConnectionError):
    """There is no working connection to the controller, for a reason that has no class of its own.

    ``address`` is its URL, ``reason`` the text without it.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason


class PortNotFoundError(LinkError, FileNotFoundError):
    """The serial port, or the Unix socket, does not exist."""


class PortPermissionError(LinkError, PermissionError):
    """The serial port, or the Unix socket, may not be opened by this user."""


class PortBusyError(LinkError):
    """Another program has the serial port open."""


class HostNotFoundError(LinkError):
    """The host name has no address."""


class LinkRefusedError(LinkError, ConnectionRefusedError):
    """Nothing listens there."""


class LinkTimeoutError(LinkError, TimeoutError):
    """No connection in time: opening took too long, or it was down for as long as a request waits."""


class TlsError(LinkError):
    """The peer was reached, but its TLS or its certificate was not accepted, or it does not speak TLS."""


class LinkLostError(LinkError):
    """The connection was lost while a request was in flight that may not be sent twice: it may have been executed."""


class LinkFloodedError(LinkError):
    """The other side sends far more than was asked for, faster than any serial line: it is not a controller."""


class LinkClosedError(LinkError):
    """The client has been closed, or was never opened."""


class ResponseTimeoutError(TracerError, TimeoutError):
    """The controller did not answer.

    ``command`` is the command byte of the request, ``waited`` the seconds since it was first sent, ``attempts`` how
    often it was sent. ``unsent`` is the command byte of a command that was not sent because the reading that has to
    come before it was not answered, else None. ``frames`` are the good frames received since the request was first
    sent, ``damaged_frames`` the damaged ones, and ``stray_bytes`` the bytes that belong to no good frame.
    """

    def __init__(
        self,
        address: str,
        command: int,
        waited: float,
        attempts: int,
        *,
        unsent: int | None = None,
        frames: int = 0,
        damaged_frames: int = 0,
        stray_bytes: int = 0,
    ) -> None:
        self.address = address
        self.command = command
        self.waited = waited
        self.attempts = attempts
        self.unsent = unsent
        self.frames = frames
        self.damaged_frames = damaged_frames
        self.stray_bytes = stray_bytes
        times = "once" if attempts == 1 else f"{attempts} times"
        consequence = "" if unsent is None else f"Command {unsent:02X} was not sent. "
        super().__init__(
            f"{address}: no answer to command {command:02X}, sent {times} in {waited:.1f} s. {consequence}{self.hint}"
        )

    @property
    def hint(self) -> str:
        """What was received instead of the answer, and what to check."""
        if self.frames:
            return (
                f"{_count(self.frames, 'frame')} came, but no answer: is another program using the controller, "
                "or is the timeout too short?"
            )
        if self.damaged_frames:
            return (
                f"{_count(self.stray_bytes, 'byte')} came, with {_count(self.damaged_frames, 'damaged frame')} and no "
                "good one: a bad cable or ground, or a wrong baud rate?"
            )
        if self.stray_bytes:
            none = "not a frame" if self.stray_bytes == 1 else "none of them a frame"
            return f"{_count(self.stray_bytes, 'byte')} came, {none}: wrong baud rate, or an RS-232 adapter?"
        return (
            "Nothing was received: is the controller powered, and are its TX and RX wired to the adapter's RX and TX?"
        )


class EchoError(ResponseTimeoutError):
    """Only the request itself came back: the adapter echoes, or TX is wired to RX, and no controller answers."""

    @property
    def hint(self) -> str:
        """What was received instead of the answer, and what to check."""
        return (
            "Only an echo of the request came back: the adapter echoes, or its TX is wired to its own RX. "
            "Check the wiring, and that the controller is powered."
        )


class AmbiguousReplyError(TracerError):
    """A reply came that may belong to another request: the command may have been executed or not.

    ``command`` is the command byte, ``raw`` the data of the reply.
    """

    def __init__(self, address: str, command: int, raw: bytes) -> None:
        super().__init__(
            f"{address}: the reply to command {command:02X} may belong to another request. The command may have been "
            "executed or not. Is another program using the same controller, or does the adapter echo?"
        )
        self.address = address
        self.command = command
        self.raw = raw


class MalformedReplyError(TracerError, ValueError):
    """A reply that passed its CRC holds no answer to its command. ``raw`` is its data; the link stays usable."""

    def __init__(self, address: str, command: int, raw: bytes, reason: str) -> None:
        super().__init__(f"{address}: malformed reply to command {command:02X}: {reason}")
        self.address = address
        self.command = command
        self.raw = raw


class LoadError(TracerError):
    """The load is not, or may not be, in the state that was asked for."""


class LoadRefusedError(LoadError):
    """The controller did not switch the load. ``reading`` is what it measured right afterwards."""

    def __init__(self, address: str, wanted: bool, reading: RealtimeData) -> None:
        causes = [
            text
            for active, text in (
                (reading.over_discharge, "the battery is over-discharged"),
                (reading.load_short_circuit, "the load is short-circuited"),
                (reading.overload, "the load draws too much"),
            )
            if active
        ]
        why = " and ".join(causes) or (
            "is its load mode 1 manual? The MT-5 meter shows it; "
            "`tracer-async settings` with --load-mode-1 manual sets it"
        )
        super().__init__(
            f"{address}: the controller did not switch the load {_on_off(wanted)}, it is "
            f"{_on_off(reading.load_on)}: {why}"
        )
        self.address = address
        self.wanted = wanted
        self.reading = reading


class LoadUnknownError(LoadError):
    """The state of the load is unknown, or is not the wanted one for an unknown reason.

    ``reading`` is the last one taken after the command, None if there is none. ``sent`` tells whether the command was
    sent at all.
    """

    def __init__(
        self,
        address: str,
        wanted: bool,
        reading: RealtimeData | None = None,
        *,
        sent: bool = True,
        cause: TracerError | None = None,
    ) -> None:
        state = _on_off(wanted)
        hint = f". {cause.hint}" if isinstance(cause, ResponseTimeoutError) else ""
        if not sent:
            text = f"cannot switch the load {state}: the controller does not answer. The command was not sent{hint}"
        elif reading is None:
            text = (
                f"cannot tell whether the load is {state}: neither the command nor a reading after it was answered. "
                f"It may be on or off{hint}"
            )
        else:
            text = (
                f"the load is {_on_off(reading.load_on)} after the command to switch it {state}, and no answer tells "
                f"whether the controller received the command{hint}"
            )
        super().__init__(f"{address}: {text}")
        self.address = address
        self.wanted = wanted
        self.reading = reading
        self.sent = sent
        self.__cause__: BaseException | None = cause


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def _on_off(on: bool) -> str:
    return "on" if on else "off"
