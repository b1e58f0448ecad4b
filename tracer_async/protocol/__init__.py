"""The MT-5 protocol without I/O: bytes in, values out. Nothing here knows an event loop, a socket or a clock."""

from tracer_async.protocol._answer import Answer
from tracer_async.protocol._request import Request
from tracer_async.protocol._windows import DUPLICATE_WINDOW, DUPLICATING_LINE_PERIOD, LATE_REPLY_WINDOW
from tracer_async.protocol.commands import Command, ManualControl, ReadRealtime, WriteSettings
from tracer_async.protocol.decoder import CorruptFrame, DecoderStats, Event, FrameDecoder, Noise, Reason
from tracer_async.protocol.exchange import Exchange, Match
from tracer_async.protocol.frame import END, MAX_DATA, OVERHEAD, START_UP, SYNC, CommandCode, Frame, crc16
from tracer_async.protocol.session import (
    Answered,
    Failed,
    LinkFailed,
    Session,
    SessionEvent,
    SessionOptions,
    SessionStats,
)
from tracer_async.protocol.values import BatteryType, ControlSettings, LoadMode, LoadState, RealtimeData

__all__ = [
    "DUPLICATE_WINDOW",
    "DUPLICATING_LINE_PERIOD",
    "END",
    "LATE_REPLY_WINDOW",
    "MAX_DATA",
    "OVERHEAD",
    "START_UP",
    "SYNC",
    "Answer",
    "Answered",
    "BatteryType",
    "Command",
    "CommandCode",
    "ControlSettings",
    "CorruptFrame",
    "DecoderStats",
    "Event",
    "Exchange",
    "Failed",
    "Frame",
    "FrameDecoder",
    "LinkFailed",
    "LoadMode",
    "LoadState",
    "ManualControl",
    "Match",
    "Noise",
    "ReadRealtime",
    "RealtimeData",
    "Reason",
    "Request",
    "Session",
    "SessionEvent",
    "SessionOptions",
    "SessionStats",
    "WriteSettings",
    "crc16",
]
