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


class CopyingBridge:
    """A bridge that sends the first *copied* replies twice, to the connection that exists then. No two are equal."""

    def __init__(self, delay: float, copied: int) -> None:
        self._delay = delay
        self._copied = copied
        self._replies = 0
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        loop = asyncio.get_running_loop()
        while data := await reader.read(4096):
            for _ in range(data.count(b"\x7f")):
                self._replies += 1
                reply = frame(READ, realtime(self._replies))
                loop.call_later(0.06, self._send, reply)
                if self._replies <= self._copied:
                    loop.call_later(0.06 + self._delay, self._send, reply)

    def _send(self, reply: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(reply)


@pytest.mark.parametrize(
    ("delay", "copied"),
    [(0.4, 1), (0.4, 100), pytest.param(0.9, 100, marks=pytest.mark.slow)],
    ids=["the first one", "0.4 s late", "0.9 s late"],
)
async def test_copies_of_replies_are_not_those_of_another_master(delay: float, copied: int) -> None:
    async with bridge(CopyingBridge(delay, copied).serve) as url:
        findings = [found.id for found in await diagnose(url, seconds=0)]
    assert "line-other-master" not in findings
    assert "reply-doubled" in findings


@pytest.mark.slow
async def test_other_replies_than_those_to_this_program_are_those_of_another_master() -> None:
    numbers = count(1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            for _ in range(data.count(b"\x7f")):
                writer.write(frame(READ, realtime(next(numbers))) + frame(READ, realtime(next(numbers))))

    async with bridge(serve) as url:
        findings = [found.id for found in await diagnose(url, seconds=0)]
    assert "line-other-master" in findings
    assert "reply-doubled" not in findings
