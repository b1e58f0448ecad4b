"""Controllers for `stress.sick_fleet`, healthy and sick, as servers in another process. They use no library code."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["KINDS", "controllers"]

# Two facts from the protocol document: a request's bytes, and a reply's data behind the battery voltage.
_REQUEST = bytes.fromhex("EB90EB90EB9016A000B1A77F")
_REPLY = bytes.fromhex("A406 0000 E803 5604 A005 01 00 00 50 00 00 00 00 37 E803 00")


def _reply(number: int) -> bytes:
    body = b"\x00\xa0\x18" + struct.pack("<H", number) + _REPLY
    return b"\xeb\x90" * 3 + body + _crc16(body).to_bytes(2, "big") + b"\x7f"


def _crc16(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ (0x1041 if value & 0x8000 else 0)) & 0xFFFF
    return value


class _Controller(asyncio.Protocol):
    """Answers each request, and notes when it came."""

    def __init__(self, number: int, arrivals: list[float]) -> None:
        self._reply = _reply(number)
        self._arrivals = arrivals
        self._received = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._received = (self._received + data).split(_REQUEST)
        for _ in requests:
            self._arrivals.append(time.monotonic())
            self.transport.write(self._reply)


class _Mute(_Controller):
    def data_received(self, data: bytes) -> None:
        pass


class _Garbage(_Mute):
    """Sends 40 KB/s of garbage; one in four floods with up to 2 MB/s."""

    def __init__(self, number: int, arrivals: list[float]) -> None:
        super().__init__(number, arrivals)
        self._pause = 0.001 if number % 4 == 0 else 0.05
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._send()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True

    def _send(self) -> None:
        if not self.transport.is_closing():
            if self._writable:
                self.transport.write(os.urandom(2048))
            asyncio.get_running_loop().call_later(self._pause, self._send)


class _Flapping(_Controller):
    """Closes the connection after each reply; every other controller closes it immediately."""

    def __init__(self, number: int, arrivals: list[float]) -> None:
        super().__init__(number, arrivals)
        self._patient = number % 2 == 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._patient:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.close()


KINDS: dict[str, type[_Controller]] = {
    "healthy": _Controller,
    "mute": _Mute,
    "garbage": _Garbage,
    "flapping": _Flapping,
}


def _serve(kinds: list[str], pipe: Connection) -> None:
    """Serve one controller of each of *kinds*: send the ports, wait for a message, send the arrival times."""
    asyncio.run(_serve_until_told(kinds, pipe))


async def _serve_until_told(kinds: list[str], pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    arrivals: list[list[float]] = [[] for _ in kinds]
    servers = [
        await loop.create_server(_factory(KINDS[kind], number, arrivals[number]), "127.0.0.1", 0)
        for number, kind in enumerate(kinds)
    ]
    pipe.send([server.sockets[0].getsockname()[1] for server in servers])
    stopped = asyncio.Event()
    loop.add_reader(pipe.fileno(), stopped.set)
    await stopped.wait()
    loop.remove_reader(pipe.fileno())
    pipe.send(arrivals)
    for server in servers:
        server.close()


def _factory(kind: type[_Controller], number: int, arrivals: list[float]) -> Callable[[], _Controller]:
    return lambda: kind(number, arrivals)


@contextmanager
def controllers(kinds: list[str]) -> Iterator[tuple[list[int], Callable[[], list[list[float]]]]]:
    """Serve *kinds* in another process; yield their ports, and a function that ends it and returns arrival times."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(kinds, there), daemon=True)
    process.start()
    try:

        def end() -> list[list[float]]:
            here.send("end")
            arrivals: list[list[float]] = here.recv()
            return arrivals

        yield here.recv(), end
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()
        there.close()
