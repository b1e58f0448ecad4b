"""A bridge for old scripts: the classes, results and exceptions of ``tracermppt`` 0.3, the Python 2 package.

A script of it runs on Python 3 after a change of its import line::

    import tracer_async.compat as tracermppt

    tracer = tracermppt.Tracer("/dev/ttyUSB0")
    print(tracer.read_realtime()["battery_voltage"])

Behind it works the blocking client `tracer_async.sync.TracerClient`. So no late, doubled or damaged reply is taken for
an answer, requests are repeated, and a switch of the load is verified. These things differ from ``tracermppt``:

- A reading without an answer raises `TracerSyncTimeout` after about 5 s, not 1 s. A switch of the load takes at most
  about 26 s, and mostly 5 to 10 s, until it raises it: the command and the readings that verify it are repeated.
- If there is no connection, a call waits up to 5 s for one.
- A lost connection is opened again by the next call.
- Errors of the connection are `tracer_async.LinkError`, also an `OSError`; not ``serial.SerialException``.
- A serial port is opened exclusively, so another program cannot use it at the same time.
- `close` is new.

Write new scripts with `tracer_async.sync.TracerClient`.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from typing import Any, ClassVar

from tracer_async.errors import (
    AmbiguousReplyError,
    LoadRefusedError,
    LoadUnknownError,
    MalformedReplyError,
    ResponseTimeoutError,
    TracerError,
)
from tracer_async.protocol import Command, RealtimeData
from tracer_async.sync import TracerClient
from tracer_async.transport.address import SerialAddress, TcpAddress

__all__ = [
    "Commands",
    "NetTracer",
    "Tracer",
    "TracerCRCError",
    "TracerException",
    "TracerMalformedDataError",
    "TracerReadTimeout",
    "TracerSyncTimeout",
]


class Commands(Enum):
    """The commands of the protocol that ``tracermppt`` has."""

    ReadRealtime = 0xA0
    ManualControl = 0xAA


class TracerException(OSError):  # noqa: N818  # the names of tracermppt
    """Base class of the errors below. As in ``tracermppt``, errors of the connection are other OSErrors."""


class TracerSyncTimeout(TracerException):
    """The controller did not answer."""


class TracerReadTimeout(TracerException):
    """Bytes came, but no complete answer."""


class TracerCRCError(TracerException):
    """Damaged replies came, and no good one."""


class TracerMalformedDataError(TracerException):
    """The answer has a correct CRC but invalid data."""


class _Tracer:
    """What `Tracer` and `NetTracer` have in common."""

    def __init__(self, client: TracerClient, controller_id: int) -> None:
        self.controller_id = controller_id
        self._client = client
        # The outcome of the last `send`, for `read`.
        self._outcome: dict[str, Any] | Exception | None = None
        self._sent: Commands | None = None
        client.open()

    def read_realtime(self) -> dict[str, Any]:
        """Return the present measurements: volts, amperes, degrees Celsius, and bools.

        Raises a `TracerException`, or OSError if there is no connection.
        """
        try:
            return _realtime(self._client.read_realtime())
        except TracerError as error:
            raise _translated(error)  # noqa: B904  # it has its cause

    def set_load_on(self, on: object) -> dict[str, bool]:
        """Switch the load. Return ``{"load_on": ...}`` with its state afterwards, which the controller may refuse.

        Raises a `TracerException`, or OSError if there is no connection.
        """
        try:
            return {"load_on": bool(self._client.set_load(bool(on)))}
        except LoadRefusedError as refused:
            return {"load_on": refused.reading.load_on}
        except TracerError as error:
            raise _translated(error)  # noqa: B904  # it has its cause

    def send(self, cmd: Commands, args: str | bytes = b"") -> None:
        """Send a command, with binary data, and wait for its answer. `read` returns it, or raises what came instead.

        Raises OSError if there is no connection, or if it is lost.
        """
        data = args.encode("latin-1") if isinstance(args, str) else args
        self._sent, self._outcome = cmd, None
        try:
            if cmd is Commands.ManualControl:
                self._outcome = self.set_load_on(data != b"\x00")
            elif data:
                self._outcome = _realtime(self._client.execute(_ReadWithData(data)))
            else:
                self._outcome = self.read_realtime()
        except TracerException as error:
            self._outcome = error
        except TracerError as error:
            translated = _translated(error)
            if translated is error:
                raise
            self._outcome = translated

    def read(self, expected_cmd: Commands | None = None) -> dict[str, Any]:
        """Return the answer to the last `send`. Raises a `TracerException`."""
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None or (expected_cmd is not None and expected_cmd is not self._sent):
            raise TracerSyncTimeout("there is no answer to this command: call send() first")
        return outcome

    def close(self) -> None:
        """Close the connection. It is also closed when the object is deleted."""
        self._client.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # the constructor has failed
            self._client.close()


class Tracer(_Tracer):
    """A controller at a serial port. Raises OSError if the port cannot be opened."""

    def __init__(self, port: str, baud: int = 9600, controller_id: int = 0x16) -> None:
        url = str(SerialAddress(port, baudrate=baud))
        super().__init__(TracerClient(url, controller_id=controller_id), controller_id)


class NetTracer(_Tracer):
    """A controller behind a serial-to-TCP bridge. It connects when it is used."""

    def __init__(self, hostname: str, port: int, controller_id: int = 0x16) -> None:
        url = str(TcpAddress(hostname, port))
        super().__init__(TracerClient(url, controller_id=controller_id, start_offline=True), controller_id)


class _ReadWithData(Command[RealtimeData]):
    """A0 with data, which controllers ignore."""

    code: ClassVar[int] = Commands.ReadRealtime.value

    def __init__(self, data: bytes) -> None:
        self._data = data

    def to_bytes(self) -> bytes:
        return self._data

    def decode_reply(self, data: bytes) -> RealtimeData:
        return RealtimeData.from_bytes(data)


def _realtime(data: RealtimeData) -> dict[str, Any]:
    return {
        "battery_voltage": data.battery_voltage,
        "pv_voltage": data.pv_voltage,
        "load_current": data.load_current,
        "overdischarge_voltage": data.over_discharge_voltage,
        "battery_full_voltage": data.battery_full_voltage,
        "load_on": data.load_on,
        "overload": data.overload,
        "load_short": data.load_short_circuit,
        "battery_overload": data.battery_over_voltage,
        "over_discharge": data.over_discharge,
        "battery_full": data.battery_full,
        "charging": data.charging,
        "battery_temperature": data.battery_temperature,
        "charge_current": data.charge_current,
    }


def _translated(error: TracerError) -> Exception:
    """Return what ``tracermppt`` would raise. An error of the connection stays as it is: it is an OSError."""
    cause = error.__cause__ if isinstance(error, LoadUnknownError) else error
    kind: type[TracerException] = TracerSyncTimeout
    if isinstance(cause, MalformedReplyError):
        kind = TracerMalformedDataError
    elif isinstance(cause, ResponseTimeoutError):
        if not cause.frames and cause.damaged_frames:
            kind = TracerCRCError
        elif not cause.frames and cause.stray_bytes:
            kind = TracerReadTimeout
    elif not isinstance(error, LoadUnknownError | AmbiguousReplyError):
        return error
    translated = kind(str(error))
    translated.__cause__ = error
    return translated
