"""The errors of the library. Misuse raises TypeError, ValueError or RuntimeError instead.

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

The text of an error says what failed, why (if that is known), and what to do. The attributes have the details.
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
    """Base class of all errors of this library."""


class AddressError(TracerError, ValueError):
    """The URL is not a valid address of a controller. The text says what is wrong and how to write it."""


class MissingExtraError(TracerError, ImportError):
    """A package of the optional extra ``extra`` is not installed. The text has the command to install it."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs a package that is not installed: pip install 'tracer-async[{extra}]'")
        self.extra = extra


class CaptureError(TracerError, ValueError):
    """A file is not a capture in the expected format."""


class LinkError(TracerError, ConnectionError):
    """There is no working connection to the controller. Raised directly if no subclass fits.

    ``address`` is the URL of the controller, ``reason`` the text of the error without the URL.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason


class PortNotFoundError(LinkError, FileNotFoundError):
    """The serial port, or the Unix socket, does not exist."""


class PortPermissionError(LinkError, PermissionError):
    """This user has no permission to open the serial port or the Unix socket."""


class PortBusyError(LinkError):
    """Another program has the serial port open."""


class HostNotFoundError(LinkError):
    """The host name cannot be resolved to an address."""


class LinkRefusedError(LinkError, ConnectionRefusedError):
    """No program listens at this address.

    Only `TracerClient.open` raises it. A request that waits for a reconnection fails with `LinkTimeoutError` instead.
    """


class LinkTimeoutError(LinkError, TimeoutError):
    """There was no connection in time on which the request could be sent.

    `TracerClient.open` raises it if an attempt to connect takes longer than ``connect_timeout``. A request raises it if
    it waited for a connection for ``connect_timeout`` seconds, whatever the reason, or if more than ``retries``
    connections were lost before it could be sent. Then the text names the last error ("refused", for example), and
    ``__cause__`` is that error: a `LinkRefusedError`, for example, or None if none is known.
    """


class TlsError(LinkError):
    """The TLS handshake failed: the other side does not speak TLS, or its certificate was not accepted."""


class LinkLostError(LinkError):
    """The connection was lost while the request was in flight.

    A command that must not be sent twice fails at the first loss. It may have been executed. Other requests are sent
    again, and fail if no retries are left.
    """


class LinkFloodedError(LinkError):
    """The other side sends unsolicited bytes faster than any serial line: it is not a controller."""


class LinkClosedError(LinkError):
    """The client is closed, or was never opened."""


class ResponseTimeoutError(TracerError, TimeoutError):
    """The controller did not answer.

    ``command`` is the command byte of the request, ``attempts`` how often it was sent, and ``waited`` the seconds since
    it was sent first. In that time, ``frames`` good frames other than its echoes, ``damaged_frames`` damaged frames and
    ``stray_bytes`` bytes outside of good frames were received.

    Before some commands the client takes a reading. If that reading is not answered, the command is not sent, and
    ``unsent`` is its command byte. Otherwise ``unsent`` is None.
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
    """Only the request itself was received: the adapter echoes, or TX is wired to RX, and no controller answers.

    ``frames`` is the number of echoes.
    """

    @property
    def hint(self) -> str:
        """What was received instead of the answer, and what to check."""
        return (
            "Only an echo of the request came back: the adapter echoes, or its TX is wired to its own RX. "
            "Check the wiring, and that the controller is powered."
        )


class AmbiguousReplyError(TracerError):
    """The reply may belong to another request, so the command may have been executed or not.

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
    """The reply has a correct CRC but invalid data. The connection stays open.

    ``command`` is the command byte, ``raw`` the data of the reply, and ``reason`` what is wrong with it. ``unsent`` has
    the same meaning as for `ResponseTimeoutError`.
    """

    def __init__(self, address: str, command: int, raw: bytes, reason: str, *, unsent: int | None = None) -> None:
        consequence = "" if unsent is None else f". Command {unsent:02X} was not sent."
        super().__init__(f"{address}: malformed reply to command {command:02X}: {reason}{consequence}")
        self.address = address
        self.command = command
        self.raw = raw
        self.reason = reason
        self.unsent = unsent


class LoadError(TracerError):
    """The load is not in the requested state, or its state is unknown."""


class LoadRefusedError(LoadError):
    """The controller did not switch the load.

    ``wanted`` is the requested state, ``reading`` the reading that was taken after the command.
    """

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
    """The state of the load is unknown, or it is not the requested one for an unknown reason.

    ``wanted`` is the requested state. ``reading`` is the last reading taken after the last command, or None. ``sent``
    is whether the command was sent, ``answered`` whether it was certainly answered when it was sent last.
    """

    def __init__(
        self,
        address: str,
        wanted: bool,
        reading: RealtimeData | None = None,
        *,
        sent: bool = True,
        answered: bool = False,
        cause: TracerError | None = None,
    ) -> None:
        state = _on_off(wanted)
        hint = f". {cause.hint}" if isinstance(cause, ResponseTimeoutError) else ""
        why = None if cause is None or hint else _sentence(cause)
        if not sent:
            why = why or "the controller does not answer."
            text = f"cannot switch the load {state}: {why} The command was not sent{hint}"
        elif reading is None:
            if why:
                what = f"the command was sent, but the state could not be read back: {why}"
            elif answered:
                what = "the command was answered, but not the reading after it that verifies the state."
            else:
                what = "neither the command nor a reading after it got a certain answer."
            text = f"cannot tell whether the load is {state}: {what} It may be on or off{hint}"
        else:
            text = (
                f"the load is {_on_off(reading.load_on)} after the command to switch it {state}, and no answer tells "
                f"whether the controller received the command{hint}"
            )
            if why:
                text += f". The command could not be sent again: {why}"
        super().__init__(f"{address}: {text}")
        self.address = address
        self.wanted = wanted
        self.reading = reading
        self.sent = sent
        self.answered = answered
        self.__cause__: BaseException | None = cause


def _sentence(error: TracerError) -> str:
    """Return the text of *error* without the address and without what was not sent, as a sentence."""
    if isinstance(error, MalformedReplyError):
        text = f"malformed reply to command {error.command:02X}: {error.reason}"
    else:
        text = error.reason if isinstance(error, LinkError) else str(error)
    return text if text.endswith((".", "?")) else f"{text}."


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def _on_off(on: bool) -> str:
    return "on" if on else "off"
