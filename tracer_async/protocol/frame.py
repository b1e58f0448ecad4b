"""Frames and their bytes.

``[start-up AA 55 x3] | sync EB 90 x3 | controller ID | command | length | data | CRC | 7F``

The CRC covers controller ID to the last data byte and is big-endian; integers within the data are little-endian.
Source of every constant here: the maker's "Protocol of Tracer series and MT-5", version 3.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct, unpack
from typing import NamedTuple

__all__ = ["END", "MAX_DATA", "OVERHEAD", "START_UP", "SYNC", "CommandCode", "Frame", "crc16"]

START_UP = b"\xaa\x55" * 3
"""Optional bytes before a request that wake a sleeping power line."""

SYNC = b"\xeb\x90" * 3
END = 0x7F
MAX_DATA = 200
"""The most data bytes a frame may carry."""

OVERHEAD = len(SYNC) + 3 + 2 + 1
"""Bytes of a frame that are not data: sync, ID, command, length, CRC and end byte."""

_POLYNOMIAL = 0x1041


class CommandCode(IntEnum):
    """The three commands that the protocol document knows."""

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


# A word at a time takes half the steps of a byte at a time. A list, because reading one is twice as fast as reading an
# array, which has to make an int of each entry anew; it is made in a few milliseconds at import.
_TABLE = _crc_table()
_realtime_words = Struct(">14H").unpack_from


def crc16(data: bytes) -> int:
    """Return the CRC-16 of *data*: polynomial 0x1041, initial value 0, most significant bit first, no final XOR."""
    table = _TABLE
    crc = 0
    odd = len(data) & 1
    if odd:
        crc = table[data[0]]
    # What is checked of the reply that nearly all frames are (29 bytes: 3 of header, 24 of data, the CRC) has its
    # format compiled.
    words = _realtime_words(data, 1) if len(data) == 29 else unpack(f">{len(data) >> 1}H", data[odd:])
    for word in words:
        crc = table[crc ^ word]
    return crc


class Frame(NamedTuple):
    """One frame, either direction.

    ``controller_id`` means nothing in practice: requests carry 16, 01 or 00 (hexadecimal), replies carry 00 in every
    capture. ``command`` is an int, equal to a `CommandCode` where it is one of the document's; ``data`` is 0 to 200
    bytes.
    """

    controller_id: int
    command: int
    data: bytes

    def encode(self, *, start_up: bool = True) -> bytes:
        """Return the bytes for the wire, preceded by the start-up bytes unless *start_up* is false.

        Raises ValueError if the ID or the command is not a byte, or the data is longer than 200 bytes.
        """
        for name, value in (("controller_id", self.controller_id), ("command", self.command)):
            if not 0 <= value <= 0xFF:
                raise ValueError(f"{name} must be 0 to 255, not {value}")
        if len(self.data) > MAX_DATA:
            raise ValueError(f"a frame carries at most {MAX_DATA} data bytes, not {len(self.data)}")
        body = bytes((self.controller_id, self.command, len(self.data))) + self.data
        checksum = crc16(body).to_bytes(2, "big")
        return (START_UP if start_up else b"") + SYNC + body + checksum + bytes((END,))

    def __repr__(self) -> str:
        return f"Frame({self.controller_id:#04x}, {self.command:#04x}, bytes.fromhex({self.data.hex()!r}))"
