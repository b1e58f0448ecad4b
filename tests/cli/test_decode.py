"""What is printed of a capture."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command, Start, environment
from tracer_async.capture import decode_capture
from tracer_async.cli.output_file import progress
from tracer_async.protocol import START_UP, BatteryType, ControlSettings, Frame, LoadMode, RealtimeData
from tracer_async.records import DATA_FIELDS

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
TORN = bytes.fromhex("eb90eb90eb9000a018d204d30400000e005304a5050100001f00000000330a0000995b7f")
REPLY = bytes.fromhex("eb90eb90eb9000a018dc04500d000000005904980500000029000000013a760100d9697f")
SETTINGS = ControlSettings(
    battery_type=BatteryType.GEL,
    battery_capacity=100,
    temperature_compensation=3,
    load_mode_1=LoadMode.MANUAL,
    load_mode_2=LoadMode.OFF,
)


def file_of(folder: Path, data: bytes) -> str:
    path = folder / "capture"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("controller-to-display.bin", "214 frames, no damage, no noise: 7704 bytes in all"),
        ("display-to-controller.bin", "214 frames, no damage, no noise: 2782 bytes in all"),
        ("controller-night.bin", "356 frames, no damage, no noise: 12816 bytes in all"),
        ("display-session.jsonl", "428 frames, no damage, no noise: 10486 bytes in all"),
    ],
)
def test_the_sniffs_are_whole(command: Command, name: str, summary: str) -> None:
    if not CAPTURES.is_dir():
        pytest.skip("the captures are not here")
    code, out, err = command("decode", str(CAPTURES / name))
    assert (code, err) == (0, "")
    assert summary in out.splitlines()


def test_damage_noise_and_start_up_bytes_are_listed_with_their_offsets(command: Command, tmp_path: Path) -> None:
    capture = b"\xff\xfe" + Frame(0x16, 0xA0, b"").encode() + TORN + REPLY
    code, out, err = command("decode", file_of(tmp_path, capture))
    assert (code, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()[:5]] == [
        ["0", "noise"],
        ["2", "start-up"],
        ["8", "read"],
        ["20", "damaged"],
        ["56", "reading"],
    ]
    assert "wrong CRC" in out
    assert "2 frames, 1 damaged (36 bytes), 2 bytes of noise, 6 start-up bytes: 92 bytes in all" in out


def test_every_command_has_a_meaning(command: Command, tmp_path: Path) -> None:
    frames = [
        Frame(0x16, 0xAA, b"\1"),
        Frame(0, 0xAA, b"\0"),
        Frame(0x16, 0xAD, SETTINGS.to_bytes()),
        Frame(0, 0xAD, b""),
        Frame(0, 0xA0, b"12"),
        Frame(0, 0xB0, b"\x1b"),
    ]
    capture = file_of(tmp_path, b"".join(frame.encode(start_up=False) for frame in frames))
    lines = [json.loads(line) for line in command("decode", capture, "--json").out.splitlines()]
    kinds = ["load request", "load", "settings", "settings reply", "malformed", "unknown", "summary"]
    assert [line["kind"] for line in lines] == kinds
    assert (lines[2]["battery_capacity"], lines[2]["load_mode_1"]) == (100, "manual")
    assert [line["offset"] for line in lines[:3]] == [0, 13, 26]


def test_each_sender_has_its_own_decoder_and_offsets(command: Command, tmp_path: Path) -> None:
    # The reply comes in two bursts, the next request between them.
    request = Frame(1, 0xA0, b"\3").encode(start_up=False)
    bursts = [("display", request), ("controller", REPLY[:9]), ("display", request), ("controller", REPLY[9:])]
    capture = "\n".join(json.dumps({"from": sender, "hex": data.hex()}) for sender, data in bursts)
    out = command("decode", file_of(tmp_path, capture.encode()), "--json").out
    events = [json.loads(line) for line in out.splitlines()[:-1]]
    assert [(event["sender"], event["offset"], event["kind"]) for event in events] == [
        ("display", 0, "read request"),
        ("display", 13, "read request"),
        ("controller", 0, "reading"),
    ]


def test_the_summary_of_json_counts_every_byte(command: Command, tmp_path: Path) -> None:
    capture = START_UP + REPLY + b"?" + TORN
    summary = json.loads(command("decode", file_of(tmp_path, capture), "--json").out.splitlines()[-1])
    assert summary == {
        "kind": "summary",
        "frames": 1,
        "damaged": 1,
        "damaged_bytes": 36,
        "noise_bytes": 1,
        "start_up_bytes": 6,
        "bytes": 79,
        "frames_by_kind": {"reading": 1},
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, "there is no frame in it"),
        (b"Dear diary, today the sun shone.\n", "neither hexadecimal nor JSON lines"),
    ],
)
def test_a_file_that_is_no_capture_is_refused_in_one_sentence(
    command: Command, tmp_path: Path, content: bytes, words: str
) -> None:
    code, out, err = command("decode", file_of(tmp_path, content))
    assert (code, out) == (8, "")
    assert words in err
    assert err.count("\n") == 1


def test_what_stands_before_a_broken_line_is_decoded_and_summed_up(command: Command, tmp_path: Path) -> None:
    capture = json.dumps({"from": "controller", "hex": REPLY.hex()}) + '\n{"from": "contr'
    code, out, err = command("decode", file_of(tmp_path, capture.encode()))
    assert code == 8
    assert "1 frame, no damage" in out
    assert "line 2" in err


def test_a_format_can_be_forced(command: Command, tmp_path: Path) -> None:
    capture = file_of(tmp_path, REPLY.hex().encode())
    assert command("decode", capture).code == 0
    assert command("decode", capture, "--input-format", "binary").code == 8


def test_control_characters_of_a_capture_do_not_reach_the_terminal(command: Command, tmp_path: Path) -> None:
    burst = json.dumps({"from": "\x1b[2J", "hex": (b"\x1b[2J" + REPLY).hex()})
    assert "\x1b" not in command("decode", file_of(tmp_path, burst.encode())).out


def test_a_reader_that_has_had_enough_is_no_error(start: Start, tmp_path: Path) -> None:
    process = start("decode", file_of(tmp_path, REPLY * 20_000))
    assert process.stdout is not None
    assert "reading" in process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 0


def rows_of(capture: bytes) -> list[dict[str, Any]]:
    """The rows of a table of readings, as they should be, made by the streaming decoder's own types."""
    readings = decode_capture(capture).readings
    frames = [RealtimeData.from_bytes(capture[offset + 9 : offset + 33]) for offset in readings["offset"].tolist()]
    return [
        {"offset": offset, "sender": None, **data.to_dict()}
        for offset, data in zip(readings["offset"].tolist(), frames, strict=True)
    ]


def typed(row: dict[str, str]) -> dict[str, Any]:
    return {
        name: text or None
        if name in ("sender", "reserved")
        else text == "true"
        if text in ("true", "false")
        else json.loads(text)
        for name, text in row.items()
    }


def table_of(path: Path) -> list[dict[str, Any]]:
    """Read a table back, each value as rows_of has it."""
    match path.suffix:
        case ".csv":
            return [typed(row) for row in csv.DictReader(io.StringIO(path.read_text("utf-8")))]
        case ".json":
            events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            assert [event["kind"] for event in events].index("summary") == len(events) - 1
            columns = ("offset", "sender", *DATA_FIELDS)
            return [{name: event[name] for name in columns} for event in events if event["kind"] == "reading"]
        case _:
            parquet = pytest.importorskip("pyarrow.parquet")
            rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
            return rows


FORMATS = ["csv", "json", "parquet"]
SUMMARY_ON_STANDARD_ERROR = ("csv", "parquet")


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_of_the_readings(command: Command, tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    capture = b"\xff" + Frame(0x16, 0xA0, b"").encode() + (REPLY + TORN) * 3 + Frame(0, 0xA0, b"12").encode() + REPLY
    table = tmp_path / f"table.{form}"
    code, out, err = command("decode", file_of(tmp_path, capture), "--format", form, "-o", str(table))
    assert (code, out) == (0, "")
    summary = (
        "4 readings in 6 frames, 3 damaged (108 bytes), 1 byte of noise, 12 start-up bytes: "
        f"{len(capture)} bytes in all\n"
    )
    assert err == (summary if form in SUMMARY_ON_STANDARD_ERROR else "")
    assert table_of(table) == rows_of(capture)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_names_the_senders(command: Command, tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    request = Frame(1, 0xA0, b"\3").encode(start_up=False)
    bursts = [("display", request), ("controller", REPLY[:9]), ("display", request), ("controller", REPLY[9:] + REPLY)]
    capture = "\n".join(json.dumps({"from": sender, "hex": data.hex()}) for sender, data in bursts)
    table = tmp_path / f"table.{form}"
    assert command("decode", file_of(tmp_path, capture.encode()), "--format", form, "--output", str(table)).code == 0
    assert table_of(table) == [row | {"sender": "controller"} for row in rows_of(REPLY * 2)]


@pytest.mark.parametrize("form", ["csv", "parquet"])  # JSON escapes them
def test_control_characters_in_the_name_of_a_sender_are_not_in_a_table(
    command: Command, tmp_path: Path, form: str
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    lines = [json.dumps({"from": sender, "hex": REPLY.hex()}) for sender in ("\ud800", "\x1b[2J", "Zähler 1")]
    table = tmp_path / f"table.{form}"
    capture = file_of(tmp_path, "\n".join(lines).encode())
    assert command("decode", capture, "-f", form, "-o", str(table)).code == 0
    assert [row["sender"] for row in table_of(table)] == ["?", "?[2J", "Zähler 1"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_of_many_chunks(command: Command, tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    count = 140_000 if form == "parquet" else 10_000
    table = tmp_path / f"table.{form}"
    capture = file_of(tmp_path, REPLY * count)
    assert command("decode", capture, "--format", form, "-o", str(table)).code == 0
    if form == "parquet":
        from pyarrow import parquet

        file = parquet.ParquetFile(table)
        assert file.metadata.num_row_groups == 2
        assert file.read(["offset"])["offset"].to_pylist() == list(range(0, count * len(REPLY), len(REPLY)))
    else:
        assert [row["offset"] for row in table_of(table)] == list(range(0, count * len(REPLY), len(REPLY)))


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_goes_down_a_pipe(tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    done = subprocess.run(
        [sys.executable, "-m", "tracer_async", "decode", "-", "--format", form],
        input=REPLY * 3,
        capture_output=True,
        env=environment(),
        check=True,
    )
    table = tmp_path / f"table.{form}"
    table.write_bytes(done.stdout)
    assert table_of(table) == rows_of(REPLY * 3)
    assert done.stderr.startswith(b"3 readings in 3 frames, no damage") is (form in SUMMARY_ON_STANDARD_ERROR)


def test_rows_of_a_running_sniff_come_as_they_are_read() -> None:
    arguments = [sys.executable, "-m", "tracer_async", "decode", "-", "--format", "csv"]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # The first bytes tell the format, so it waits for some.
        process.stdin.write(REPLY * 8)
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"offset,sender,battery_voltage,")
        assert process.stdout.readline().startswith(b"0,,12.44,34.08,")
        process.stdin.close()


@pytest.mark.parametrize("form", FORMATS)
def test_what_stands_before_a_broken_line_is_in_the_table(command: Command, tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    capture = file_of(tmp_path, json.dumps({"hex": REPLY.hex()}).encode() + b'\n{"hex": "eb')
    table = tmp_path / f"table.{form}"
    code, out, err = command("decode", capture, "--format", form, "-o", str(table))
    assert (code, out) == (8, "")
    assert "line 2" in err
    assert table_of(table) == rows_of(REPLY)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_is_there_is_kept_when_there_is_nothing_to_write(
    command: Command, tmp_path: Path, form: str
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    table = tmp_path / "table"
    table.write_text("old")
    assert command("decode", file_of(tmp_path, b"\xff" * 99), "--format", form, "-o", str(table)).code == 8
    assert table.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_table_may_go_to_what_is_no_file(command: Command, tmp_path: Path) -> None:
    assert command("decode", file_of(tmp_path, REPLY), "--format", "csv", "-o", os.devnull).code == 0
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "--format", "csv"], "Two formats"),
        (["--format", "line-protocol"], "'line-protocol' is not one of"),
        (["--format", "xlsx"], "'xlsx' is not one of"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    command: Command, tmp_path: Path, arguments: list[str], words: str
) -> None:
    code, out, err = command("decode", file_of(tmp_path, REPLY), *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_a_terminal_gets_no_binary_table(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, _, err = command("decode", file_of(tmp_path, REPLY), "--format", "parquet")
    assert code == 2
    assert "add --output FILE" in err


@pytest.mark.parametrize("missing", ["pyarrow", "numpy"])
def test_a_missing_extra_is_one_sentence(tmp_path: Path, missing: str) -> None:
    table = tmp_path / "table"
    arguments = ["", "decode", file_of(tmp_path, REPLY), "--format", "parquet", "-o", str(table)]
    program = f"import sys; sys.modules[{missing!r}] = None; sys.argv = {arguments!r}; import tracer_async.__main__"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=False
    )
    assert (done.returncode, done.stdout) == (9, "")
    assert "pip install 'tracer-async[parquet]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not table.exists()


def test_text_needs_no_numpy(tmp_path: Path) -> None:
    arguments = ["", "decode", file_of(tmp_path, REPLY), "--format", "csv"]
    program = f"import sys; sys.modules['numpy'] = None; sys.argv = {arguments!r}; import tracer_async.__main__"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment(), check=True)
    assert done.stdout.count(b"\n") == 2


def test_a_long_file_shows_its_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "capture"
    path.write_bytes(bytes(5 << 20))
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("TERM", "xterm-256color")
    with path.open("rb") as file:
        with progress(file, quiet=True) as followed:
            assert followed is file
        with progress(file, quiet=False) as followed:
            assert len(followed.read(1 << 20)) == 1 << 20
            assert followed is not file
        assert not file.closed
    assert "Decoding" in shown.getvalue()
    path.write_bytes(REPLY)
    with path.open("rb") as file, progress(file, quiet=False) as followed:
        assert followed is file


def test_the_list_of_events_goes_to_a_file_too(command: Command, tmp_path: Path) -> None:
    capture = file_of(tmp_path, b"?" + REPLY + TORN)
    shown = command("decode", capture).out
    assert command("decode", capture, "-o", str(tmp_path / "list")) == (0, "", "")
    assert (tmp_path / "list").read_text("utf-8") == shown


def test_every_format_has_the_same_powers(command: Command, tmp_path: Path) -> None:
    """Among the products of steps of 0.01 V and 0.01 A are many that end in a 5 behind the second decimal."""
    pytest.importorskip("pyarrow")
    data = RealtimeData.from_bytes(REPLY[9:33])
    capture = b"".join(
        Frame(0, 0xA0, data._replace(battery_voltage=volts / 100, charge_current=amperes / 100).to_bytes()).encode()
        for volts in range(1225, 1275)
        for amperes in range(50, 100)
    )
    powers = []
    for form in FORMATS:
        table = tmp_path / f"table.{form}"
        assert command("decode", file_of(tmp_path, capture), "-f", form, "-o", str(table)).code == 0
        powers.append([(row["charge_power"], row["load_power"]) for row in table_of(table)])
    assert len(powers[0]) == 2500
    assert powers[0] == powers[1] == powers[2]


def test_the_summary_does_not_run_into_the_progress_bar(tmp_path: Path) -> None:
    """When the summary is printed, the bar has been erased and the cursor is at the start of its line."""
    import pty

    screen, terminal = pty.openpty()
    capture = tmp_path / "capture"
    capture.write_bytes(REPLY + bytes(5_000_000))
    arguments = [sys.executable, "-m", "tracer_async", "decode", str(capture), "-f", "csv", "-o", str(tmp_path / "x")]
    with subprocess.Popen(arguments, stdout=terminal, stderr=terminal, env=environment()) as process:
        os.close(terminal)
        seen = b""
        try:
            while data := os.read(screen, 4096):
                seen += data
        except OSError:  # how Linux reports that no process has the terminal open
            pass
    os.close(screen)
    assert process.returncode == 0
    bar, _, summary = seen.rpartition(b"\x1b[2K")
    assert b"Decoding" in bar
    assert summary.strip() == b"1 reading in 1 frame, no damage, 5000000 bytes of noise: 5000036 bytes in all"
    assert b"\x1b[?25h" in bar  # the cursor is shown again before the summary
