"""A small writer of packet captures: TCP connections over Ethernet and IPv4, with the times that the test says."""

from __future__ import annotations

import struct
from pathlib import Path

_MAC = bytes(6) + bytes(6) + b"\x08\x00"
_SYN, _ACK, _PUSH = 0x02, 0x10, 0x08


class Conversation:
    """One TCP connection. Each segment is a packet."""

    def __init__(self, capture: Capture, client: int, server: int) -> None:
        self._capture = capture
        self._ports = {True: client, False: server}
        # The sequence number of the next byte, for the client (True) and the server.
        self._next = {True: 1000, False: 5000}
        self._packet(0.0, True, b"", _SYN)
        self._packet(0.0, False, b"", _SYN | _ACK)
        self._packet(0.0, True, b"", _ACK)

    def send(self, seconds: float, data: bytes, *, by_client: bool) -> int:
        """Add a segment. Return the number of its packet, from 1."""
        self._packet(seconds, by_client, data, _PUSH | _ACK)
        return self._capture.packets

    def _packet(self, seconds: float, by_client: bool, data: bytes, flags: int) -> None:
        sequence, acknowledged = self._next[by_client], self._next[not by_client]
        self._next[by_client] += len(data) + (1 if flags & _SYN else 0)
        source, target = (b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02")[:: 1 if by_client else -1]
        segment = struct.pack(
            "!HHIIBBHHH",
            self._ports[by_client],
            self._ports[not by_client],
            sequence,
            acknowledged if flags & _ACK else 0,
            5 << 4,
            flags,
            65535,
            0,
            0,
        )
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0, source, target)
        self._capture.add(seconds, _MAC + header + segment + data)


class Capture:
    """A capture in the format of libpcap, with nanoseconds."""

    def __init__(self) -> None:
        self._raw = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
        self.packets = 0

    def conversation(self, client: int = 40001, server: int = 40000) -> Conversation:
        return Conversation(self, client, server)

    def add(self, seconds: float, packet: bytes) -> None:
        whole, part = divmod(round(seconds * 1e9), 1_000_000_000)
        self._raw += struct.pack("<IIII", 1_700_000_000 + whole, part, len(packet), len(packet)) + packet
        self.packets += 1

    def write(self, path: Path) -> Path:
        path.write_bytes(self._raw)
        return path
