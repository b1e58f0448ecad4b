"""The commands as data: what each asks, and what type its answer has."""

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
    """A request with the type of its answer; subclass it to ask something that the document does not have."""

    __slots__ = ()

    code: ClassVar[int]
    """The command byte, of the request and of its reply."""
    repeatable: ClassVar[bool] = True
    """Whether it may be sent again when no answer came, without the user being asked."""
    urgent: ClassVar[bool] = False
    """Whether it goes before queued commands that are not urgent."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Return the data bytes of the request."""

    @abstractmethod
    def decode_reply(self, data: bytes) -> R:
        """Return the answer that a reply's data bytes hold; raise ValueError if they hold none."""


@dataclass(frozen=True, slots=True)
class ReadRealtime(Command[RealtimeData]):
    """A0: read the real-time data."""

    code: ClassVar[int] = CommandCode.READ_REALTIME

    def to_bytes(self) -> bytes:
        """Return no bytes (the MT-5 meter sends one, 03, which changes nothing)."""
        return b""

    def decode_reply(self, data: bytes) -> RealtimeData:
        """See `RealtimeData.from_bytes`."""
        return RealtimeData.from_bytes(data)


@dataclass(frozen=True, slots=True)
class ManualControl(Command[LoadState]):
    """AA: switch the load. The controller follows only in its manual load mode, and no protection may be active.

    A bool, or 0 or 1, becomes a `LoadState`. Raises TypeError for anything that is no int, ValueError for another int.
    """

    load: LoadState
    code: ClassVar[int] = CommandCode.MANUAL_CONTROL
    urgent: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "load", LoadState(check_flag("load", self.load)))  # the dataclass is frozen

    def to_bytes(self) -> bytes:
        """Return the wanted state as one byte."""
        return self.load.to_bytes()

    def decode_reply(self, data: bytes) -> LoadState:
        """Return the state that the load is in now, wanted or not."""
        return LoadState.from_bytes(data)


@dataclass(frozen=True, slots=True)
class WriteSettings(Command[None]):
    """AD: write the control settings. Never repeated by itself."""

    settings: ControlSettings
    code: ClassVar[int] = CommandCode.WRITE_SETTINGS
    repeatable: ClassVar[bool] = False
    urgent: ClassVar[bool] = True

    def to_bytes(self) -> bytes:
        """Return the settings' 7 bytes."""
        return self.settings.to_bytes()

    def decode_reply(self, data: bytes) -> None:
        """Accept a reply without data, the only one that there is."""
        if data:
            raise ValueError(f"the reply to written settings has no data, not {len(data)} bytes")
