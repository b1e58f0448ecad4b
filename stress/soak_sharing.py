"""Soak: programs that come and go share one controller on faulty lines. Replies are compared with its log.

``make soak-sharing``, or ``python -m stress.soak_sharing [--exchanges N] [--seed N]``.

All runs in virtual time and in one process: a timeout takes no real time. The programs connect over a Unix socket. They
behave like old programs: they wait 1 s for a reply, discard nothing, and take the next frame for the reply to their
last request. The faults are those of the simulator, one kind after the other, and then all of them at once.

The judge shares no code with the library. What counts as wrong:

- a reading that was not made between its request and its reply;
- a reply with the token of another request, or to a load command that the controller did not execute in that time;
- a reply that nobody waits for, or later than 0.8 s after its request;
- a command that was executed twice, or after its program had received silence for it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tests.promise.virtual_time import run_virtual
from tracer_async import Frame, RealtimeData, TracerClient
from tracer_async.sharing import share
from tracer_async.simulator import FAULT_KINDS, Faults, SimulatedTracer, open_in_process

__all__ = ["KINDS", "Outcome", "run_line"]

KINDS = [
    ("healthy", ()),
    *((name, (name,)) for name in FAULT_KINDS),
    # So short that the reply still comes in time, while other programs ask.
    ("short late", ("late=330ms@20%",)),
    ("short stall", ("stall=330ms@20%",)),
    ("all kinds", tuple(FAULT_KINDS)),
]
"""Names and faults of the lines."""

# Each reply is sent this long after the controller has executed its request, as at 9600 baud.
_PACE = "late=60ms@100%"

PROGRAMS = 10
_PATIENCE = 1.0
_REPLY_WITHIN = 0.8
# Seconds for which a command that was sent in time may wait within a line, without and with faults that delay.
_SHORT_DELAY = 0.1
_LONG_DELAY = 60.0
_DELAYING = ("late", "stall", "silence", "drip", "half-open", "hangup")
_STEP = 0.0001
# A stamp is rounded down.
_TOLERANCE = _STEP + 1e-6
_SYNC = bytes.fromhex("EB90EB90EB90")
_READ, _LOAD, _TOKEN = 0xA0, 0xAA, 0xB0


class Deed(NamedTuple):
    """A command that the controller executed."""

    time: float
    command: int
    data: bytes
    load: bool
    """Whether the load was on afterwards."""


@dataclass
class Outcome:
    """What happened on one line."""

    exchanges: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class _Controller(SimulatedTracer):
    """Stamps its readings with the time, and answers a command with a token by that token."""

    def __init__(self) -> None:
        super().__init__(time_scale=0.0)
        self._time: Callable[[], float] = asyncio.get_running_loop().time
        self.deeds: list[Deed] = []

    def answer(self, frame: Frame) -> bytes | None:
        # Not the same bytes for a token: an equal frame would be taken for an echo.
        reply = _frame(_TOKEN, frame.data + b"!") if frame.command == _TOKEN else super().answer(frame)
        self.deeds.append(Deed(self._time(), frame.command, frame.data, self.load_on))
        return reply

    def realtime(self) -> RealtimeData:
        ticks = int(self._time() / _STEP)
        high, low = ticks >> 16, ticks & 0xFFFF
        check = (high * 3 + low * 5) & 0xFFFF
        stamped = super().realtime()
        return stamped._replace(pv_voltage=high / 100, load_current=low / 100, charge_current=check / 100)


def _made(data: bytes) -> float | None:
    """Return when a reading was made, None if the controller never made it."""
    high, low = struct.unpack_from("<H", data, 2)[0], struct.unpack_from("<H", data, 6)[0]
    if struct.unpack_from("<H", data, 21)[0] != (high * 3 + low * 5) & 0xFFFF:
        return None
    return float((high << 16 | low) * _STEP)


def _checksum(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1041 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def _frame(command: int, data: bytes) -> bytes:
    body = bytes((0, command, len(data))) + data
    return _SYNC + body + struct.pack(">H", _checksum(body)) + b"\x7f"


class _Program:
    """An old program: requests and waits, again and again, and reconnects now and then."""

    def __init__(self, number: int, path: str, seed: int, controller: _Controller, outcome: Outcome) -> None:
        self._number = number
        self._path = path
        self._random = Random(f"{seed} {number}")
        self._controller = controller
        self._outcome = outcome
        self._tokens = 0
        self.given_up: list[tuple[float, bytes]] = []

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            reader, writer = await asyncio.open_unix_connection(self._path)
            try:
                for _ in range(self._random.randrange(1, 40)):
                    await self._exchange(reader, writer)
                    if self._random.random() < 0.5:
                        await asyncio.sleep(self._random.uniform(0, 0.5))
                if self._random.random() < 0.5:  # it leaves with a request
                    writer.write(self._request()[2])
                    await asyncio.sleep(self._random.choice((0, 0.05)))
            except (OSError, asyncio.IncompleteReadError):
                self._outcome.counts["disconnected by the hub"] += 1
            finally:
                writer.transport.abort()

    def _request(self) -> tuple[int, bytes, bytes]:
        kind = self._random.random()
        if kind < 0.85:
            command, data = _READ, b""
        elif kind < 0.95:
            command, data = _LOAD, bytes((self._random.random() < 0.5,))
        else:
            self._tokens += 1
            command, data = _TOKEN, struct.pack("<HI", self._number, self._tokens)
        return command, data, _frame(command, data)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        command, data, encoded = self._request()
        sent = loop.time()
        writer.write(encoded)
        try:
            async with asyncio.timeout(_PATIENCE):
                reply = await _read_frame(reader)
        except TimeoutError:
            self._outcome.counts["silence"] += 1
            if command == _TOKEN:
                self.given_up.append((sent, data))
            return
        wrong = self._objection(command, data, reply, sent, loop.time())
        self._outcome.counts["replies"] += 1
        if wrong is not None:
            self._outcome.wrong.append(f"program {self._number} at {sent:.4f}: {wrong}: {reply.hex()}")

    def _objection(self, command: int, data: bytes, reply: bytes, sent: float, now: float) -> str | None:
        if reply[:6] != _SYNC or reply[-1:] != b"\x7f" or _checksum(reply[6:-1]):
            return "not a good frame"
        if now > sent + _REPLY_WITHIN + 1e-6:
            return "a late reply"
        if reply[7] != command:
            return "a reply to another command"
        values = reply[9:-3]
        if command == _READ:
            made = _made(values)
            if made is None:
                return "a reading that was never made"
            return None if sent - _TOLERANCE <= made <= now + _TOLERANCE else f"a reading made at {made:.4f}"
        if command == _TOKEN:
            return None if values == data + b"!" else "the reply to another request"
        wanted = Deed(0.0, _LOAD, data, load=values == b"\x01")
        done = [deed for deed in self._controller.deeds[-500:] if deed.time >= sent and deed[1:] == wanted[1:]]
        return None if done and len(values) == 1 else "never executed with this result"


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(9)
    return head + await reader.readexactly(head[8] + 3)


def _misdeeds(controller: _Controller, programs: list[_Program], line_delay: float) -> Iterator[str]:
    done: dict[bytes, float] = {}
    for deed in controller.deeds:
        if deed.command == _TOKEN:
            if deed.data in done:
                yield f"executed twice: {deed.data.hex()}"
            done[deed.data] = deed.time
    for program in programs:
        for sent, token in program.given_up:
            if done.get(token, 0.0) > sent + _REPLY_WITHIN + line_delay:
                yield f"executed {done[token] - sent:.3f} s after its request: {token.hex()}"


async def _run(exchanges: int, faults: tuple[str, ...], seed: int, outcome: Outcome) -> None:
    controller = _Controller()
    injected = Faults(*faults, _PACE, seed=seed)

    async def connect(protocol: Any) -> Any:
        return await open_in_process(protocol, controller, faults=injected)

    with TemporaryDirectory() as folder:
        path = str(Path(folder, "socket"))
        options: dict[str, Any] = {"timeout": 0.4, "retries": 1, "fence": 0.25, "start_offline": True}
        async with TracerClient(connect, backoff=(0.05, 0.5), **options) as client, share(client, f"unix:{path}"):
            programs = [_Program(number, path, seed, controller, outcome) for number in range(PROGRAMS)]
            tasks = [asyncio.create_task(program.run()) for program in programs]
            while len(controller.deeds) < exchanges and not any(task.done() for task in tasks):
                await asyncio.sleep(1.0)
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
    outcome.exchanges = len(controller.deeds)
    outcome.counts.update({f"fault {kind}": count for kind, count in injected.injected.items()})
    delays = any(fault.startswith(_DELAYING) for fault in faults)
    outcome.wrong += _misdeeds(controller, programs, _LONG_DELAY if delays else _SHORT_DELAY)


def run_line(exchanges: int, faults: tuple[str, ...], seed: int) -> Outcome:
    """Let programs share a controller on a line with *faults* until it has executed *exchanges* commands."""
    outcome = Outcome()
    run_virtual(lambda: _run(exchanges, faults, seed, outcome))
    return outcome


def main() -> int:
    """Run all lines and report."""
    parser = argparse.ArgumentParser(
        prog="python -m stress.soak_sharing", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--exchanges", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable()  # of lost links there are thousands
    each = -(-options.exchanges // len(KINDS))
    total, wrong, begun = Counter[str](), 0, time.monotonic()
    exchanges = 0
    for name, faults in KINDS:
        outcome = run_line(each, faults, options.seed)
        exchanges += outcome.exchanges
        total += outcome.counts
        wrong += len(outcome.wrong)
        replies, silence = outcome.counts["replies"], outcome.counts["silence"]
        print(
            f"{name:<11} {outcome.exchanges:>7,} exchanges, {replies:>8,} replies, {silence:>7,} requests without one"
        )
        for text in outcome.wrong[:20]:
            print("WRONG:", text)
    print(f"{exchanges:,} exchanges, {total['replies']:,} replies to programs in {time.monotonic() - begun:.0f} s")
    print(
        "injected:",
        ", ".join(f"{k[6:]} {n:,}" for k, n in sorted(total.items()) if k.startswith("fault ") and k != "fault late"),
    )
    print(f"WRONG: {wrong:,}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
