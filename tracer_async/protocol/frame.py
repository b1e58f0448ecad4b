"""Frames and their bytes.

``[start-up AA 55 x3] | sync EB 90 x3 | controller ID | command | length | data | CRC | 7F``

The CRC covers controller ID to the last data byte and is big-endian; integers within the data are little-endian.
Source of every constant here: the maker's "Protocol of Tracer series and MT-5", version 3.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from struct import Struct, unpack
from typing import NamedTuple

from tracer_async.protocol._numbers import check_whole

__all__ = ["END", "MAX_DATA", "OVERHEAD", "START_UP", "SYNC", "CommandCode", "Frame", "crc16"]

START_UP = b"\xaa\x55" * 3
"""Optional bytes before a request that wake a sleeping power line."""

SYNC = b"\xeb\x90" * 3
END = 0x7F
MAX_DATA = 200
"""Maximum number of data bytes in a frame."""

OVERHEAD = len(SYNC) + 3 + 2 + 1
"""Bytes of a frame that are not data: sync, ID, command, length, CRC and end byte."""

_POLYNOMIAL = 0x1041


class CommandCode(IntEnum):
    """The three commands of the protocol document."""

    READ_REALTIME = 0xA0
    MANUAL_CONTROL = 0xAA
    WRITE_SETTINGS = 0xAD


def _crc_table() -> list[int]:
    """Return the CRC of each 16-bit word: an XOR of the CRCs of its bits, so each bit doubles the table."""
    table = [0]
    crc = _POLYNOMIAL
    for _ in range(16):
        table += [crc ^ entry for entry in table]
        crc <<= 1
        if crc > 0xFFFF:
            crc ^= 0x10000 | _POLYNOMIAL
    return table


# The CRC is computed in 16-bit words, which takes half as many steps as bytes. The table is a list, because reading
# from an array creates a new int each time and takes twice as long. Building it takes a few milliseconds at import.
_TABLE = _crc_table()
_realtime_words: Callable[[bytes, int], tuple[int, ...]] = Struct(">14H").unpack_from


def crc16(data: bytes) -> int:
    """Return the CRC-16 of *data*: polynomial 0x1041, initial value 0, most significant bit first, no final XOR."""
    t = _TABLE
    if len(data) == 29:
        # Almost all frames are replies to A0: 3 bytes of header, 24 of data, 2 of CRC. Unrolling the loop for them
        # halves the time.
        a, b, c, d, e, f, g, h, i, j, k, l, m, n = _realtime_words(data, 1)  # noqa: E741  # the 14 words in order
        crc = t[t[t[t[t[t[t[t[data[0]] ^ a] ^ b] ^ c] ^ d] ^ e] ^ f] ^ g]
        return t[t[t[t[t[t[t[crc ^ h] ^ i] ^ j] ^ k] ^ l] ^ m] ^ n]
    odd = len(data) & 1
    crc = t[data[0]] if odd else 0
    for word in unpack(f">{len(data) >> 1}H", data[odd:]):
        crc = t[crc ^ word]
    return crc


class Frame(NamedTuple):
    """One frame, a request or a reply.

    ``controller_id`` identifies nothing in practice: requests have 16, 01 or 00 (hexadecimal), replies have 00 in every
    capture. ``command`` is an int; it equals a `CommandCode` if the protocol document has the command. ``data`` is 0 to
    200 bytes.
    """

    controller_id: int
    command: int
    data: bytes

    def encode(self, *, start_up: bool = True) -> bytes:
        """Return the bytes of the frame, with the start-up bytes before it unless *start_up* is false.

        Raises TypeError if the ID or the command is not a whole number, or if the data is not bytes, a bytearray or a
        memoryview. Raises ValueError if the ID or the command is not 0 to 255, or if the data is longer than 200 bytes.
        """
        controller_id, command = check_whole("controller_id", self.controller_id), check_whole("command", self.command)
        data: object = self.data
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        data = bytes(data)
        if len(data) > MAX_DATA:
            raise ValueError(f"data must be at most {MAX_DATA} bytes, not {len(data)}")
        body = bytes((controller_id, command, len(data))) + data
        checksum = crc16(body).to_bytes(2, "big")
        return (START_UP if start_up else b"") + SYNC + body + checksum + bytes((END,))

    def __repr__(self) -> str:
        return f"Frame({self.controller_id:#04x}, {self.command:#04x}, bytes.fromhex({self.data.hex()!r}))"
