"""Counters of what a capture contains."""

from __future__ import annotations

from dataclasses import dataclass

from tracer_async.capture import Capture, CapturedEvent
from tracer_async.protocol import OVERHEAD, START_UP, CorruptFrame, Frame, Noise

__all__ = ["CaptureCounts", "counted", "start_up_size"]


@dataclass(slots=True)
class CaptureCounts:
    """Frames, the readings among them, and the bytes that belong to no good frame. Start-up bytes are not noise."""

    frames: int = 0
    readings: int = 0
    damaged: int = 0
    damaged_bytes: int = 0
    noise_bytes: int = 0
    start_up_bytes: int = 0
    bytes: int = 0

    def count(self, captured: CapturedEvent) -> None:
        """Count one event, but not the readings."""
        self.bytes += captured.size
        match captured.event:
            case Frame():
                self.frames += 1
            case CorruptFrame(raw):
                self.damaged += 1
                self.damaged_bytes += len(raw)
            case Noise(raw):
                start_up = start_up_size(raw)
                self.start_up_bytes += start_up
                self.noise_bytes += len(raw) - start_up

    def count_chunk(self, chunk: Capture) -> None:
        """Count what was decoded in bulk."""
        self.frames += len(chunk.frames)
        self.readings += len(chunk.readings)
        self.bytes += OVERHEAD * len(chunk.frames) + int(chunk.frames["length"].sum())
        for captured in chunk.events():
            self.count(captured)

    def __str__(self) -> str:
        damage = f"{self.damaged} damaged ({counted(self.damaged_bytes, 'byte')})" if self.damaged else "no damage"
        noise = f"{counted(self.noise_bytes, 'byte')} of noise" if self.noise_bytes else "no noise"
        start_up = f", {counted(self.start_up_bytes, 'start-up byte')}" if self.start_up_bytes else ""
        return f"{counted(self.frames, 'frame')}, {damage}, {noise}{start_up}: {self.bytes} bytes in all"


def start_up_size(noise: bytes) -> int:
    """Return how many bytes at the end of *noise* are start-up bytes of a request, the last ones of them at least."""
    if len(noise) > 1 and START_UP.endswith(noise):
        return len(noise)
    return len(START_UP) if noise.endswith(START_UP) else 0


def counted(number: int, what: str, plural: str = "") -> str:
    """Return *number* with its noun in the singular or plural."""
    return f"{number} {what}" if number == 1 else f"{number} {plural or f'{what}s'}"
