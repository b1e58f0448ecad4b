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

Each carries its evidence as attributes; its text is a sentence that says what to do where something can be done.
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
    """A URL that names no controller; the text shows a right one."""


class MissingExtraError(TracerError, ImportError):
    """A package of an optional extra is not installed; the text names the command that installs it."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs a package that is not installed: pip install 'tracer-async[{extra}]'")
        self.extra = extra


class CaptureError(TracerError, ValueError):
    """A file that is not a capture in the format it was taken for."""


class LinkError(TracerError, ConnectionError):
    """There is no working link to the controller, for a reason that has no class of its own.

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
    """The link was not there in time: it could not be opened, or was down for as long as a request would wait."""


class TlsError(LinkError):
    """The peer was reached, and its certificate or its TLS was not accepted."""


class LinkLostError(LinkError):
    """The link broke while a request was under way that may not be sent twice: it may have been carried out."""


class LinkFloodedError(LinkError):
    """The other side sends far more than was asked for, faster than any serial line: this is no controller."""


class LinkClosedError(LinkError):
    """The client has been closed, or was never opened."""


class ResponseTimeoutError(TracerError, TimeoutError):
    """The controller did not answer.

    ``command`` is the command byte of the request, ``waited`` the seconds since it was first sent, ``attempts`` how
    often it was sent. ``unsent`` is the command byte of a command that was not sent because the reading that has to
    come before it was not answered, else None.
    """

    hint = "Is the controller powered, and are its TX and RX wired to the adapter's RX and TX?"

    def __init__(self, address: str, command: int, waited: float, attempts: int, *, unsent: int | None = None) -> None:
        times = "once" if attempts == 1 else f"{attempts} times"
        consequence = "" if unsent is None else f"Command {unsent:02X} was not sent. "
        super().__init__(
            f"{address}: no answer to command {command:02X}, sent {times} in {waited:.1f} s. {consequence}{self.hint}"
        )
        self.address = address
        self.command = command
        self.waited = waited
        self.attempts = attempts
        self.unsent = unsent


class EchoError(ResponseTimeoutError):
    """Only the request itself came back: the adapter echoes, or TX is wired to RX, and no controller answers."""

    hint = (
        "Only an echo of the request came back: the adapter echoes, or its TX is wired to its own RX. "
        "Check the wiring, and that the controller is powered."
    )


class AmbiguousReplyError(TracerError):
    """A reply came that may belong to another request: the command may have been carried out or not.

    ``command`` is the command byte, ``raw`` the data of the reply.
    """

    def __init__(self, address: str, command: int, raw: bytes) -> None:
        super().__init__(
            f"{address}: the reply to command {command:02X} may belong to another request. The command may have been "
            "carried out or not. Is another program using the same controller, or does the adapter echo?"
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
    """The controller left the load as it was. ``reading`` is what it said right afterwards."""

    def __init__(self, address: str, wanted: bool, reading: RealtimeData) -> None:
        causes = [
            text
            for active, text in (
                (reading.over_discharge, "the battery is over-discharged"),
                (reading.load_short_circuit, "the load is short-circuited"),
                (reading.overload, "the load is too much for it"),
            )
            if active
        ]
        why = " and ".join(causes) or "is its load mode manual? (settings, load mode 1 = 17)"
        super().__init__(
            f"{address}: the controller did not switch the load {_on_off(wanted)}, it is "
            f"{_on_off(reading.load_on)}: {why}"
        )
        self.address = address
        self.wanted = wanted
        self.reading = reading


class LoadUnknownError(LoadError):
    """The state of the load is unknown, or is not the wanted one and nobody knows why.

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
        self.__cause__ = cause


def _on_off(on: bool) -> str:
    return "on" if on else "off"
