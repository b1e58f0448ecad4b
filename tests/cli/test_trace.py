"""What was received when nothing answers, and every byte on demand."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest

from tests.cli.conftest import Answer, Command
from tracer_async import Frame
from tracer_async.cli.trace import WIRE, LogFormatter

REQUEST = "AA 55 AA 55 AA 55 EB 90 EB 90 EB 90 16 A0 00 B1 A7 7F"


def hex_rows(text: str) -> str:
    """The bytes in a trace, without what stands around them."""
    return " ".join(re.findall(r"^ {18}((?:[0-9A-F]{2} ?)+)$", text, re.MULTILINE))


def test_garbage_is_reported_with_how_much_it_was(command: Command, controller: Callable[[Answer], str]) -> None:
    url = controller(lambda _: b"\x7e" * 600)
    code, out, err = command("read", url, "--timeout", "0.1", "--retries", "0")
    assert (code, out) == (4, "")
    assert "600 bytes came, none of them a frame: wrong baud rate, or an RS-232 adapter?" in err
    assert "powered" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", ["--trace", "-vv"])
def test_every_byte_of_both_directions_is_shown_with_its_time_and_meaning(command: Command, option: str) -> None:
    code, out, err = command("read", "sim:", option, "--json")
    assert (code, out.count("\n")) == (0, 1)
    assert REQUEST in err
    sent, received = err.split(" < ")
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{6} > 18 bytes sent, sim:$", sent, re.MULTILINE)
    assert "= read request" in sent
    assert received.startswith("36 bytes received, sim:")
    assert hex_rows(received).startswith("EB 90 EB 90 EB 90 00 A0 18 ")
    assert len(bytes.fromhex(hex_rows(received))) == 36
    assert re.search(r"= reading: battery 12\.\d\d V", received)


def test_garbage_is_shown(command: Command, controller: Callable[[Answer], str]) -> None:
    url = controller(lambda _: b"\x00\x7e\xff")
    _, _, err = command("read", url, "--timeout", "0.1", "--retries", "0", "--trace")
    assert "< 3 bytes received" in err
    assert "00 7E FF" in err
    assert "= no complete frame yet, 3 bytes" in err


@pytest.mark.parametrize("options", [(), ("-v",)], ids=["nothing", "-v"])
def test_without_being_asked_for_no_bytes_are_shown(command: Command, options: tuple[str, ...]) -> None:
    _, _, err = command("read", "sim:", *options)
    assert "EB 90" not in err


def record(what: str, data: bytes, at: float = 0.0) -> logging.LogRecord:
    made = logging.LogRecord(WIRE, logging.DEBUG, "", 0, "%s: %s %s", ("sim:", what, data.hex(" ")), None)
    made.created = at
    return made


def test_a_frame_in_pieces_is_decoded_with_its_last_piece() -> None:
    formatter = LogFormatter()
    frame = Frame(0, 0xAA, b"\x01").encode(start_up=False)
    first = formatter.format(record("received", frame[:5]))
    assert "= no complete frame yet" in first
    assert "= load state: on" in formatter.format(record("received", frame[5:]))


def test_a_frame_that_was_never_completed_does_not_swallow_the_next_one() -> None:
    formatter = LogFormatter()
    frame = Frame(0, 0xAA, b"\x01").encode(start_up=False)
    formatter.format(record("received", frame[:-2], 0.0))
    assert "= load state: on" in formatter.format(record("received", frame, 5.0))


def test_directions_do_not_mix() -> None:
    formatter = LogFormatter()
    frame = Frame(0, 0xAA, b"\x01").encode(start_up=False)
    formatter.format(record("sent", frame[:5]))
    assert "load" not in formatter.format(record("received", frame[5:]))


@pytest.mark.parametrize("size", [1, 20, 21, 4096])
def test_the_bytes_fit_on_80_columns(size: int) -> None:
    lines = LogFormatter().format(record("received", bytes(size))).splitlines()[:-1]
    assert all(len(line) <= 80 for line in lines)
    assert len(bytes.fromhex(hex_rows("\n".join(lines)))) == size


def test_other_records_stay_as_they_are() -> None:
    other = logging.LogRecord("tracer_async", logging.WARNING, "", 0, "connection lost", (), None)
    assert LogFormatter().format(other).endswith("WARNING tracer_async: connection lost")
