"""The requests of an MT-5 meter on the same line are those of another master, and no defect of the controller."""

from __future__ import annotations

import asyncio

import pytest

from tests.doctor.lines import bridge, complaints
from tests.promise.stamping_controller import LOAD, READ, frame, realtime
from tracer_async.doctor import diagnose

METER_REQUEST = frame(READ, b"\x03")
END = b"\x7f"  # the end of a request: no other byte of a reading has this value


@pytest.mark.parametrize("order", ["before", pytest.param("after", marks=pytest.mark.slow)])
async def test_requests_of_a_meter_are_no_malformed_replies(order: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while data := await reader.read(4096):
            for _ in range(data.count(END)):
                number += 1
                reply = frame(READ, realtime(number))
                writer.write(METER_REQUEST + reply if order == "before" else reply + METER_REQUEST)

    async with bridge(serve) as url:
        findings = await diagnose(url, seconds=0)
    assert "reply-malformed" not in complaints(findings)
    assert complaints(findings)[0] == "line-other-master"
    (found,) = (each for each in findings if each.id == "line-other-master")
    assert "beside the 20 of this program" in found.evidence
    assert "use `tracer-async listen`" in found.advice
    assert ("reply-missing" in complaints(findings)) is (order == "before")


@pytest.mark.slow
async def test_a_load_reply_before_each_reading_is_that_of_another_master() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while data := await reader.read(4096):
            for _ in range(data.count(END)):
                number += 1
                writer.write(frame(LOAD, b"\x01") + frame(READ, realtime(number)))

    async with bridge(serve) as url:
        assert complaints(await diagnose(url, seconds=0)) == ["line-other-master"]


@pytest.mark.slow
async def test_short_frames_beside_the_replies_are_those_of_another_master() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while data := await reader.read(4096):
            for _ in range(data.count(END)):
                number += 1
                writer.write(frame(READ, realtime(number)) + frame(READ, b"\x01\x02"))

    async with bridge(serve) as url:
        findings = await diagnose(url, seconds=0)
    assert "line-other-master" in complaints(findings)
