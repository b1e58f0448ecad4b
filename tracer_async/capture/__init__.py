"""Captures of a serial line: read events (`read_capture`), or decode in bulk into NumPy arrays (`decode_capture`)."""

from tracer_async.capture._columns import Capture, decode_capture, decode_chunks
from tracer_async.capture._events import NOISE_PIECE, CapturedEvent, CaptureFormat, guess_format, read_capture
from tracer_async.capture._kinds import KINDS

__all__ = [
    "KINDS",
    "NOISE_PIECE",
    "Capture",
    "CaptureFormat",
    "CapturedEvent",
    "decode_capture",
    "decode_chunks",
    "guess_format",
    "read_capture",
]
