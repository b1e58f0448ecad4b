"""Captures of a serial line: read events (`read_capture`), or decode in bulk into NumPy arrays (`decode_capture`).

Recordings are captures with times: write them (`Recorder`), and read them (`Recording`).
"""

from tracer_async.capture._anonymize import anonymized
from tracer_async.capture._columns import Capture, decode_capture, decode_chunks
from tracer_async.capture._events import NOISE_PIECE, CapturedEvent, CaptureFormat, guess_format, read_capture
from tracer_async.capture._json_lines import (
    Burst,
    DamagedLine,
    LinkChange,
    MissingRecords,
    Record,
    RecordingHeader,
    to_line,
)
from tracer_async.capture._kinds import KINDS
from tracer_async.capture._readings import readings_of
from tracer_async.capture._recorder import Recorder
from tracer_async.capture._recording import Recording

__all__ = [
    "KINDS",
    "NOISE_PIECE",
    "Burst",
    "Capture",
    "CaptureFormat",
    "CapturedEvent",
    "DamagedLine",
    "LinkChange",
    "MissingRecords",
    "Record",
    "Recorder",
    "Recording",
    "RecordingHeader",
    "anonymized",
    "decode_capture",
    "decode_chunks",
    "guess_format",
    "read_capture",
    "readings_of",
    "to_line",
]
