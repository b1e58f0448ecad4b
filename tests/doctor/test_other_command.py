"""A controller that answers readings with another command is told from another master.

The controller shares no code with the library.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest

from tests.doctor.lines import Serve, bridge, complaints
from tests.promise.stamping_controller import LOAD, READ, SETTINGS, frame, realtime
from tests.sharing.programs import UNKNOWN
from tracer_async.doctor import Finding, Severity, diagnose
from tracer_async.doctor import _line as line

LONG = bytes(range(200))


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """For peers that never answer: the outcome does not depend on how long it waits."""
    monkeypatch.setattr(line, "_REPLY_TIME", 0.05)


def controller(answer: Callable[[int], bytes]) -> Serve:
    """Answers each request by its number, from 1."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while data := await reader.read(4096):
            for _ in range(data.count(b"\x7f")):  # the end of a request: no other byte of a reading has this value
                number += 1
                writer.write(answer(number))

    return serve


def the_only(findings: list[Finding], name: str) -> Finding:
    (found,) = (found for found in findings if found.id == name)
    return found


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("data", [b"", realtime(1)], ids=["no data", "24 bytes"])
@pytest.mark.parametrize("command", [0xA1, LOAD, SETTINGS, UNKNOWN, 0x00], ids=lambda command: f"{command:02X}")
async def test_a_controller_that_answers_another_command_is_no_other_master(command: int, data: bytes) -> None:
    async with bridge(controller(lambda _: frame(command, data))) as url:
        findings = await diagnose(url, seconds=0.05)
    assert complaints(findings) == ["reply-other-command"]
    found = the_only(findings, "reply-other-command")
    assert found.severity is Severity.ERROR
    assert found.evidence.startswith(f"3 frames after 3 requests, command {command:02X} instead of A0: EB 90 EB 90 EB ")


@pytest.mark.usefixtures("short_waits")
async def test_the_evidence_of_a_long_answer_has_24_bytes() -> None:
    async with bridge(controller(lambda _: frame(0xA1, LONG))) as url:
        found = the_only(await diagnose(url, seconds=0), "reply-other-command")
    shown = found.evidence.partition("A0: ")[2]
    assert shown == f"{frame(0xA1, LONG)[:24].hex(' ').upper()} and {len(frame(0xA1, LONG)) - 24} more"


async def test_the_evidence_of_a_reading_with_too_much_data_has_24_bytes() -> None:
    async with bridge(controller(lambda _: frame(READ, LONG))) as url:
        findings = await diagnose(url, seconds=0)
    assert complaints(findings) == ["reply-malformed"]
    evidence = the_only(findings, "reply-malformed").evidence
    assert evidence == f"20 of 20, data {LONG[:24].hex(' ').upper()} and 176 more"


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("seconds", [0, 0.3])
async def test_frames_that_do_not_wait_for_requests_are_those_of_another_master(seconds: float) -> None:
    """A controller that answers nobody, and a program that switches its load."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reading = asyncio.ensure_future(controller(lambda _: b"")(reader, writer))
        while not reading.done():
            writer.write(frame(LOAD, b"\x01"))
            await asyncio.wait([reading], timeout=0.01)

    async with bridge(serve) as url:
        assert set(complaints(await diagnose(url, seconds=seconds))) == {"line-other-master"}


@pytest.mark.slow
@pytest.mark.parametrize("command", [0xA1, LOAD], ids=["A1", "AA"])
async def test_a_controller_that_answers_another_command_at_times_is_no_other_master(command: int) -> None:
    def answer(number: int) -> bytes:
        return frame(command, b"\x01") if number % 8 == 0 else frame(READ, realtime(number))

    async with bridge(controller(answer)) as url:
        findings = await diagnose(url, seconds=0)
    assert sorted(complaints(findings)) == ["reply-missing", "reply-other-command"]
    found = the_only(findings, "reply-other-command")
    assert found.severity is Severity.WARNING
    assert re.match(rf"2 frames after 20 requests, command {command:02X} instead of A0: EB", found.evidence)


@pytest.mark.slow
@pytest.mark.parametrize("command", [LOAD, SETTINGS], ids=["AA", "AD"])
async def test_frames_of_another_command_beside_the_replies_are_those_of_another_master(command: int) -> None:
    async with bridge(controller(lambda number: frame(READ, realtime(number)) + frame(command, b"\x01"))) as url:
        findings = await diagnose(url, seconds=0)
    assert complaints(findings) == ["line-other-master"]
