"""A fleet in which a fifth of the controllers is faulty: every healthy controller still keeps its interval.

``make sick-fleet``, or ``python -m stress.sick_fleet [--minutes 10] [--controllers 200] [--interval 1]``.

The sick ones are mute, send garbage, hang up, refuse connections, or have names that do not resolve. The healthy ones
are servers in another process, which share no code with the library. The verdict uses their logs of arrival times. Each
reports its own number as its battery voltage, which reveals a reading that is attributed to another controller.
Prints a table, and exits with 1 unless all of this holds for every healthy controller:

- its first request arrives within 2 s;
- no request is missing: none comes more than 0.75 intervals late, up to the end;
- no request comes twice: two are never closer than a quarter of an interval;
- every reading of it succeeds and is its own.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from stress.sick_controllers import KINDS, controllers
from tracer_async import Fleet

FIRST_WITHIN = 2.0
LATEST, EARLIEST = 1.75, 0.25
"""The longest and shortest time between two requests, in intervals."""

SICK = ("mute", "garbage", "flapping", "refusing", "unresolvable")

# Half of the unresolvable names fail immediately. The others fail as if the name server did not respond.
_NAME_SERVER_GONE = 5.0


@contextmanager
def _name_server_gone() -> Iterator[None]:
    """Make look-ups under ``gone.invalid`` take as long as without a name server."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith(".gone.invalid"):
            time.sleep(_NAME_SERVER_GONE)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve(host, *args, **options)

    socket.getaddrinfo = getaddrinfo
    try:
        yield
    finally:
        socket.getaddrinfo = resolve


# The fleet, in this process.


@dataclass
class Outcome:
    """The results of a run."""

    start: float
    end: float = 0.0
    cpu: float = 0.0
    answered: Counter[str] = field(default_factory=Counter)
    """Readings that succeeded, by the name of the controller."""
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Readings that failed, by the name of the controller and that of the error."""
    wrong: list[str] = field(default_factory=list)
    """Readings that another controller made."""
    log_lines: int = 0
    arrivals: list[list[float]] = field(default_factory=list)
    """When requests came, for each healthy controller."""


async def run(size: int, seconds: float, interval: float) -> Outcome:
    """Poll *size* controllers, of which a fifth is sick, for *seconds*."""
    sick = [SICK[number % len(SICK)] for number in range(size // 5)]
    served = [kind for kind in sick if kind in KINDS]
    with (
        controllers(["healthy"] * (size - len(sick))) as (ports, end),
        controllers(served) as (sick_ports, _),
        _refusing_port() as refusing,
        _name_server_gone(),
    ):
        ports_by_kind = {kind: [p for k, p in zip(served, sick_ports, strict=True) if k == kind] for kind in KINDS}
        urls: dict[str, str] = {}
        # The faulty controllers come first: they must not delay the controllers added after them.
        for number, kind in enumerate(sick):
            if kind == "unresolvable":
                urls[f"{kind} {number}"] = f"tcp://bridge-{number}{'.gone' * (number // 5 % 2)}.invalid:8088"
            else:
                port = refusing if kind == "refusing" else ports_by_kind[kind].pop()
                urls[f"{kind} {number}"] = f"tcp://127.0.0.1:{port}"
        for number, port in enumerate(ports):
            urls[f"healthy {number}"] = f"tcp://127.0.0.1:{port}"
        outcome = await _poll(urls, seconds, interval)
        outcome.arrivals = await asyncio.to_thread(end)
        return outcome


@contextmanager
def _refusing_port() -> Iterator[int]:
    """A port on which nothing listens, and which nobody else can take."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def _poll(urls: dict[str, str], seconds: float, interval: float) -> Outcome:
    lines = _LineCounter()
    log = logging.getLogger("tracer_async")
    log.addHandler(lines)
    cpu = time.process_time()
    try:
        async with Fleet() as fleet:
            outcome = Outcome(time.monotonic())
            for name, url in urls.items():
                fleet.add(url, interval=interval, name=name)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    async for name, reading in fleet:
                        _note(outcome, name, reading.data.battery_voltage if reading.data else None, reading.error)
            outcome.end = time.monotonic()
    finally:
        log.removeHandler(lines)
    outcome.cpu = time.process_time() - cpu
    outcome.log_lines = lines.count
    return outcome


def _note(outcome: Outcome, name: str, voltage: float | None, error: Exception | None) -> None:
    kind, _, number = name.partition(" ")
    if voltage is None:
        outcome.failed[name, type(error).__name__] += 1
        return
    outcome.answered[name] += 1
    if kind == "healthy" and round(voltage * 100) != int(number):
        outcome.wrong.append(f"{name} was given the reading of {round(voltage * 100)}")


class _LineCounter(logging.Handler):
    """Counts the lines that the library logs."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        self.count += 1


# The verdict.


def complaints(outcome: Outcome, interval: float) -> list[str]:
    """Return every violation at a healthy controller; nothing if all conditions hold."""
    found = list(outcome.wrong)
    for (name, error), count in outcome.failed.items():
        if name.startswith("healthy"):
            found.append(f"{name}: {count} readings failed with {error}")
    for number, arrivals in enumerate(outcome.arrivals):
        # A request at the very end may or may not be recorded.
        times = [at for at in arrivals if at < outcome.end]
        first = times[0] - outcome.start if times else float("inf")
        if first > FIRST_WITHIN:
            found.append(f"healthy {number}: first request after {first:.2f} s")
            continue
        gaps = [after - before for before, after in itertools.pairwise([*times, outcome.end])]
        if max(gaps) > LATEST * interval:
            found.append(f"healthy {number}: {max(gaps):.2f} s without a request")
        if len(gaps) > 1 and min(gaps[:-1]) < EARLIEST * interval:
            found.append(f"healthy {number}: two requests within {min(gaps[:-1]):.3f} s")
    return found


def _print_table(outcome: Outcome, interval: float) -> None:
    seconds = outcome.end - outcome.start
    print(f"{'kind':<14}{'controllers':>12}{'answered':>10}  failed")
    names = {*outcome.answered, *(name for name, _ in outcome.failed)}
    for kind in ("healthy", *SICK):
        mine = [name for name in names if name.startswith(kind)]
        failed: Counter[str] = Counter()
        for (name, error), count in outcome.failed.items():
            if name in mine:
                failed[error] += count
        text = ", ".join(f"{error} {count}" for error, count in failed.most_common()) or "-"
        print(f"{kind:<14}{len(mine):>12}{sum(outcome.answered[name] for name in mine):>10}  {text}")
    firsts = [arrivals[0] - outcome.start for arrivals in outcome.arrivals if arrivals]
    gaps = sorted(b - a for arrivals in outcome.arrivals for a, b in itertools.pairwise(arrivals))
    print(f"\n{seconds:.0f} s, an interval of {interval:g} s; {outcome.cpu / seconds:.0%} of a core, ", end="")
    print(f"{outcome.log_lines} lines logged")
    print(f"first requests of the healthy: the last one after {max(firsts):.3f} s")
    print(f"between two requests of a healthy one: {gaps[0]:.3f} to {gaps[-1]:.3f} s, ", end="")
    print(f"99 % within {gaps[len(gaps) // 200]:.3f} to {gaps[-1 - len(gaps) // 200]:.3f} s")


def main() -> int:
    """Run it, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description="Poll a fleet of which a fifth is sick.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--controllers", type=int, default=200)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds")
    options = parser.parse_args()
    outcome = asyncio.run(run(options.controllers, options.minutes * 60.0, options.interval))
    _print_table(outcome, options.interval)
    found = complaints(outcome, options.interval)
    print("\n" + ("\n".join(found) if found else "every healthy controller keeps its interval"))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
