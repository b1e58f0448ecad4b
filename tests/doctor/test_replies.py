"""The numbers and words of the findings about replies. The controller shares no code with the library."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from tests.doctor.lines import Serve, bridge
from tests.promise.stamping_controller import READ, frame, realtime
from tracer_async.doctor import Finding, Severity, diagnose


def the_only(findings: list[Finding], name: str) -> Finding:
    (found,) = (found for found in findings if found.id == name)
    return found


def closing_after(requests: int, reply: bytes) -> Serve:
    """A bridge that closes its second connection, that of the readings, instead of answering a request again."""
    connections = count(1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_second = next(connections) == 2
        received = 0
        while data := await reader.read(4096):
            received += data.count(b"\x7f")
            if is_second and received > requests:
                writer.transport.abort()
                return
            writer.write(reply)

    return serve


@pytest.mark.parametrize("answered", [0, 3, 19])
async def test_requests_that_were_never_made_are_not_counted(answered: int) -> None:
    async with bridge(closing_after(answered, frame(READ, realtime(1)))) as url:
        found = the_only(await diagnose(url, seconds=0), "reply-missing")
    assert found.evidence == f"1 of {answered + 1} requests within 1 s; the connection was lost"


async def test_noise_is_counted_for_the_requests_that_were_made() -> None:
    async with bridge(closing_after(3, b"\x00\x01" + frame(READ, realtime(1)))) as url:
        found = the_only(await diagnose(url, seconds=0.1), "line-noise")
    assert found.evidence == "6 bytes in 4 requests: 00 01 00 01 00 01"


def protected(*flags: int, load_on: bool) -> bytes:
    data = bytearray(realtime(1, load_on=load_on))
    for flag in flags:
        data[flag] = 1
    return frame(READ, bytes(data))


@pytest.mark.parametrize(
    ("reply", "evidence"),
    [
        (protected(13, load_on=False), "off by a protection: overload"),
        (protected(13, load_on=True), "on, although a protection is reported: overload"),
        (protected(14, 17, load_on=True), "on, although a protection is reported: over-discharge and short circuit"),
    ],
    ids=["off", "on", "on with two"],
)
async def test_the_load_is_reported_as_the_controller_reports_it(reply: bytes, evidence: str) -> None:
    async with bridge(closing_after(30, reply)) as url:
        found = the_only(await diagnose(url, seconds=0), "reply-load")
    assert (found.evidence, found.severity) == (evidence, Severity.NOTE)
