"""``tracer-async replay``: what is printed, served and written of a recording."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Start
from tracer_async import Frame, TracerClient
from tracer_async.capture import Burst, LinkChange, Record, Recording, RecordingHeader, readings_of, to_line
from tracer_async.protocol import RealtimeData
from tracer_async.simulator import SimulatedTracer

ROOT = Path(__file__).parents[2]
REPORT = Path(__file__).parents[1] / "recordings" / "report.jsonl"
VOLTAGES = [12.99, 12.96, 13.0]


def test_readings_are_printed_with_their_times(command: Command) -> None:
    code, out, err = command("replay", str(REPORT))
    assert code == 0
    header, *lines = out.splitlines()
    assert header.split()[:2] == ["time", "bat_V"]
    assert [float(line.split()[1]) for line in lines] == VOLTAGES
    assert err.count("no answer to command A0") == 3


def test_each_format_has_the_readings_and_errors_in_order(command: Command) -> None:
    expected = list(readings_of(Recording.read(REPORT)))
    records = [json.loads(line) for line in command("replay", str(REPORT), "--json").out.splitlines()]
    assert [record["ok"] for record in records] == [reading.ok for reading in expected]
    assert [record["battery_voltage"] for record in records if record["ok"]] == VOLTAGES
    assert records[0]["time"].startswith("2026-11-25T19:23:15.")
    rows = list(csv.DictReader(io.StringIO(command("replay", str(REPORT), "--format", "csv").out)))
    assert [row["battery_voltage"] for row in rows if row["ok"] == "true"] == ["12.99", "12.96", "13.0"]
    points = command("replay", str(REPORT), "-f", "line-protocol").out.splitlines()
    assert [point.rsplit(" ", 1)[1] for point in points] == [f"{round(reading.time * 1e6)}000" for reading in expected]


def test_a_capture_without_times_is_replayed(command: Command, tmp_path: Path) -> None:
    reply = Frame(0, 0xA0, SimulatedTracer().realtime().to_bytes()).encode(start_up=False)
    path = tmp_path / "sniff.jsonl"
    path.write_bytes(json.dumps({"from": "controller", "hex": reply.hex()}).encode() * 1)
    code, out, _ = command("replay", str(path), "--json")
    assert code == 0
    assert json.loads(out)["time"] == "1970-01-01T00:00:00.000Z"


def test_damaged_lines_are_reported(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    first, *rest = REPORT.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"garbage\n" + b"".join(rest)[:-9])
    code, out, err = command("replay", str(path))
    assert code == 0
    assert len(out.splitlines()) == 1 + len(VOLTAGES)
    assert "line 2 was skipped: it is not a line of a recording" in err
    assert f"line {len(rest) + 2} was skipped: its end is missing" in err


@pytest.mark.parametrize(("text", "code"), [(b"", 8), (b"text\n", 8), (to_line(RecordingHeader("x")), 8)])
def test_what_has_no_reading_is_an_error(command: Command, tmp_path: Path, text: bytes, code: int) -> None:
    path = tmp_path / "line.jsonl"
    path.write_bytes(text)
    done = command("replay", str(path))
    assert done.code == code
    assert str(path) in done.err


def test_a_recording_of_silence_has_the_exit_code_of_silence(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    request = Frame(0x16, 0xA0, b"").encode()
    path.write_bytes(to_line(RecordingHeader("x")) + b"".join(to_line(Burst("client", request, t, t)) for t in (0, 5)))
    assert command("replay", str(path)).code == 4


def test_decode_reads_a_recording(command: Command, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    path.write_bytes(REPORT.read_bytes() + b"garbage\n")
    process = start("decode", str(path))
    out, err = process.communicate()
    assert process.returncode == 0
    assert "client       read request" in out
    assert "controller   reading" in out
    assert err == "line 17 was skipped: it is not a line of a recording\n"
    rows = list(csv.DictReader(io.StringIO(command("decode", str(path), "--format", "csv").out)))
    assert {row["battery_voltage"] for row in rows} > {"12.99", "12.96", "13.0"}  # `decode` shows late replies too


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "--tcp", "127.0.0.1:0"),
        ("--anonymize", "x", "--pty"),
        ("--loop",),
        ("--speed", "-1"),
        ("--speed", "x"),
    ],
)
def test_options_that_exclude_each_other_are_usage_errors(command: Command, arguments: tuple[str, ...]) -> None:
    code, out, _ = command("replay", str(REPORT), *arguments)
    assert (code, out) == (2, "")


# Serving


@pytest.mark.parametrize("arguments", [("--tcp", "127.0.0.1:0"), ("--pty",), ("--unix", "socket")], ids=lambda a: a[0])
async def test_a_recording_is_served(start: Start, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    arguments = tuple(str(tmp_path / argument) if argument == "socket" else argument for argument in arguments)
    process = start("replay", str(REPORT), *arguments, "--speed", "0")
    assert process.stdout is not None
    url = process.stdout.readline().removeprefix("listening on ").rstrip("\n")
    async with TracerClient(url) as tracer:
        assert [(await tracer.read_realtime()).battery_voltage for _ in range(3)] == VOLTAGES


async def test_a_looped_recording_begins_again(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    data = SimulatedTracer().realtime()
    reply = Frame(0, 0xA0, data.to_bytes()).encode(start_up=False)
    request = Frame(0x16, 0xA0, b"").encode()
    path.write_bytes(to_line(Burst("client", request)) + to_line(Burst("controller", reply)))
    process = start("replay", str(path), "--tcp", "127.0.0.1:0", "--loop")
    assert process.stdout is not None
    async with TracerClient(process.stdout.readline().removeprefix("listening on ").rstrip("\n")) as tracer:
        readings: list[RealtimeData] = [await tracer.read_realtime() for _ in range(5)]
    assert readings == [data] * 5


def test_a_url_serves_a_recording(command: Command) -> None:
    code, out, _ = command("watch", f"sim:?replay={REPORT}&speed=0", "--json", "--interval", "0.01", "--count", "3")
    assert code == 0
    assert [json.loads(line)["battery_voltage"] for line in out.splitlines()] == VOLTAGES


@pytest.mark.parametrize("text", [None, b"", b"text"])
def test_a_url_of_no_recording_is_a_wrong_address(command: Command, tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "line.jsonl"
    if text is not None:
        path.write_bytes(text)
    code, _, err = command("read", f"sim:?replay={path}")
    assert code == 2
    assert str(path) in err


# Anonymizing


def test_an_anonymous_copy_has_no_address(command: Command, tmp_path: Path) -> None:
    path, out = tmp_path / "line.jsonl", tmp_path / "report.jsonl"
    reply = Frame(0, 0xA0, SimulatedTracer().realtime().to_bytes()).encode(start_up=False)
    records: list[Record] = [
        RecordingHeader("tcp://bridge.example:8088"),
        Burst("controller", b"bridge.example\r\n" + reply, 0.0, 1.0),
    ]
    path.write_bytes(b"".join(map(to_line, records)))
    assert command("replay", str(path), "--anonymize", str(out)).code == 0
    assert b"example" not in out.read_bytes()
    assert b"example".hex() not in out.read_text(encoding="utf-8")
    assert Recording.read(out).bursts[0].data.endswith(reply)
    code, _, err = command("replay", str(path), "--anonymize", str(path))
    assert code == 2
    assert "'--anonymize'" in err


def test_the_whole_test_of_the_page_runs_by_itself() -> None:
    page = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
    block = page.partition("This is the whole test")[2].partition("```python\n")[2].partition("```")[0]
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "assert" in block


HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\nsecond line"


@pytest.mark.parametrize("output", ["text", "csv", "json", "line-protocol"])
def test_no_control_character_of_a_recording_reaches_the_terminal(
    command: Command, tmp_path: Path, output: str
) -> None:
    path = tmp_path / "line.jsonl"
    request = Frame(0x16, 0xA0, b"").encode()
    records: list[Record] = [
        RecordingHeader(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1.0),
        Burst(HOSTILE, request, 0.0, 0.0),
        LinkChange(False, 0.1, 0.1, False, HOSTILE),
        Burst("client", request, 1.0, 1.0),
        *Recording.read(REPORT).records[3:4],
        Burst("client", request, 9.0, 9.0),
        Burst("client", request, 19.0, 19.0),
    ]
    path.write_bytes(b"".join(map(to_line, records)))
    _, out, err = command("replay", str(path), "--format", output)
    assert "second line" in out + err
    assert all(letter.isprintable() for letter in (out + err).replace("\n", ""))
    assert not any(line.startswith("second line") for line in (out + err).splitlines())


def test_a_pause_of_centuries_is_no_traceback(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    reply = Frame(0, 0xA0, SimulatedTracer().realtime().to_bytes()).encode(start_up=False)
    path.write_bytes(b"".join(to_line(Burst("controller", reply, t, t)) for t in (0.0, 3e10)))
    process = start("replay", str(path), "--speed", "1")
    assert process.stdout is not None
    assert len([process.stdout.readline() for _ in range(2)]) == 2
    with pytest.raises(subprocess.TimeoutExpired):  # it waits
        process.wait(1)
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in process.communicate()[1]
