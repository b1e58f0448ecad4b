"""The blocking client: round trips over loopback TCP, beside the asyncio client and the way of ``tracermppt``.

``--contender NAME --port PORT`` is one of them in this process: it makes round trips for as many seconds as each line
of its input says. A responder has to run.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from subprocess import Popen

from benchmarks.measure import Effort, Spread, heard, interleaved, pin, ratios, running, say, settle_malloc, tell
from benchmarks.page import Row, Table, Target, main
from benchmarks.reference import OldDecoder
from benchmarks.replies import REQUEST
from benchmarks.round_trip import PROJECT, Trips
from tracer_async.sync import TracerClient

COMMAND = "python -m benchmarks.blocking"

BLOCKING = "tracer_async.sync"
ASYNCIO = "tracer_async on asyncio"
OLD = "the way of tracermppt"

Ask = Callable[[], object]


@contextmanager
def _blocking(port: int) -> Iterator[Ask]:
    with TracerClient(f"tcp://127.0.0.1:{port}") as tracer:
        yield tracer.read_realtime


@contextmanager
def _old(port: int) -> Iterator[Ask]:
    """A socket with a timeout, each byte taken separately, and a CRC calculated bit by bit. No fence, no retry."""
    decoder = OldDecoder()
    with socket.create_connection(("127.0.0.1", port), timeout=1.0) as sock:

        def ask() -> None:
            sock.sendall(REQUEST)
            while not decoder.feed(sock.recv(1024)):
                pass

        yield ask


CONTENDERS: dict[str, Callable[[int], AbstractContextManager[Ask]]] = {BLOCKING: _blocking, OLD: _old}


def _contend(name: str, port: int) -> None:
    settle_malloc()
    pin(0)
    with CONTENDERS[name](port) as ask:
        say("ready")
        for line in sys.stdin:
            seconds, done, used = json.loads(line), 0, time.process_time()
            begun = time.perf_counter()
            while (taken := time.perf_counter() - begun) < seconds:
                for _ in range(20):
                    ask()
                done += 20
            say(Trips(done / taken, 1e6 * (time.process_time() - used) / done))


def measured(seconds: float, rounds: int) -> dict[str, list[Trips]]:
    """Measure all of them, each in a new process, in many short turns."""
    with ExitStack() as stack:

        def started(module: str, *arguments: object) -> Popen[str]:
            return stack.enter_context(running(module, *arguments))

        port = heard(started("responder", "asyncio", 0))
        contenders = {name: started("blocking", "--contender", name, "--port", port) for name in CONTENDERS}
        contenders[ASYNCIO] = started("round_trip", "--contender", PROJECT, "--loop", "asyncio", "--port", port)
        for contender in contenders.values():
            heard(contender)

        def go(contender: Popen[str]) -> Trips:
            tell(contender, seconds)
            return Trips(*heard(contender))

        turns = {name: partial(go, contender) for name, contender in contenders.items()}
        interleaved(turns, 1)  # to warm up
        return interleaved(turns, rounds)


def run(effort: Effort) -> Row:
    """Measure all of them."""
    sets = [measured(effort.pick(0.15, 0.1, 0.02), effort.pick(10, 4, 1)) for _ in range(effort.pick(5, 2, 1))]

    def over(name: str, peer: str) -> Spread:
        return Spread.of(
            ratios([trips.rate for trips in each[name]], [trips.rate for trips in each[peer]]).median for each in sets
        )

    def medians(name: str, field: str) -> Spread:
        return Spread.of(Spread.of(getattr(trips, field) for trips in each[name]).median for each in sets)

    reached = over(BLOCKING, ASYNCIO)
    return Row(
        "Blocking client",
        COMMAND,
        "As in [Round trip](#round-trip), in the settled state: one request at a time over loopback TCP, both "
        f"processes on one core. *{OLD}* is its way of reading on Python 3: a socket with a timeout, each byte taken "
        "separately, a CRC calculated bit by bit. It has no fence, no retries, and does not reconnect.",
        [Target("rate over that of the asyncio client", "at least 1.2", reached.text("{:.2f}"), reached.median >= 1.2)],
        [
            Table(
                "",
                ("contender", "round trips a second", "of the asyncio client", "µs of its CPU each"),
                [
                    (
                        name,
                        medians(name, "rate").text(),
                        over(name, ASYNCIO).text("{:.2f}"),
                        medians(name, "cpu").text("{:.1f}"),
                    )
                    for name in sets[0]
                ],
            )
        ],
    )


if __name__ == "__main__":
    if "--contender" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--contender", required=True)
        parser.add_argument("--port", type=int, required=True)
        arguments = parser.parse_args()
        _contend(arguments.contender, arguments.port)
    else:
        sys.exit(main(run))
