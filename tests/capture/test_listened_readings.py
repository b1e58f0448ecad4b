"""A recording of a listener shows the readings that the listener itself has shown.

Only the controller's wire is connected: no request is ever received.
"""

from __future__ import annotations

import os
import tty
from math import inf
from pathlib import Path

import pytest

from tests.promise.stamping_controller import LOAD, READ, SETTINGS, frame, realtime
from tracer_async import RealtimeData
from tracer_async.capture import Burst, Record, Recorder, Recording, RecordingHeader, readings_of
from tracer_async.sharing import Listener

REPLIES = [realtime(number) for number in range(1, 7)]
BETWEEN = {
    "nothing": b"",
    "a stray byte": b"\xeb",
    "the reply to a load command": frame(LOAD, b"\x01"),
    "the reply to settings": frame(SETTINGS, b""),
    "half a reply": frame(READ, realtime(9))[:20],
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
async def test_each_reading_that_was_listened_to_is_in_the_recording(tmp_path: Path, between: bytes) -> None:
    controller, port = os.openpty()
    tty.setraw(port)
    try:
        async with Listener(os.ttyname(port), recorder=Recorder(tmp_path / "line.jsonl")) as listener:
            readings = listener.readings()
            for number, data in enumerate(REPLIES):
                os.write(controller, (between if number == 2 else b"") + frame(READ, data))
                assert (await anext(readings)).data == RealtimeData.from_bytes(data)
    finally:
        os.close(controller)
        os.close(port)
    found = list(readings_of(Recording.read(tmp_path / "line.jsonl")))
    assert [reading.data for reading in found] == [RealtimeData.from_bytes(data) for data in REPLIES]
    assert {reading.age for reading in found} == {inf}


def test_a_reply_that_a_listener_heard_too_late_is_a_reading_of_unknown_age() -> None:
    records: list[Record] = [
        RecordingHeader("serial:///dev/ttyUSB0", "listener", timeout=0.3),
        Burst("client", frame(READ, b""), 0.0, 1000.0),
        Burst("controller", frame(READ, REPLIES[0]), 2.0, 1002.0),
    ]
    missed, late = readings_of(Recording.of(records))
    assert not missed.ok
    assert (late.data, late.age) == (RealtimeData.from_bytes(REPLIES[0]), inf)


def test_noise_of_another_sender_is_no_request() -> None:
    noise = [Burst("client", data) for data in (b"\xeb", b"\x00\xff", frame(READ, b"")[:-1])]
    replies = [Burst("controller", frame(READ, data)) for data in REPLIES]
    found = list(readings_of(Recording.of([*replies[:3], *noise, *replies[3:]])))
    assert [reading.data for reading in found] == [RealtimeData.from_bytes(data) for data in REPLIES]
