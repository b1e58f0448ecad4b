"""The bytes that are decoded and exchanged: replies to A0 as a controller makes them, 36 bytes each, all different."""

from __future__ import annotations

import random
from functools import cache

from tracer_async.protocol import SYNC, CommandCode, Frame

REPLY_SIZE = 36
REQUEST = Frame(0x16, CommandCode.READ_REALTIME, b"").encode()
"""18 bytes, with the start-up bytes in front, as the client sends it."""

# Modbus TCP, for the peers: as many registers as needed for the 24 data bytes of a reply.
REGISTERS = 12
_MODBUS_REPLY = bytes((0, 0, 0, 3 + 2 * REGISTERS, 1, 3, 2 * REGISTERS)) + bytes(range(2 * REGISTERS))


@cache
def replies(count: int, seed: int = 1) -> tuple[bytes, ...]:
    """Return *count* replies of a controller over a day."""
    rng = random.Random(seed)

    def word(low: int, high: int) -> bytes:
        return rng.randint(low, high).to_bytes(2, "little")

    made = []
    for _ in range(count):
        data = (
            word(1100, 1460)  # battery voltage
            + word(20, 9000)  # PV voltage
            + bytes(2)
            + word(0, 1000)  # load current
            + word(1080, 1110)
            + word(1400, 1480)
            + bytes((rng.randint(0, 1), 0, 0, rng.randint(0x14, 0x60), 0, 0, rng.randint(0, 1), rng.randint(0, 1)))
            + bytes((rng.randint(20, 70),))
            + word(0, 2000)  # charge current
            + bytes(1)
        )
        made.append(Frame(0x00, CommandCode.READ_REALTIME, data).encode(start_up=False))
    return tuple(made)


def answer(request: bytes | memoryview, number: int) -> bytes:
    """Return a reply to one request: Modbus to a Modbus request, which begins with its number, else a controller's."""
    if request[0] in (0xAA, 0xEB):
        return _ANSWERS[number & 255]
    return bytes(request[:2]) + _MODBUS_REPLY


_ANSWERS = replies(256)


def damaged(stream: bytes, share: float, seed: int = 2) -> bytes:
    """Return *stream* with that share of its bytes, at random places, replaced by others."""
    rng = random.Random(seed)
    bad = bytearray(stream)
    for place in rng.sample(range(len(bad)), round(share * len(bad))):
        bad[place] ^= rng.randint(1, 255)
    return bytes(bad)


def cut(stream: bytes, size: int) -> list[bytes]:
    """Cut *stream* into chunks of *size* bytes."""
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def cut_at_random(stream: bytes, longest: int, seed: int = 3) -> list[bytes]:
    """Cut *stream* into chunks of 1 to *longest* bytes."""
    rng = random.Random(seed)
    chunks = []
    at = 0
    while at < len(stream):
        size = rng.randint(1, longest)
        chunks.append(stream[at : at + size])
        at += size
    return chunks


def hostile(unit: bytes, size: int) -> bytes:
    """Return *size* bytes of repeated *unit*. If it is empty, return random bytes."""
    if not unit:
        return random.Random(4).randbytes(size)
    return (unit * (size // len(unit) + 1))[:size]


def ending_in_7f(length: int, filler: int = 0) -> bytes | None:
    """Return a unit of bytes which, repeated, is headers that claim *length* bytes, each with 7F where its frame ends.

    Every end byte is right, so every CRC has to be computed, and is wrong. ID, command and *filler* bytes after the
    header are 7F; None if no 7F falls on the end of the frame.
    """
    unit = SYNC + bytes((0x7F, 0x7F, length)) + b"\x7f" * filler
    return unit if unit[(11 + length) % len(unit)] == 0x7F else None


def overlapping_7f() -> bytes:
    """Return the densest such unit: headers of 7 bytes, whose command and length are the next one's EB 90.

    A length of 90 (hexadecimal) is 144. The byte 149 after an ID is an ID again, because one of the 21 is 9 long.
    """
    return (SYNC + b"\x7f") * 20 + SYNC + b"\x7f\xa0\x90"


HOSTILE = {
    "headers claiming 200 bytes, back to back": SYNC + bytes((0x00, 0xA0, 200)),
    "only EB 90": b"\xeb\x90",
    "only EB": b"\xeb",
    "random": b"",
    "headers whose claim ends in 7F, overlapping": overlapping_7f(),
}
