"""Random damage to bytes: functions of a frame and a random number generator, without I/O.

A decoder never finds a good frame in the bytes that they return. Garbage never contains 7F, the last byte of every
frame, so that it cannot complete a cut frame before it.
"""

from __future__ import annotations

from random import Random

from tracer_async.protocol import END, SYNC, Frame, FrameDecoder

__all__ = ["cut", "first_good_frame", "flip", "garbage", "stray", "tear"]

# Captures show these between frames: parts of sync and start-up bytes, and the 00 and FF of an idle line.
_STRAY = b"\xeb\x90\xaa\x55\x00\xff"


def first_good_frame(raw: bytes | bytearray) -> Frame | None:
    """Return the first good frame in *raw*, or None."""
    decoder = FrameDecoder()
    events = decoder.feed(raw) + decoder.flush()
    return next((event for event in events if isinstance(event, Frame)), None)


def flip(raw: bytes, random: Random) -> bytes:
    """Flip 1 to 3 bits of a frame."""
    while True:
        damaged = bytearray(raw)
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            bit = random.randrange(len(damaged) * 8)
            damaged[bit >> 3] ^= 1 << (bit & 7)
        # Try again if the frame is still good: the weak CRC misses some pairs of bits (those 210 bits apart), and two
        # flips of the same bit cancel out.
        if first_good_frame(damaged) is None:
            return bytes(damaged)


def cut(raw: bytes, random: Random) -> bytes:
    """Cut off the end of a frame. At least one byte remains, and at least one is missing."""
    return raw[: random.randrange(1, len(raw))]


def tear(frame: Frame, older: bytes | None, random: Random) -> bytes:
    """Return the bytes of *frame* with the data of an *older* one, but the CRC of its own data.

    If there is no older data, or if it is equal, the data is changed instead: to another battery voltage, or to the
    opposite load state. Raises ValueError for a frame without data.
    """
    if not frame.data:
        raise ValueError("a frame without data cannot be torn")
    raw = frame.encode(start_up=False)
    for data in (older, _changed_data(frame.data, random)):
        if data is not None and len(data) == len(frame.data):
            torn = raw[: len(SYNC) + 3] + data + raw[-3:]
            if first_good_frame(torn) is None:
                return torn
    raise AssertionError("a change within 16 bits always changes the CRC")


def _changed_data(data: bytes, random: Random) -> bytes:
    if len(data) == 1:
        return bytes((data[0] ^ 1,))
    # Only the first 16 bits change, so the CRC is certain to be wrong: it detects every error burst of up to 16 bits.
    voltage = int.from_bytes(data[:2], "little")
    change = random.randint(1, 20)
    voltage += change if voltage < change else -change
    return voltage.to_bytes(2, "little") + data[2:]


def stray(random: Random) -> bytes:
    """Return 1 to 6 bytes as captures show them between frames."""
    return bytes(random.choices(_STRAY, k=random.randint(1, 6)))


def garbage(size: int, random: Random) -> bytes:
    """Return *size* random bytes without a frame. They contain sync bytes, so that a decoder has to check them."""
    data = bytearray(random.randbytes(size).replace(bytes((END,)), b"\x00"))
    for at in range(random.randrange(256), size - len(SYNC), 256):
        data[at : at + len(SYNC)] = SYNC
    return bytes(data)
