"""Reference decoders for the comparison: three in Python, written in the usual ways, and one in C.

Each takes chunks of bytes with ``feed`` and returns the good frames that they complete, as ``(ID, command, data)``; the
C decoder returns how many it wrote into its memory. They check what the project's decoder checks: sync bytes, length,
CRC, end byte.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path

Found = tuple[int, int, bytes]

_POLYNOMIAL = 0x1041


def crc_bit_by_bit(data: bytes | bytearray) -> int:
    """Return the CRC a bit at a time, for the tables."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ _POLYNOMIAL if crc & 0x8000 else crc << 1
            crc &= 0xFFFF
    return crc


def crc_of_the_document(data: bytes) -> int:
    """Return the CRC as the maker's document shifts it through byte registers, and the old program with it."""
    padded = data + bytes(2)
    high, low = padded[0], padded[1]
    for at in range(2, len(padded)):
        following = padded[at]
        for _ in range(8):
            before = high
            high = (high << 1) & 0xFF
            if low & 0x80 != 0:
                high = (high + 1) & 0xFF
            low = (low << 1) & 0xFF
            if following & 0x80 != 0:
                low = (low + 1) & 0xFF
            following = (following << 1) & 0xFF
            if before & 0x80 != 0:
                high ^= 0x10
                low ^= 0x41
    return high << 8 | low


class OldDecoder:
    """The old program's algorithm: one read per byte except for the data, a bitwise CRC, bad frames dropped whole.

    As in that program, a read is a slice of a buffer of received bytes. Where that program waits for a socket, this
    one yields. It does not log each read in hexadecimal, as that program does.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._frames: list[Found] = []
        self._reader = self._read_frames()
        next(self._reader)

    def feed(self, data: bytes) -> list[Found]:
        """Feed received bytes; return the frames they complete."""
        self._frames = []
        for at in range(0, len(data), 1024):
            self._buffer += data[at : at + 1024]
            next(self._reader)
        return self._frames

    def _receive(self, size: int) -> Generator[None, None, bytes]:
        while len(self._buffer) < size:
            yield
        data = self._buffer[:size]
        self._buffer = self._buffer[size:]
        return data

    def _read_byte(self) -> Generator[None, None, int]:
        return (yield from self._receive(1))[0]

    def _read_frames(self) -> Generator[None, None, None]:
        sync = b"\xeb\x90\xeb\x90\xeb\x90"
        while True:
            seen = 0
            while seen < len(sync):
                byte = yield from self._receive(1)
                seen = seen + 1 if byte == sync[seen : seen + 1] else 0
            controller_id = yield from self._read_byte()
            command = yield from self._read_byte()
            length = yield from self._read_byte()
            data = yield from self._receive(length)
            sent = yield from self._receive(2)
            if crc_of_the_document(bytes((controller_id, command, length)) + data) == int.from_bytes(sent, "big"):
                end = yield from self._read_byte()
                if end == 0x7F:
                    self._frames.append((controller_id, command, data))


def _byte_table() -> list[int]:
    return [crc_bit_by_bit(bytes((byte,))) for byte in range(256)]


class StateMachine:
    """The usual way on a microcontroller: a state for each byte, the CRC carried along through a table of 256."""

    def __init__(self) -> None:
        self._table = _byte_table()
        self._state = 0
        self._crc = 0
        self._body = bytearray()
        self._left = 0
        self._sent = 0

    def feed(self, data: bytes) -> list[Found]:
        """Feed received bytes; return the frames they complete."""
        frames: list[Found] = []
        table = self._table
        for byte in data:
            state = self._state
            if state < 6:  # within the sync bytes
                if byte == (0xEB, 0x90)[state & 1]:
                    self._state = state + 1
                else:
                    self._state = int(byte == 0xEB)
            elif state == 10:  # within the data
                self._body.append(byte)
                self._crc = (self._crc << 8 & 0xFFFF) ^ table[self._crc >> 8 ^ byte]
                self._left -= 1
                if not self._left:
                    self._state = 11
            elif state == 6:
                self._body = bytearray((byte,))
                self._crc = table[byte]
                self._state = 7
            elif state == 7:
                self._body.append(byte)
                self._crc = (self._crc << 8 & 0xFFFF) ^ table[self._crc >> 8 ^ byte]
                self._state = 8
            elif state == 8:
                self._crc = (self._crc << 8 & 0xFFFF) ^ table[self._crc >> 8 ^ byte]
                self._left = byte
                self._state = 0 if byte > 200 else 10 if byte else 11
            elif state == 11:
                self._sent = byte << 8
                self._state = 12
            elif state == 12:
                self._sent |= byte
                self._state = 13
            else:
                if byte == 0x7F and self._sent == self._crc:
                    frames.append((self._body[0], self._body[1], bytes(self._body[2:])))
                self._state = 0
        return frames


def _word_table() -> array[int]:
    return array("H", (crc_bit_by_bit(word.to_bytes(2, "big")) for word in range(1 << 16)))


class HeaderRegex:
    """A regular expression finds the headers; the CRC goes through 16-bit words and an ``array('H')`` of 65,536."""

    _header = re.compile(rb"\xeb\x90\xeb\x90\xeb\x90(?s:(.)(.)(.))")

    def __init__(self) -> None:
        self._table = _cached_word_table()
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Found]:
        """Feed received bytes; return the frames they complete."""
        frames: list[Found] = []
        held = self._held
        held += data
        at = 0
        while True:
            header = self._header.search(held, at)
            if header is None:
                at = max(at, len(held) - 8)
                break
            at = header.start()
            length = held[at + 8]
            stop = at + 12 + length
            if length <= 200 and stop > len(held):
                break
            if (
                length <= 200
                and held[stop - 1] == 0x7F
                and self._crc(held[at + 6 : stop - 3]) == (held[stop - 3] << 8 | held[stop - 2])
            ):
                frames.append((held[at + 6], held[at + 7], bytes(held[at + 9 : stop - 3])))
                at = stop
            else:
                at += 1
        del held[:at]
        return frames

    def _crc(self, body: bytearray) -> int:
        if len(body) & 1:
            body.insert(0, 0)  # a leading zero leaves a CRC that begins with 0 as it is
        words = array("H", bytes(body))
        if sys.byteorder == "little":
            words.byteswap()
        table = self._table
        crc = 0
        for word in words:
            crc = table[crc ^ word]
        return crc


_cached_word_table = cache(_word_table)


@cache
def compiler() -> str | None:
    """Return the C compiler, if there is one."""
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


@cache
def _library() -> ctypes.CDLL:
    name = compiler()
    assert name is not None
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "reference.so")
        source = Path(__file__).with_suffix(".c")
        subprocess.run([name, "-O2", "-shared", "-fPIC", "-o", made, source], check=True)
        library = ctypes.CDLL(str(made))
    library.decoder_size.restype = ctypes.c_size_t
    library.decoder_init.argtypes = [ctypes.c_char_p]
    library.decoder_feed.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    library.decoder_feed.restype = ctypes.c_size_t
    return library


class CDecoder:
    """The decoder of ``reference.c``, compiled on the spot."""

    def __init__(self) -> None:
        library = _library()
        self._memory = ctypes.create_string_buffer(library.decoder_size())
        library.decoder_init(self._memory)
        self._feed: Callable[[object, bytes, int], int] = library.decoder_feed

    def feed(self, data: bytes) -> range:
        """Feed received bytes, 64 KiB at most; return as many items as frames were completed."""
        return range(self._feed(self._memory, data, len(data)))
