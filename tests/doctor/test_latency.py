"""The latency is the time from the request to its reply. A proxy with its own clock judges it."""

from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import urlsplit

import pytest

from tests.doctor.lines import Serve, bridge, complaints
from tracer_async.doctor import Finding, diagnose
from tracer_async.simulator import Faults, serve_tcp

TOLERANCE = 0.1
"""Seconds. The age of a reading, which is no latency, is far longer on these lines."""


def stamping(url: str, stamps: list[tuple[str, float]]) -> Serve:
    """Pass bytes on to *url* and back, and note when. The stamps are those of the last connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stamps.clear()
        address = urlsplit(url)
        from_controller, to_controller = await asyncio.open_connection(address.hostname, address.port)

        async def back() -> None:
            while data := await from_controller.read(4096):
                writer.write(data)
                stamps.append(("reply", time.monotonic()))

        passing = asyncio.ensure_future(back())
        try:
            while data := await reader.read(4096):
                stamps.append(("request", time.monotonic()))
                to_controller.write(data)
        finally:
            passing.cancel()
            to_controller.close()

    return serve


def seconds(stamps: list[tuple[str, float]]) -> list[float]:
    """The time from each answered request to the last bytes before the next request."""
    found, sent, received = [], 0.0, 0.0
    for kind, at in [*stamps, ("request", 0.0)]:
        if kind == "reply":
            received = at
            continue
        if received:
            found.append(received - sent)
        sent, received = at, 0.0
    return sorted(found)


def milliseconds(found: Finding) -> list[int]:
    match = re.match(r"(\d+) / (\d+) / (\d+) ms", found.evidence)
    assert match
    return [int(each) for each in match.groups()]


@pytest.mark.parametrize(
    ("fault", "alarms"),
    [
        (None, []),
        pytest.param("late=459ms@100%", [], marks=pytest.mark.slow),
        pytest.param("drop@15%", ["reply-missing"], marks=pytest.mark.slow),
        pytest.param("flip@15%", ["reply-damaged", "reply-missing"], marks=pytest.mark.slow),
    ],
)
async def test_the_latency_is_the_one_that_a_proxy_measures(fault: str | None, alarms: list[str]) -> None:
    stamps: list[tuple[str, float]] = []
    faults = Faults(fault, seed=3) if fault else None
    async with serve_tcp(baud_pacing=True, faults=faults) as url, bridge(stamping(url, stamps)) as proxy:
        findings = await diagnose(proxy, seconds=0)
    assert complaints(findings) == alarms
    (found,) = (each for each in findings if each.id == "reply-latency")
    measured = seconds(stamps)
    assert len(measured) >= 10
    shown = [each / 1000 for each in milliseconds(found)]
    for value, expected in zip(shown, (measured[0], measured[len(measured) // 2], measured[-1]), strict=True):
        assert abs(value - expected) < TOLERANCE
