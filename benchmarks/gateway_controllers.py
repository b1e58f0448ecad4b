"""Controllers for the benchmark of the gateway, in a process: ``python -m benchmarks.gateway_controllers COUNT``.

Prints the port of each controller. The PV voltage of each answer counts the answers of its controller, in hundredths.
For each line on standard input it prints how many answers each controller has given; after ``"hush"`` it gives no more.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
from collections.abc import Callable
from typing import cast

from benchmarks.measure import say
from tracer_async.protocol import CommandCode, Frame
from tracer_async.simulator import SimulatedTracer

_BASE = SimulatedTracer(time_scale=0).realtime()


def answer(number: int) -> bytes:
    """Return the answer with that number."""
    data = _BASE._replace(pv_voltage=(number & 0xFFFF) / 100).to_bytes()
    return Frame(0, CommandCode.READ_REALTIME, data).encode(start_up=False)


class Controllers:
    """Answers every request from the selector, with as little work as possible."""

    def __init__(self, count: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._answers = [0] * count
        self._hushed = False

    def serve(self) -> None:
        """Answer until standard input ends."""
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in self._answers]
        for number, listener in enumerate(listeners):
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, self._acceptance(number, listener))
        self._selector.register(sys.stdin, selectors.EVENT_READ, self._obey)
        say([listener.getsockname()[1] for listener in listeners])
        while True:
            for key, _ in self._selector.select():
                cast(Callable[[], None], key.data)()

    def _acceptance(self, number: int, listener: socket.socket) -> Callable[[], None]:
        def accept() -> None:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._respond(number, connection))

        return accept

    def _respond(self, number: int, connection: socket.socket) -> None:
        try:
            if not connection.recv(512):
                raise ConnectionError
            if not self._hushed:
                connection.send(answer(self._answers[number] + 1))
                self._answers[number] += 1
        except ConnectionError:
            self._selector.unregister(connection)
            connection.close()

    def _obey(self) -> None:
        order = sys.stdin.readline()
        if not order:
            sys.exit(0)
        self._hushed = json.loads(order) == "hush"
        say(self._answers)


if __name__ == "__main__":
    Controllers(int(sys.argv[1])).serve()
