"""Recordings: what was recorded is read again, also after a crash and from a damaged file."""

from __future__ import annotations

import io
import json
import logging
import os
import tracemalloc
from collections.abc import Iterable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_async import CaptureError, Frame, RealtimeData, ResponseTimeoutError
from tracer_async.capture import (
    Burst,
    DamagedLine,
    LinkChange,
    MissingRecords,
    Record,
    Recorder,
    Recording,
    RecordingHeader,
    anonymized,
    decode_capture,
    read_capture,
    readings_of,
    to_line,
)

REPLY = bytes.fromhex("eb90eb90eb9000a018dc04500d000000005904980500000029000000013a760100d9697f")
REQUEST = Frame(0x16, 0xA0, b"").encode()

times = st.floats(0, 1e6).map(lambda t: round(t, 6))
walls = st.floats(0, 4e9).map(lambda t: round(t, 6))
bursts = st.builds(Burst, st.sampled_from(["client", "controller"]), st.binary(max_size=80), times, walls)
ups = st.builds(lambda t, time: LinkChange(up=True, t=t, time=time), times, walls)
downs = st.builds(LinkChange, st.just(False), times, walls, st.booleans(), st.text(max_size=20))
missing = st.builds(MissingRecords, st.integers(1, 1000), times, walls)
names = st.text(max_size=20)
headers = st.builds(RecordingHeader, names, names, names, names, st.none() | st.floats(0.1, 60))
records = st.lists(bursts | ups | downs | missing, max_size=12)


def text_of(records: list[Record]) -> bytes:
    return b"".join(map(to_line, records))


def read(data: bytes) -> Recording:
    return Recording.read(io.BytesIO(data))


SAMPLE: list[Record] = [
    RecordingHeader("tcp://bridge:8088", "client", "2026-06-01T10:00:00.000Z", "tracer-async 0.1.0", 1.0),
    LinkChange(up=True, t=0.0, time=1780308000.0),
    Burst("client", REQUEST, 0.1, 1780308000.1),
    Burst("controller", REPLY, 0.15, 1780308000.15),
    Burst("client", REQUEST, 5.1, 1780308005.1),
    LinkChange(False, 6.2, 1780308006.2, False, "reset"),
]


# Reading and writing


@given(headers, records)
def test_any_records_are_read_as_they_were_written(header: RecordingHeader, records: list[Record]) -> None:
    recording = read(text_of([header, *records]))
    assert recording.header == header
    assert list(recording.records) == [header, *records]
    assert not recording.damaged


@given(st.lists(st.tuples(st.sampled_from(["client", "controller"]), st.binary(max_size=60), times), max_size=20))
def test_what_a_recorder_is_given_is_in_its_file(
    tmp_path_factory: pytest.TempPathFactory, given_bursts: list[tuple[str, bytes, float]]
) -> None:
    path = tmp_path_factory.mktemp("recorder") / "line.jsonl"
    with Recorder(path) as recorder:
        recorder.begin("sim:", 0.0)
        for sender, data, now in given_bursts:
            recorder.record(sender, data, now)
    assert [(burst.sender, burst.data, burst.t) for burst in Recording.read(path).bursts] == given_bursts


def test_a_file_torn_at_any_byte_loses_only_its_last_line() -> None:
    whole = text_of(SAMPLE)
    for size in range(len(whole) + 1):
        data = whole[:size]
        ends_before_its_line_end = whole[size : size + 1] == b"\n"
        complete = data.count(b"\n") + ends_before_its_line_end
        if not complete:
            with pytest.raises(CaptureError):
                read(data)
            continue
        recording = read(data)
        assert list(recording.records) == SAMPLE[:complete]
        is_torn = not data.endswith(b"\n") and not ends_before_its_line_end
        assert [line.number for line in recording.damaged] == ([complete + 1] if is_torn else [])
        assert all("end is missing" in line.reason for line in recording.damaged)


@given(st.data(), st.integers(0, 255))
def test_a_changed_byte_is_reported_and_costs_no_other_line(data: st.DataObject, byte: int) -> None:
    lines = [to_line(record) for record in SAMPLE]
    number = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.integers(0, len(lines[number]) - 2))  # not the line end
    if byte in b"\n" or lines[number][at] == byte:
        return
    lines[number] = lines[number][:at] + bytes((byte,)) + lines[number][at + 1 :]
    recording = read(b"".join(lines))
    others = SAMPLE[:number] + SAMPLE[number + 1 :]
    if recording.damaged:
        assert [line.number for line in recording.damaged] == [number + 1]
        assert list(recording.records) == others
    else:  # the name of the checksum, or a space at the end, was changed
        assert list(recording.records) == SAMPLE


@given(st.data(), st.binary(min_size=1, max_size=200))
def test_garbage_between_lines_is_reported_and_costs_no_line(data: st.DataObject, garbage: bytes) -> None:
    lines = [to_line(record) for record in SAMPLE]
    at = data.draw(st.integers(0, len(lines)))
    try:
        if not garbage.strip() or "format" in json.loads(garbage):
            return
    except (ValueError, TypeError, RecursionError):
        pass
    recording = read(b"".join([*lines[:at], garbage, b"\n", *lines[at:]]))
    assert list(recording.records) == SAMPLE
    assert recording.damaged == tuple(
        DamagedLine(at + 1 + index, "it is not a line of a recording")
        for index, line in enumerate(garbage.split(b"\n"))
        if line.strip()
    )


class Source(io.BytesIO):
    """A file whose reads return the *pieces*, which are made while it is read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__()
        self._pieces = iter(pieces)

    def read(self, _size: int | None = -1, /) -> bytes:
        return next(self._pieces, b"")


TOO_LONG = "it has more than 1048576 bytes"
LONG_LINES = {
    "zeros": bytes(3 << 20),
    "spaces": b" " * (3 << 20),
    "a valid line and spaces": to_line(SAMPLE[2]).rstrip() + b" " * (1 << 20),
    "a burst": b'{"from": "controller", "hex": "' + b"eb90" * (1 << 19) + b'"}',
    "one byte too long": b"x" * (1 << 20),
}


@pytest.mark.parametrize("size", [4000, 1 << 16, (1 << 20) + 7, 1 << 24])
@pytest.mark.parametrize("at", [0, 1, 4, len(SAMPLE)])
@pytest.mark.parametrize("line", LONG_LINES.values(), ids=LONG_LINES)
def test_a_line_of_more_than_1_mib_is_reported_and_costs_no_other_line(line: bytes, at: int, size: int) -> None:
    lines = [to_line(record) for record in SAMPLE]
    data = b"".join([*lines[:at], line, b"\n", *lines[at:]])
    recording = Recording.read(Source(data[start : start + size] for start in range(0, len(data), size)))
    assert list(recording.records) == SAMPLE
    assert recording.damaged == (DamagedLine(at + 1, TOO_LONG),)


def test_a_line_of_1_mib_with_its_end_is_read() -> None:
    line = to_line(SAMPLE[2]).rstrip().ljust((1 << 20) - 1) + b"\n"
    assert read(text_of(SAMPLE[:2]) + line + text_of(SAMPLE[3:])).damaged == ()


def test_a_long_line_without_an_end_is_reported_once() -> None:
    recording = read(text_of(SAMPLE) + bytes(3 << 20))
    assert list(recording.records) == SAMPLE
    assert recording.damaged == (DamagedLine(len(SAMPLE) + 1, TOO_LONG),)


def test_a_line_of_any_length_is_read_with_bounded_memory() -> None:
    tracemalloc.start()
    try:
        pieces = chain([text_of(SAMPLE[:3])], repeat(bytes(1 << 16), 1600), [b"\n" + text_of(SAMPLE[3:])])
        recording = Recording.read(Source(pieces))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert list(recording.records) == SAMPLE
    assert [line.number for line in recording.damaged] == [4]
    assert peak < 8 << 20  # the line has 100 MiB


def test_a_line_without_checksum_is_read() -> None:
    line = b'{"t": 0, "time": 1.5, "from": "controller", "hex": "eb90"}'
    assert read(line).records == (Burst("controller", b"\xeb\x90", 0.0, 1.5),)


def test_a_newer_version_is_refused() -> None:
    header = b'{"format": "tracer-async recording", "version": 2}\n'
    with pytest.raises(CaptureError, match=r"version 2.*update"):
        read(header + to_line(SAMPLE[2]))


@pytest.mark.parametrize("data", [b"", b"\n \n", b"text", b"[1]\n", b'{"hex": 1}', bytes(3000)])
def test_what_is_no_recording_is_an_error(data: bytes) -> None:
    with pytest.raises(CaptureError):
        read(data)


# The recorder


def test_a_recorder_continues_a_file_whose_last_line_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    path.write_bytes(text_of(SAMPLE)[:-20])
    with Recorder(path) as recorder:
        recorder.begin("sim:", 7.0)
        recorder.record("client", REQUEST, 7.5)
    recording = Recording.read(path)
    assert list(recording.records[: len(SAMPLE) - 1]) == SAMPLE[:-1]
    assert [line.number for line in recording.damaged] == [len(SAMPLE)]
    assert isinstance(recording.records[-2], RecordingHeader)
    assert recording.bursts[-1][:3] == ("client", REQUEST, 0.5)


def test_a_file_that_is_no_recording_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("notes\n", encoding="utf-8")
    with pytest.raises(CaptureError, match="not a recording"):
        Recorder(path)
    assert path.read_text(encoding="utf-8") == "notes\n"


def test_a_path_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Recorder(tmp_path / "missing" / "line.jsonl")


def test_a_recorder_records_one_line_only(tmp_path: Path) -> None:
    with Recorder(tmp_path / "line.jsonl") as recorder:
        recorder.begin("sim:", 0.0)
        with pytest.raises(RuntimeError, match="one client"):
            recorder.begin("sim:", 0.0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_logged_once_and_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tracer_async.capture"), Recorder("/dev/full") as recorder:
        recorder.begin("sim:", 0.0)
        for now in range(100):
            recorder.record("client", REQUEST, float(now))
    assert len([record for record in caplog.records if "cannot write" in record.getMessage()]) == 1


def test_what_a_disk_that_hangs_costs_is_counted(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)  # so that neither side waits for the other one
    try:
        recorder = Recorder(pipe)
        recorder.begin("sim:", 0.0)
        given_bursts = 10_000
        for now in range(given_bursts):
            recorder.record("controller", bytes(4096), float(now))
        recorder.end()
        found = b""
        text = bytearray()
        while b'"missing"' not in found:
            found = os.read(reader, 1 << 16)
            text += found
        recorder.close()
        os.set_blocking(reader, False)
        text += os.read(reader, 1 << 16) if not text.endswith(b"\n") else b""
    finally:
        os.close(reader)
    recording = read(bytes(text))
    assert recording.missing > 0
    assert len(recording.bursts) + recording.missing == given_bursts


# Readings


def test_readings_have_their_times_and_errors() -> None:
    good, bad = readings_of(Recording.of(SAMPLE), "tcp://bridge:8088")
    assert good.time == 1780308000.15
    assert good.data == RealtimeData.from_bytes(REPLY[9:33])
    assert good.age == pytest.approx(0.05)
    assert bad.time == pytest.approx(1780308006.1)
    assert isinstance(bad.error, ResponseTimeoutError)
    assert bad.error.address == "tcp://bridge:8088"


def test_without_requests_each_reply_is_a_reading_of_unknown_age() -> None:
    readings = list(readings_of(Recording.of([Burst("controller", REPLY[:9]), Burst("controller", REPLY[9:] + REPLY)])))
    assert [reading.age for reading in readings] == [float("inf")] * 2
    assert all(reading.ok for reading in readings)


def test_late_replies_and_copies_are_no_readings() -> None:
    def at(t: float, sender: str, data: bytes) -> Burst:
        return Burst(sender, data, t, 1000.0 + t)

    late = Recording.of([SAMPLE[0], at(0, "client", REQUEST), at(1.5, "controller", REPLY)])
    assert [reading.ok for reading in readings_of(late)] == [False]
    double = Recording.of([SAMPLE[0], at(0, "client", REQUEST), at(0.1, "controller", REPLY + REPLY)])
    assert [reading.ok for reading in readings_of(double)] == [True]


@pytest.mark.parametrize("missing_at", [0.2, 4.9], ids=["before the timeout", "after the timeout"])
def test_a_request_whose_answer_may_be_a_missing_record_gives_no_error(missing_at: float) -> None:
    recording = Recording.of(
        [
            SAMPLE[0],
            Burst("client", REQUEST, 0.1, 1000.1),
            Burst("controller", REPLY[:20], 0.15, 1000.15),
            MissingRecords(3, missing_at, 1000 + missing_at),
            Burst("controller", REPLY[20:], 5.0, 1005.0),
            Burst("client", REQUEST, 10.0, 1010.0),
            Burst("controller", REPLY, 10.1, 1010.1),
            Burst("client", REQUEST, 20.0, 1020.0),
            LinkChange(False, 30.0, 1030.0, False, "reset"),
        ]
    )
    answered, failed = readings_of(recording)
    assert (answered.time, answered.data) == (1010.1, RealtimeData.from_bytes(REPLY[9:33]))
    # An upper limit: this may be the answer to the first request.
    assert answered.age == pytest.approx(10.0)
    assert failed.time == pytest.approx(1021)
    assert isinstance(failed.error, ResponseTimeoutError)


# Captures


def test_a_recording_is_a_capture(caplog: pytest.LogCaptureFixture) -> None:
    data = text_of(SAMPLE[:3]) + b"garbage\n" + text_of(SAMPLE[3:])[:-3]
    with caplog.at_level(logging.WARNING, "tracer_async.capture"):
        events = [(captured.sender, captured.event) for captured in read_capture(io.BytesIO(data))]
    frames = [(sender, event) for sender, event in events if isinstance(event, Frame)]
    assert [sender for sender, _ in frames] == ["client", "controller", "client"]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "line 4 was skipped",
        "line 7 was skipped",
    ]
    pytest.importorskip("numpy")
    assert len(decode_capture(data).readings) == 1


def test_a_recording_with_a_line_of_more_than_1_mib_is_a_capture(caplog: pytest.LogCaptureFixture) -> None:
    data = text_of(SAMPLE[:3]) + bytes(3 << 20) + b"\n" + text_of(SAMPLE[3:])
    with caplog.at_level(logging.WARNING, "tracer_async.capture"):
        frames = [captured.sender for captured in read_capture(io.BytesIO(data)) if isinstance(captured.event, Frame)]
    assert frames == ["client", "controller", "client"]
    assert [record.getMessage() for record in caplog.records] == [f"line 4 was skipped: {TOO_LONG}"]
    pytest.importorskip("numpy")
    assert len(decode_capture(data).readings) == 1


@pytest.mark.parametrize("damage", [b"\x00", b"\xff", b"\xeb\x90"], ids=["zero", "FF", "sync"])
def test_a_recording_with_bytes_that_are_not_text_is_a_capture(damage: bytes) -> None:
    data = text_of(SAMPLE[:1]) + damage * 100 + b"\n" + text_of(SAMPLE[1:])
    frames = [captured.sender for captured in read_capture(io.BytesIO(data)) if isinstance(captured.event, Frame)]
    assert frames == ["client", "controller", "client"]


def test_a_recording_with_many_damaged_lines_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    data = text_of(SAMPLE) + b"garbage\n" * 500
    with caplog.at_level(logging.WARNING, "tracer_async.capture"):
        list(read_capture(io.BytesIO(data)))
    assert len(caplog.records) == 21
    assert "500" in caplog.records[-1].getMessage()


# Anonymizing


def with_names() -> list[Record]:
    return [
        RecordingHeader("tcp://bridge.example:8088", "client", "", "tracer-async 0.1.0", 1.0),
        LinkChange(up=True, t=0.0, time=1.0),
        Burst("controller", b"ESP-link at bridge.exa", 0.0, 1.0),
        Burst("controller", b"mple\r\n" + REPLY[:20], 0.1, 1.1),
        Burst("client", REQUEST, 0.2, 1.2),
        Burst("bridge.example", REQUEST, 0.2, 1.2),
        Burst("controller", REPLY[20:] + b"\xeb\x90\xeb\x90\xeb\x90\x00\xa0\x18bridge.example", 0.3, 1.3),
        LinkChange(False, 0.4, 1.4, False, "bridge.example: reset"),
    ]


def test_an_anonymous_recording_has_no_names_and_the_same_frames() -> None:
    recording = Recording.of(with_names())
    clean = anonymized(recording)
    assert b"example" not in text_of(list(clean.records))
    assert b"example" not in b"".join(burst.data for burst in clean.bursts if burst.sender == "controller")
    assert [len(burst.data) for burst in clean.bursts] == [len(burst.data) for burst in recording.bursts]
    before, after = ([(r.time, r.data, str(r.error)) for r in readings_of(each)] for each in (recording, clean))
    assert after == before
    assert sum(REPLY in b"".join(b.data for b in r.bursts if b.sender == "controller") for r in (clean, recording)) == 2


@given(st.lists(bursts | ups | downs, min_size=1, max_size=12))
def test_an_anonymous_recording_keeps_all_times_and_sizes(given_records: list[Any]) -> None:
    clean = anonymized(Recording.of(given_records))
    assert len(clean.records) == len(given_records)
    for before, after in zip(given_records, clean.records, strict=True):
        if isinstance(before, Burst):
            assert isinstance(after, Burst)
            assert (before.t, before.time, len(before.data)) == (after.t, after.time, len(after.data))


# Hostile files

HEADER = {"format": "tracer-async recording", "version": 1, "recorded": "sim:", "timeout": 1.0}


def burst_line(t: float, time: float, sender: str = "controller", data: bytes = REPLY) -> dict[str, Any]:
    return {"t": t, "time": time, "from": sender, "hex": data.hex()}


def lines_of(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@pytest.mark.parametrize("time", [-1.0, 1e11, 1e300])
def test_a_line_with_a_time_that_no_clock_shows_is_damaged(time: float) -> None:
    good = burst_line(0.5, 0.5)
    recording = read(lines_of(HEADER, burst_line(0.1, time), good))
    assert [line.number for line in recording.damaged] == [2]
    assert [burst.time for burst in recording.bursts] == [0.5]


@pytest.mark.parametrize("t", [-1e11, 1e11, 1e300])
def test_a_line_with_seconds_that_no_recording_lasts_is_damaged(t: float) -> None:
    assert [line.number for line in read(lines_of(HEADER, burst_line(t, 1.0))).damaged] == [2]


@pytest.mark.parametrize("timeout", [-1.0, 1e300])
def test_a_header_with_a_timeout_that_is_none_is_damaged(timeout: float) -> None:
    recording = read(lines_of({**HEADER, "timeout": timeout}, burst_line(0.1, 0.1)))
    assert recording.header is None
    assert [line.number for line in recording.damaged] == [1]


@given(st.lists(st.tuples(st.sampled_from(["client", "controller"]), times), max_size=12))
def test_times_that_go_back_give_no_reading_a_negative_age(bursts: list[tuple[str, float]]) -> None:
    sent = [burst_line(t, 1e9 + t, sender, REQUEST if sender == "client" else REPLY) for sender, t in bursts]
    for reading in readings_of(read(lines_of(HEADER, *sent))):
        assert not reading.ok or reading.age >= 0


def test_after_another_header_the_times_begin_again() -> None:
    parts = [burst_line(500.0, 500.0, "client", REQUEST), burst_line(500.25, 500.25)]
    again = [burst_line(0.0, 9000.0, "client", REQUEST), burst_line(0.5, 9000.5)]
    readings = list(readings_of(read(lines_of(HEADER, *parts, HEADER, *again))))
    assert [(reading.time, reading.age) for reading in readings] == [(500.25, 0.25), (9000.5, 0.5)]
