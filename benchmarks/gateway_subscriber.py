"""Receives the states that the gateway publishes, and notes when: ``python -m benchmarks.gateway_subscriber PORT``.

A client of MQTT 3.1.1 in a process of its own that does nothing but receive: what it does with the messages, it does at
the end. It prints "ready" when it is subscribed. At the line "report" on standard input it prints
``[[name, PV voltage in hundredths, seconds since "time"], ...]``.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from benchmarks.measure import say

_CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04judg"
_TOPIC = b"tracer/+/state"
_SUBSCRIBE = b"\x82" + bytes([5 + len(_TOPIC)]) + b"\x00\x01" + len(_TOPIC).to_bytes(2, "big") + _TOPIC + b"\x00"
_PUBLISH = 3


def main(port: int) -> None:
    """Receive until told to report."""
    received: list[tuple[float, bytes]] = []
    with socket.create_connection(("127.0.0.1", port)) as connection, selectors.DefaultSelector() as selector:
        connection.sendall(_CONNECT + _SUBSCRIBE)
        selector.register(connection, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        say("ready")
        while not any(key.fileobj is sys.stdin for key, _ in selector.select()):
            data = connection.recv(1 << 18)
            received.append((time.time(), data))
    say(list(states(received)))


def states(received: list[tuple[float, bytes]]) -> Iterator[tuple[str, int, float]]:
    """Decode what was received. A state arrived when its last byte did."""
    for arrived, topic, payload in publications(received):
        _, name, kind = topic.split("/")
        if kind == "state" and name != "bridge":
            state: dict[str, Any] = json.loads(payload)
            made = datetime.fromisoformat(state["time"]).timestamp()
            yield name, round(state["pv_voltage"] * 100), arrived - made


def publications(received: list[tuple[float, bytes]]) -> Iterator[tuple[float, str, bytes]]:
    """Return time, topic and payload of each PUBLISH packet with QoS 0."""
    pending = b""
    for arrived, data in received:
        pending += data
        at = 0
        while (packet := _packet(pending, at)) is not None:
            kind, body, at = packet
            if kind == _PUBLISH:
                size = int.from_bytes(body[:2], "big")
                yield arrived, body[2 : 2 + size].decode(), body[2 + size :]
        pending = pending[at:]


def _packet(data: bytes, at: int) -> tuple[int, bytes, int] | None:
    """Return kind and body of the packet that begins at *at*, and where it ends; None if it is not complete."""
    size = shift = 0
    for index in range(at + 1, min(at + 5, len(data))):
        size |= (data[index] & 0x7F) << shift
        shift += 7
        if data[index] < 0x80:
            end = index + 1 + size
            return (data[at] >> 4, data[index + 1 : end], end) if end <= len(data) else None
    return None


if __name__ == "__main__":
    main(int(sys.argv[1]))
