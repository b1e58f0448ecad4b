"""When the bytes of a frame came, and when unsolicited bytes are a flood: the rules of `Reception` one by one."""

from __future__ import annotations

import pytest

from tests.peer import load, realtime
from tracer_async.protocol import SYNC, Event, Frame
from tracer_async.protocol._reception import FLOOD_RATE, FRAME_PAUSE, LOOK_AHEAD_AFTER, Reception

FALSE_HEADER = SYNC + b"\x00\xa0\xc8"
"""The beginning of a frame of 212 bytes, which noise can look like."""


def frames(events: list[Event]) -> list[int]:
    return [event.command for event in events if isinstance(event, Frame)]


def test_the_end_of_a_frame_tells_when_it_came() -> None:
    reception = Reception()
    assert reception.feed(realtime()[:20], 1.1, 1.0) == ([], 1.0)
    events, came_after = reception.feed(realtime()[20:], 2.1, 2.0)
    assert frames(events) == [0xA0]
    assert came_after == 2.0


def test_a_frame_behind_a_false_header_came_with_its_own_bytes() -> None:
    """It is found when the length of the false header is full, by bytes that came later."""
    reception = Reception()
    assert reception.feed(FALSE_HEADER + realtime(), 1.1, 1.0) == ([], 1.0)
    events, came_after = reception.feed(bytes(300), 2.1, 2.0)
    assert frames(events) == [0xA0]
    assert came_after == 1.0


@pytest.mark.parametrize("pause", ["look ahead", "flush", "disconnect"])
def test_a_frame_behind_a_false_header_is_found_in_a_pause_as_old_as_its_first_byte(pause: str) -> None:
    reception = Reception()
    assert reception.feed(FALSE_HEADER, 1.1, 1.0) == ([], 1.0)
    assert reception.feed(realtime() + b"\xeb", 2.1, 2.0) == ([], 2.0)
    if pause == "disconnect":
        events, came_after = reception.disconnect()
    else:
        events, came_after = reception.tick(2.1 + (LOOK_AHEAD_AFTER if pause == "look ahead" else FRAME_PAUSE))
    assert frames(events) == [0xA0]
    assert came_after == 1.0
    assert reception.pending is (pause == "look ahead")  # the last byte may begin a frame


@pytest.mark.parametrize("before", [realtime()[:20], b"\xeb"], ids=["half a frame", "a byte"])
def test_bytes_that_begin_a_new_frame_are_as_old_as_themselves(before: bytes) -> None:
    reception = Reception()
    reception.feed(before, 1.1, 1.0)
    reception.feed((realtime()[20:] if len(before) > 1 else b"") + FALSE_HEADER + load(1), 2.1, 2.0)
    events, came_after = reception.tick(2.1 + LOOK_AHEAD_AFTER)
    assert frames(events) == [0xAA]
    assert came_after == 2.0


def test_unsolicited_bytes_are_counted_anew_each_second() -> None:
    reception = Reception()
    reception.connect(10.0)
    for second in range(10):
        reception.count_unsolicited(FLOOD_RATE, 10.9 + second, 10.0 + second)
        assert not reception.flooded
    reception.count_unsolicited(1, 19.95, 19.0)
    assert reception.flooded
    reception.connect(30.0)
    assert not reception.flooded


def test_bytes_that_came_during_a_stall_may_be_as_many_as_its_seconds_permit() -> None:
    reception = Reception()
    reception.connect(0.0)
    reception.count_unsolicited(4 * FLOOD_RATE, 4.0, 0.5)
    assert not reception.flooded
    reception.count_unsolicited(1, 4.0, 0.5)
    assert reception.flooded
