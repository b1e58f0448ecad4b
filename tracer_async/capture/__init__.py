"""Captures of a line: read event by event (`read_capture`), or decoded in bulk into NumPy arrays (`decode_capture`)."""

from tracer_async.capture.columns import KINDS, Capture, decode_capture, decode_chunks
from tracer_async.capture.events import NOISE_PIECE, CapturedEvent, CaptureFormat, guess_format, read_capture

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
