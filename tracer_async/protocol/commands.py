"""The commands: each encodes its request and decodes its reply.

No other module of the library has to know the data of a command, so an application can add its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from tracer_async.protocol._numbers import check_flag
from tracer_async.protocol.frame import CommandCode
from tracer_async.protocol.values import ControlSettings, LoadState, RealtimeData

__all__ = ["Command", "ManualControl", "ReadRealtime", "WriteSettings"]

R = TypeVar("R")


class Command(ABC, Generic[R]):
    """A request with the type of its answer. Subclass it for a command that the protocol document does not have."""

    __slots__ = ()

    code: ClassVar[int]
    """The command byte, of the request and of its reply."""
    repeatable: ClassVar[bool] = True
    """Whether the client sends it again if no answer comes. False for a command that must not be executed twice."""
    urgent: ClassVar[bool] = False
    """Whether it is sent before queued requests that are not urgent."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Return the data bytes of the request."""

    @abstractmethod
    def decode_reply(self, data: bytes) -> R:
        """Decode the data bytes of a reply. Raise ValueError if they are invalid."""


@dataclass(frozen=True, slots=True)
class ReadRealtime(Command[RealtimeData]):
    """A0: read the real-time data."""

    code: ClassVar[int] = CommandCode.READ_REALTIME

    def to_bytes(self) -> bytes:
        """Return no bytes. The MT-5 meter sends one byte, 03, which has no effect."""
        return b""

    def decode_reply(self, data: bytes) -> RealtimeData:
        """See `RealtimeData.from_bytes`."""
        return RealtimeData.from_bytes(data)


@dataclass(frozen=True, slots=True)
class ManualControl(Command[LoadState]):
    """AA: switch the load. It works only in the manual load mode, and while no protection is active.

    A bool, or 0 or 1, becomes a `LoadState`. Raises TypeError for a value that is not an int, ValueError for another
    int.
    """

    load: LoadState
    code: ClassVar[int] = CommandCode.MANUAL_CONTROL
    # A user waits for a switch. The readings that are queued may wait.
    urgent: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "load", LoadState(check_flag("load", self.load)))  # the dataclass is frozen

    def to_bytes(self) -> bytes:
        """Return the requested state as one byte."""
        return self.load.to_bytes()

    def decode_reply(self, data: bytes) -> LoadState:
        """Return the present state of the load, which may not be the requested one."""
        return LoadState.from_bytes(data)


@dataclass(frozen=True, slots=True)
class WriteSettings(Command[None]):
    """AD: write the control settings. The client never sends it twice."""

    settings: ControlSettings
    code: ClassVar[int] = CommandCode.WRITE_SETTINGS
    # No command reads the settings back, so nothing shows whether an unanswered write was executed. The caller decides
    # whether to write again.
    repeatable: ClassVar[bool] = False
    urgent: ClassVar[bool] = True

    def to_bytes(self) -> bytes:
        """Return the 7 bytes of the settings."""
        return self.settings.to_bytes()

    def decode_reply(self, data: bytes) -> None:
        """Accept a reply without data. Raises ValueError for any other."""
        if data:
            raise ValueError(f"the reply to a write of settings has no data, not {len(data)} bytes")
