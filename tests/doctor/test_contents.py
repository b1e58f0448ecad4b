"""What received bytes are taken for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doctor.uart import through
from tests.peer import realtime
from tracer_async.doctor._contents import REQUEST, Contents, modbus_crc
from tracer_async.doctor._uart import looks_inverted
from tracer_async.protocol import SYNC

RATES = (1200, 2400, 4800, 19200, 38400, 57600, 115200)


def test_the_request_is_the_one_of_the_protocol_document() -> None:
    assert bytes.fromhex("AA55AA55AA55 EB90EB90EB90 16A000 B1A7 7F") == REQUEST


@pytest.mark.parametrize("frame", ["010402FFFFB880", "018402C2C1", "1106000100039A9B"])
def test_the_crc_of_published_modbus_frames_is_right(frame: str) -> None:
    raw = bytes.fromhex(frame)
    assert modbus_crc(raw[:-2]) == raw[-2:]


@pytest.mark.parametrize("around", [b"", b"\x00", b"\xff\x00\x12"])
def test_modbus_answers_are_found_between_other_bytes(around: bytes) -> None:
    for frame in (bytes.fromhex("010402FFFFB880"), bytes.fromhex("018402C2C1")):
        assert Contents.of(around + frame + around).modbus == frame.hex(" ").upper()


def test_frames_of_this_protocol_are_nothing_else() -> None:
    parts = Contents.of(realtime())
    assert parts.reply is not None
    assert (parts.rest, parts.text, parts.modbus, parts.telnet, parts.tls, parts.damaged) == (
        b"",
        "",
        "",
        False,
        False,
        0,
    )


def test_an_echo_is_no_reply() -> None:
    parts = Contents.of(REQUEST * 2)
    assert (parts.echoes, parts.frames, parts.rest) == (2, [], b"")


@given(st.binary(max_size=300))
def test_a_single_part_has_one_name_at_most(data: bytes) -> None:
    parts = Contents.of(data)
    assert not (parts.telnet and parts.tls)
    assert len(parts.rest) <= len(data)


@pytest.mark.parametrize("rate", RATES)
def test_a_frame_at_a_wrong_rate_is_neither_text_nor_telnet_nor_modbus(rate: int) -> None:
    parts = Contents.of(through(realtime(), 9600, rate))
    assert (parts.frames, parts.text, parts.telnet, parts.modbus, parts.tls) == ([], "", False, "", False)


def test_a_reply_on_an_inverted_line_is_recognized() -> None:
    assert looks_inverted(through(realtime(), 9600, 9600, inverted=True))


@pytest.mark.parametrize("rate", RATES)
def test_a_frame_at_a_wrong_rate_does_not_look_inverted(rate: int) -> None:
    assert not looks_inverted(through(realtime(), 9600, rate))


def test_a_good_frame_does_not_look_inverted() -> None:
    assert not looks_inverted(realtime())
    assert not looks_inverted(SYNC * 10)
    assert not looks_inverted(b"")
