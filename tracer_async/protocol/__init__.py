"""The MT-5 protocol without I/O: bytes in, values out. Nothing here knows an event loop, a socket or a clock."""

from tracer_async.protocol.commands import Command, ManualControl, ReadRealtime, WriteSettings
from tracer_async.protocol.decoder import CorruptFrame, DecoderStats, Event, FrameDecoder, Noise, Reason
from tracer_async.protocol.exchange import ECHO, HORIZON, WARY, Exchange, Match
from tracer_async.protocol.frame import END, MAX_DATA, OVERHEAD, START_UP, SYNC, CommandCode, Frame, crc16
from tracer_async.protocol.values import BatteryType, ControlSettings, LoadMode, LoadState, RealtimeData

__all__ = [
    "ECHO",
    "END",
    "HORIZON",
    "MAX_DATA",
    "OVERHEAD",
    "START_UP",
    "SYNC",
    "WARY",
    "BatteryType",
    "Command",
    "CommandCode",
    "ControlSettings",
    "CorruptFrame",
    "DecoderStats",
    "Event",
    "Exchange",
    "Frame",
    "FrameDecoder",
    "LoadMode",
    "LoadState",
    "ManualControl",
    "Match",
    "Noise",
    "ReadRealtime",
    "RealtimeData",
    "Reason",
    "WriteSettings",
    "crc16",
]
