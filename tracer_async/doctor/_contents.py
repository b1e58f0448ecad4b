"""What received bytes are: frames, echoes, text, Modbus, telnet, TLS. Pure functions."""

from __future__ import annotations

import re
from typing import NamedTuple

from tracer_async.protocol import START_UP, CommandCode, CorruptFrame, Frame, FrameDecoder

__all__ = [
    "MODBUS_REQUEST",
    "READ_REQUEST",
    "REQUEST",
    "Contents",
    "hexadecimal",
    "is_foreign_request",
    "is_reply",
    "is_request_data",
    "modbus_crc",
]

READ_REQUEST = Frame(0x16, CommandCode.READ_REALTIME, b"")
REQUEST = READ_REQUEST.encode()
"""The bytes of a reading with the ID of the protocol document. It changes nothing in the controller."""

_MIN_TEXT = 4

# IAC, and DO, DONT, WILL, WONT with an option, or a subnegotiation (RFC 854, RFC 2217: option 44).
_telnet = re.compile(rb"(?:\xff[\xfb-\xfe][\x00-\x32]|\xff\xfa.+?\xff\xf0)+", re.DOTALL)
# The header of an alert or a handshake message (RFC 8446, section 5.1).
_find_tls = re.compile(rb"\A[\x15\x16]\x03[\x00-\x04]").search
_is_text = re.compile(rb"[\x20-\x7e\r\n\t\x1b\x00]+").fullmatch


def is_reply(frame: Frame) -> bool:
    """Return whether *frame* is a reply to a reading."""
    return frame.command == CommandCode.READ_REALTIME and not is_request_data(frame.data)


def is_request_data(data: bytes) -> bool:
    """Return whether *data* of a frame A0 is that of a request: none, or one byte, as the MT-5 meter sends it."""
    return len(data) <= 1


def is_foreign_request(frame: Frame) -> bool:
    """Return whether *frame* is a request for a reading, and no echo of ours."""
    return frame.command == CommandCode.READ_REALTIME and is_request_data(frame.data) and frame != READ_REQUEST


def hexadecimal(data: bytes, most: int = 24) -> str:
    """Return *data* as evidence that fits on a line: the first *most* bytes, and the number of the others."""
    others = len(data) - most
    return data[:most].hex(" ").upper() + (f" and {others} more" if others > 0 else "")


class Contents(NamedTuple):
    """The parts of received bytes."""

    raw: bytes
    frames: list[Frame]
    """Good frames, without echoes of our request."""
    echoes: int
    """How often our own request came back."""
    damaged: int
    """Damaged frames."""
    telnet: bool
    text: str
    """Printable text outside of frames, without telnet commands. Empty if the other bytes are not text."""
    modbus: str
    """The beginning of a Modbus frame, in hexadecimal. Empty if there is none."""
    tls: bool
    rest: bytes
    """The bytes outside of good frames, without start-up bytes."""
    noise: bytes
    """The bytes outside of good and damaged frames, without start-up bytes."""

    @classmethod
    def of(cls, raw: bytes) -> Contents:
        """Return what *raw* consists of."""
        decoder = FrameDecoder()
        frames, rest, noise, damaged = [], b"", b"", 0
        for event in decoder.feed(raw) + decoder.flush():
            if isinstance(event, Frame):
                frames.append(event)
            else:
                rest += event.raw
                if isinstance(event, CorruptFrame):
                    damaged += 1
                else:
                    noise += event.raw
        others = [frame for frame in frames if frame != READ_REQUEST]
        rest = _without_own(rest)
        plain = _telnet.sub(b"", rest)
        return cls(
            raw=raw,
            frames=others,
            echoes=len(frames) - len(others),
            damaged=damaged,
            # At the beginning only: bytes of a wrong baud rate can look like a telnet command, but not all of them.
            telnet=_telnet.match(rest) is not None,
            text=_text(plain),
            modbus=_modbus(rest),
            tls=_find_tls(raw) is not None,
            rest=rest,
            noise=_without_own(noise),
        )

    @property
    def reply(self) -> Frame | None:
        """The first reply to a reading."""
        return next(filter(is_reply, self.frames), None)


def _without_own(data: bytes) -> bytes:
    return data.replace(START_UP, b"").replace(MODBUS_REQUEST, b"")


def _text(data: bytes) -> str:
    if len(data.strip()) < _MIN_TEXT or not _is_text(data):
        return ""
    return " ".join(data.decode("ascii").replace("\x00", "").split())


# Modbus: "MODBUS over serial line specification and implementation guide" V1.02, sections 2.5.1 and 6.2.2.


def modbus_crc(data: bytes) -> bytes:
    """Return the CRC of Modbus, low byte first: polynomial A001 (reflected), initial value FFFF."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


def _with_crc(body: bytes) -> bytes:
    return body + modbus_crc(body)


MODBUS_REQUEST = _with_crc(bytes.fromhex("01 04 3100 0001"))
"""Read one input register of unit 1: 3100, the PV voltage in later controllers. A reading that changes nothing."""

_READ_FUNCTIONS = (1, 2, 3, 4)
_FUNCTIONS = (*_READ_FUNCTIONS, 5, 6, 15, 16)


def _modbus(data: bytes) -> str:
    """Return the beginning of the first Modbus frame in *data*, in hexadecimal."""
    for at in range(len(data) - 4):
        unit, function = data[at], data[at + 1]
        if not 1 <= unit <= 247 or function & 0x7F not in _FUNCTIONS:
            continue
        sizes = [5] if function & 0x80 else [5 + data[at + 2], 8] if function in _READ_FUNCTIONS else [8]
        for size in sizes:
            frame = data[at : at + size]
            if len(frame) == size and modbus_crc(frame[:-2]) == frame[-2:]:
                return hexadecimal(frame)
    return ""
