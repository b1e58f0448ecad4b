"""The other end of the network benchmarks, in a process of its own: answers each request on any number of connections.

``python -m benchmarks.responder asyncio|uvloop|lean [CORE]`` prints the port, then executes commands, one per line.

``asyncio`` and ``uvloop`` answer from a bare Protocol: the same at both ends, for the ping-pong. ``lean`` answers
straight from the selector and records when each request arrived. The fleet uses it, because one clock serves all.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

from benchmarks.measure import percentile, pin, run_loop, say, settle_malloc
from benchmarks.replies import answer


class Responder(asyncio.Protocol):
    """Answers as a controller or as a Modbus device, depending on the request."""

    def __init__(self) -> None:
        self._number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._number += 1
        self._transport.write(answer(data, self._number))


async def ping_pong() -> None:
    """Answer until the parent ends this process."""
    server = await asyncio.get_running_loop().create_server(Responder, "127.0.0.1", 0)
    say(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


class Lean:
    """Answers from the selector, and notes when requests came, on each connection."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._times: list[list[float]] = []
        self._noting = False
        self._begun = 0.0

    def serve(self) -> None:
        """Answer until standard input ends."""
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
            listener.setblocking(False)
            say(listener.getsockname()[1])
            self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
            self._selector.register(sys.stdin, selectors.EVENT_READ, self._obey)
            while True:
                for key, _ in self._selector.select():
                    cast(Callable[[], None], key.data)()

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times: list[float] = []
        self._times.append(times)
        buffer = bytearray(512)
        view = memoryview(buffer)

        def respond() -> None:
            try:
                size = connection.recv_into(buffer)
                if not size:
                    raise ConnectionError
                if self._noting:
                    times.append(time.monotonic())
                connection.send(answer(view[:size], len(times)))
            except ConnectionError:
                self._selector.unregister(connection)
                connection.close()

        self._selector.register(connection, selectors.EVENT_READ, respond)

    def _obey(self) -> None:
        order = sys.stdin.readline()
        if not order:
            sys.exit(0)
        if json.loads(order) == "note":
            for times in self._times:
                times.clear()
            self._noting = True
            self._begun = time.monotonic()
        else:
            self._noting = False
            say(self._account(*json.loads(order)))

    def _account(self, interval: float, seconds: float) -> dict[str, Any]:
        """Say how many ticks passed unused, and how late the requests came.

        The grid of each connection's ticks is laid so that its most punctual request is on time. A tick is missed if no
        request came within half an interval of it.
        """
        ended = time.monotonic()
        missed = 0
        lateness: list[float] = []
        for times in self._times:
            # A full interval passes before the first request, or after the last, without a tick being missed, and a
            # late request may come after the end: what is late there is not missed.
            edges = (times[0] - self._begun, ended - times[-1]) if times else (seconds,)
            missed += sum(max(0, round(gap / interval - 1)) for gap in edges)
            missed += sum(max(0, round((b - a) / interval) - 1) for a, b in pairwise(times))
            offsets = [at - round((at - times[0]) / interval) * interval for at in times]
            lateness += [offset - min(offsets) for offset in offsets]
        return {
            "connections": len(self._times),
            "polls": sum(map(len, self._times)),
            "missed": missed,
            "late_p50": percentile(lateness, 0.5) if lateness else 0.0,
            "late_p99": percentile(lateness, 0.99) if lateness else 0.0,
        }


if __name__ == "__main__":
    kind, *core = sys.argv[1:]
    if core:
        pin(int(core[0]))
    if kind == "lean":
        Lean().serve()
    else:
        settle_malloc()
        run_loop(ping_pong, kind)
