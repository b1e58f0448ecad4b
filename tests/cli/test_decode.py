"""What is printed of a capture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Start
from tracer_async.protocol import START_UP, BatteryType, ControlSettings, Frame, LoadMode

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
    assert lines[2]["settings"]["battery_capacity"] == 100
    assert [line["offset"] for line in lines[:3]] == [0, 13, 26]


def test_each_sender_has_its_own_decoder_and_offsets(command: Command, tmp_path: Path) -> None:
    # The reply comes in two bursts, the next request between them.
    request = Frame(1, 0xA0, b"\3").encode(start_up=False)
    bursts = [("display", request), ("controller", REPLY[:9]), ("display", request), ("controller", REPLY[9:])]
    capture = "\n".join(json.dumps({"from": sender, "hex": data.hex()}) for sender, data in bursts)
    out = command("decode", file_of(tmp_path, capture.encode()), "--json").out
    events = [json.loads(line) for line in out.splitlines()[:-1]]
    assert [(event["from"], event["offset"], event["kind"]) for event in events] == [
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
    assert command("decode", capture, "--format", "binary").code == 8


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
