"""Damage to bytes, drawn by lot: functions of a frame and a source of random numbers, without I/O.

What they return is damaged for certain: no decoder finds a good frame in it. Garbage holds no byte 7F, with which every
frame ends, so that it never completes what stands before it.
"""

from __future__ import annotations

from random import Random

from tracer_async.protocol import END, SYNC, Frame, FrameDecoder

__all__ = ["cut", "flip", "frame_in", "garbage", "stray", "tear"]

# What is found between frames in captures: halves of sync and start-up bytes, and what an idle line makes.
_STRAY = b"\xeb\x90\xaa\x55\x00\xff"


def frame_in(raw: bytes | bytearray) -> Frame | None:
    """Return the first good frame in *raw*, None if there is none."""
    decoder = FrameDecoder()
    events = decoder.feed(raw) + decoder.flush()
    return next((event for event in events if isinstance(event, Frame)), None)


def flip(raw: bytes, random: Random) -> bytes:
    """Flip one bit to three bits anywhere in a frame."""
    while True:
        damaged = bytearray(raw)
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            bit = random.randrange(len(damaged) * 8)
            damaged[bit >> 3] ^= 1 << (bit & 7)
        # The CRC is weak, and two flips of the same bit are none.
        if frame_in(damaged) is None:
            return bytes(damaged)


def cut(raw: bytes, random: Random) -> bytes:
    """Cut off the end of a frame; at least one byte is left of it, and at least one is lost."""
    return raw[: random.randrange(1, len(raw))]


def tear(frame: Frame, older: bytes | None, random: Random) -> bytes:
    """Return the bytes of a frame that has its CRC, but the data of an *older* one.

    Where there is no older data, or it would not show, it is made up: another battery voltage, or the other state of
    the load. Raises ValueError for a frame without data.
    """
    if not frame.data:
        raise ValueError("a frame without data cannot be torn")
    raw = frame.encode(start_up=False)
    for data in (older, _made_older(frame.data, random)):
        if data is not None and len(data) == len(frame.data):
            torn = raw[: len(SYNC) + 3] + data + raw[-3:]
            if frame_in(torn) is None:
                return torn
    raise AssertionError("a change within 16 bits always shows in the CRC")


def _made_older(data: bytes, random: Random) -> bytes:
    if len(data) == 1:
        return bytes((data[0] ^ 1,))
    voltage = int.from_bytes(data[:2], "little")
    change = random.randint(1, 20)
    voltage += change if voltage < change else -change
    return voltage.to_bytes(2, "little") + data[2:]


def stray(random: Random) -> bytes:
    """Return a few bytes of the kind that comes between frames."""
    return bytes(random.choices(_STRAY, k=random.randint(1, 6)))


def garbage(size: int, random: Random) -> bytes:
    """Return *size* bytes without a frame in them, though headers of frames stand among them."""
    data = bytearray(random.randbytes(size).replace(bytes((END,)), b"\x00"))
    for at in range(random.randrange(256), size - len(SYNC), 256):
        data[at : at + len(SYNC)] = SYNC
    return bytes(data)
