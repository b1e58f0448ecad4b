"""A controller that does not answer the first three requests. It shares no code with the library."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.doctor.lines import SerialDevice, complaints
from tests.promise.stamping_controller import LOAD, READ, frame, realtime
from tracer_async.doctor import Finding, Severity, diagnose
from tracer_async.doctor import _line as line


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first requests are not answered: the outcome does not depend on how long it waits."""
    monkeypatch.setattr(line, "_REPLY_TIME", 0.05)


def from_the_fourth_on(reply: bytes) -> Callable[[bytes], bytes]:
    requests = 0

    def answer(data: bytes) -> bytes:
        nonlocal requests
        requests += data.count(b"\x7f")  # the end of a request: no other byte of a reading has this value
        return reply if requests > 3 and b"\x7f" in data else b""

    return answer


def the_only(findings: list[Finding], name: str) -> Finding:
    (found,) = (found for found in findings if found.id == name)
    return found


async def test_a_controller_that_answers_from_the_fourth_request_on_is_examined_further() -> None:
    with SerialDevice(from_the_fourth_on(frame(READ, realtime(1)))) as url:
        findings = await diagnose(url, seconds=0)
    assert complaints(findings) == ["line-answers"]
    found = the_only(findings, "line-answers")
    assert found.severity is Severity.WARNING
    assert "request 4" in found.evidence
    assert found.advice
    assert the_only(findings, "reply-complete").evidence == "20 of 20"


@pytest.mark.parametrize(("command", "expected"), [(0xA1, "reply-other-command"), (LOAD, "line-other-master")])
async def test_another_frame_after_the_fourth_request_is_no_damage(command: int, expected: str) -> None:
    with SerialDevice(from_the_fourth_on(frame(command, b"\x01"))) as url:
        findings = await diagnose(url, seconds=0)
    assert complaints(findings) == [expected]
    assert the_only(findings, expected).severity is Severity.ERROR
