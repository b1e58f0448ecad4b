"""The Wireshark dissector, run by tshark on captures that the test writes, against the decoder of the package."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.contrib.pcap import Capture
from tests.peer import SETTINGS, load, realtime
from tracer_async.protocol import (
    START_UP,
    CorruptFrame,
    Event,
    Frame,
    FrameDecoder,
    ManualControl,
    Noise,
    RealtimeData,
    WriteSettings,
)
from tracer_async.protocol.values import LoadState
from tracer_async.simulator import Faults, SimulatedTracer
from tracer_async.simulator._faulty_port import FaultyPort

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "contrib" / "wireshark" / "mt5.lua"
REQUEST = Frame(0x16, 0xA0, b"").encode()
BARE_REQUEST = Frame(0x01, 0xA0, b"\x03").encode(start_up=False)

Dissect = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def dissect(require: Callable[[str], str], tmp_path: Path) -> Dissect:
    """Run tshark, by default in two passes. Return the part of the dissector in each packet that has one."""
    tshark = require("tshark")

    def run(capture: Capture, *options: str, passes: int = 2) -> list[dict[str, Any]]:
        path = capture.write(tmp_path / "capture.pcap")
        done = subprocess.run(
            [
                tshark,
                *(["-2"] if passes == 2 else []),
                "-r",
                str(path),
                "-X",
                f"lua_script:{SCRIPT}",
                "-T",
                "json",
                "--no-duplicate-keys",
                *options,
            ],
            capture_output=True,
            check=True,
        )
        assert b"Lua: Error" not in done.stderr + done.stdout
        assert b"rror during loading" not in done.stderr
        packets = [each["_source"]["layers"] for each in json.loads(done.stdout)]
        return [
            {"number": int(layers["frame"]["frame.number"]), **part}
            for layers in packets
            for part in as_list(layers.get("mt5"))
        ]

    return run


def as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def trees(parts: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    """The trees of all frames of a kind, each with the number of its packet."""
    for part in parts:
        for tree in as_list(part.get(f"mt5.{kind}_tree")):
            yield {"packet": part["number"], **tree}


def raw(parts: list[dict[str, Any]], kind: str) -> list[bytes]:
    return [bytes.fromhex(text.replace(":", "")) for part in parts for text in as_list(part.get(f"mt5.{kind}"))]


def decoded(data: bytes) -> list[Event]:
    return FrameDecoder().feed(data)


def experts(tree: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, value in tree.items():
        if name == "_ws.expert":
            for each in as_list(value):
                found += [key for key in each if key.startswith("mt5.expert.")]
        elif isinstance(value, dict):
            found += experts(value)
        elif isinstance(value, list):
            for each in value:
                found += experts(each) if isinstance(each, dict) else []
    return found


def exchange(capture: Capture, request: bytes, *replies: bytes, **ports: int) -> None:
    line = capture.conversation(**ports)
    line.send(1.0, request, by_client=True)
    for at, reply in enumerate(replies):
        line.send(1.0625 + at / 8, reply, by_client=False)


# One exchange.


def test_a_request_and_its_reply_are_linked_with_the_delay(dissect: Dissect) -> None:
    capture = Capture()
    exchange(capture, REQUEST, realtime())
    request, reply = trees(dissect(capture), "frame")
    assert (request["mt5.request"], reply["mt5.request"]) == ("1", "0")
    assert int(request["mt5.response_in"]) == reply["packet"] == 5
    assert int(reply["mt5.response_to"]) == request["packet"] == 4
    assert float(reply["mt5.time"]) == pytest.approx(0.0625, abs=1e-6)
    assert (request["mt5.crc.good"], reply["mt5.crc.good"]) == ("1", "1")
    assert experts(request) == experts(reply) == []


@pytest.mark.parametrize("seed", range(5))
def test_each_field_of_a_reading_is_that_of_the_python_decoder(dissect: Dissect, seed: int) -> None:
    random = Random(seed)
    flags = [random.randrange(2) for _ in range(7)]
    data = bytes([*random.randbytes(12), *flags[:3], random.randrange(256), *flags[3:], *random.randbytes(4)])
    capture = Capture()
    exchange(capture, REQUEST, Frame(0, 0xA0, data).encode(start_up=False))
    _, reply = trees(dissect(capture), "frame")
    fields = reply["mt5.data_tree"]
    expected = RealtimeData.from_bytes(data)
    for name in RealtimeData._fields[:-1]:
        value, shown = getattr(expected, name), fields[f"mt5.{name}"]
        assert float(shown) == pytest.approx(float(value), abs=1e-9), name
    reserved = "".join(fields[f"mt5.reserved_{at}"].replace(":", "") for at in (4, 15, 23))
    assert bytes.fromhex(reserved) == expected.reserved


def test_values_are_shown_with_their_units(dissect: Dissect, require: Callable[[str], str], tmp_path: Path) -> None:
    capture = Capture()
    exchange(capture, REQUEST, realtime())
    path = capture.write(tmp_path / "units.pcap")
    done = subprocess.run(
        [require("tshark"), "-r", str(path), "-X", f"lua_script:{SCRIPT}", "-O", "mt5"],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in (
        "Battery voltage: 12.44 V",
        "PV voltage: 34.08 V",
        "Battery temperature: 28 °C",
        "Charge current: 3.74 A",
    ):
        assert line in done.stdout
    assert done.stdout.count("CRC: 0xd969 (correct)") == 1


def test_settings_and_the_load_are_shown(dissect: Dissect) -> None:
    capture = Capture()
    command = WriteSettings(SETTINGS)
    line = capture.conversation()
    line.send(1.0, REQUEST, by_client=True)
    line.send(1.1, realtime(), by_client=False)
    line.send(2.0, Frame(0x16, 0xAD, command.to_bytes()).encode(), by_client=True)
    line.send(2.1, Frame(0, 0xAD, b"").encode(start_up=False), by_client=False)
    line.send(3.0, Frame(0x16, 0xAA, ManualControl(LoadState.ON).to_bytes()).encode(), by_client=True)
    line.send(3.1, load(1), by_client=False)
    _, _, settings, written, switch, switched = trees(dissect(capture), "frame")
    fields = settings["mt5.data_tree"]
    assert int(fields["mt5.battery_capacity"]) == SETTINGS.battery_capacity
    assert int(fields["mt5.battery_type"]) == SETTINGS.battery_type
    assert int(fields["mt5.temperature_compensation"]) == SETTINGS.temperature_compensation
    assert int(fields["mt5.load_mode_1"]) == SETTINGS.load_mode_1
    assert int(fields["mt5.load_mode_2"]) == SETTINGS.load_mode_2
    assert int(written["mt5.response_to"]) == settings["packet"]
    assert (switch["mt5.request"], switched["mt5.request"]) == ("1", "0")
    assert int(switched["mt5.response_to"]) == switch["packet"]
    assert switched["mt5.data_tree"]["mt5.load_state"] == "1"


# Segments.


@pytest.mark.parametrize("request_bytes", [REQUEST, BARE_REQUEST], ids=["start-up", "bare"])
def test_frames_are_reassembled_wherever_the_segments_are_split(dissect: Dissect, request_bytes: bytes) -> None:
    reply = realtime()
    sizes = len(request_bytes), len(reply)
    for at in range(1, max(sizes)):
        capture = Capture()
        line = capture.conversation()
        for direction, data in ((True, request_bytes), (False, reply)):
            cut = min(at, len(data) - 1)
            begin = 1.0 if direction else 1.5
            line.send(begin, data[:cut], by_client=direction)
            last = line.send(begin + 0.25, data[cut:], by_client=direction)
            assert last
        parts = dissect(capture)
        assert raw(parts, "frame") == [request_bytes.removeprefix(START_UP), reply], at
        assert [tree["packet"] for tree in trees(parts, "frame")] == [5, 7]
        assert float([*trees(parts, "frame")][1]["mt5.time"]) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 36, 50, 100])
def test_a_stream_in_pieces_of_any_size_has_the_events_of_the_python_decoder(dissect: Dissect, size: int) -> None:
    random = Random(size)
    stream = damaged_stream(random, 12)
    capture = Capture()
    line = capture.conversation()
    line.send(0.5, REQUEST, by_client=True)
    for at in range(0, len(stream), size):
        line.send(1.0 + at / 1000, stream[at : at + size], by_client=False)
    check_events(dissect(capture), stream)


def damaged_stream(random: Random, replies: int) -> bytes:
    """Replies of a simulated controller with faults that change bytes."""
    kinds = ("double", "flip", "cut", "tear", "stray", "id", "foreign")
    port = FaultyPort(SimulatedTracer(), Faults(*(f"{kind}@30%" for kind in kinds), seed=random.randrange(1000)))
    steps = [step for _ in range(replies) for step in port.feed(REQUEST)]
    # A good frame at the end, so that nothing is pending.
    return b"".join(step for step in steps if isinstance(step, bytes)) + realtime()


def check_events(parts: list[dict[str, Any]], stream: bytes) -> None:
    """Compare what the controller has sent. The request is the first frame."""
    events = decoded(stream)
    expected = [event.encode(start_up=False) for event in events if isinstance(event, Frame)]
    assert raw(parts, "frame")[1:] == expected
    assert raw(parts, "damaged") == [event.raw for event in events if isinstance(event, CorruptFrame)]
    reasons = [tree["mt5.reason"] for tree in trees(parts, "damaged")]
    assert reasons == [event.reason.value for event in events if isinstance(event, CorruptFrame)]
    outside = b"".join(raw(parts, "outside")).replace(START_UP, b"", 1)
    assert outside == b"".join(event.raw for event in events if isinstance(event, Noise))
    for tree in trees(parts, "damaged"):
        assert "mt5.expert.damaged" in experts(tree)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_damaged_streams_in_random_segments(dissect: Dissect, seed: int, passes: int) -> None:
    random = Random(seed)
    stream = damaged_stream(random, 20)
    capture = Capture()
    line = capture.conversation()
    line.send(0.5, REQUEST, by_client=True)
    at = 0
    while at < len(stream):
        size = random.choice((1, 5, 20, 36, 37, 80))
        line.send(1.0 + at / 1000, stream[at : at + size], by_client=False)
        at += size
    check_events(dissect(capture, passes=passes), stream)


# Requests and replies.


def test_a_reply_that_comes_twice_is_marked(dissect: Dissect) -> None:
    capture = Capture()
    exchange(capture, REQUEST, realtime(), realtime())
    _, first, second = trees(dissect(capture), "frame")
    assert experts(first) == []
    assert experts(second) == ["mt5.expert.doubled"]
    assert "mt5.response_to" not in second


def test_a_reply_without_a_request_is_marked(dissect: Dissect) -> None:
    capture = Capture()
    line = capture.conversation()
    line.send(1.0, realtime(), by_client=False)
    (reply,) = trees(dissect(capture), "frame")
    assert experts(reply) == ["mt5.expert.unsolicited"]


def test_a_request_without_a_reply_is_marked(dissect: Dissect) -> None:
    capture = Capture()
    exchange(capture, REQUEST)
    (request,) = trees(dissect(capture), "frame")
    assert experts(request) == ["mt5.expert.unanswered"]


def test_a_late_reply_is_marked_with_its_delay(dissect: Dissect) -> None:
    capture = Capture()
    line = capture.conversation()
    line.send(1.0, REQUEST, by_client=True)
    line.send(3.5, realtime(), by_client=False)
    _, reply = trees(dissect(capture), "frame")
    assert experts(reply) == ["mt5.expert.late"]
    assert float(reply["mt5.time"]) == pytest.approx(2.5, abs=1e-6)


def test_replies_that_are_one_request_behind_are_linked_in_order(dissect: Dissect) -> None:
    capture = Capture()
    line = capture.conversation()
    first = line.send(1.0, REQUEST, by_client=True)
    second = line.send(3.0, REQUEST, by_client=True)
    line.send(3.25, realtime(), by_client=False)
    line.send(3.5, realtime(), by_client=False)
    _, _, *replies = trees(dissect(capture), "frame")
    assert [int(reply["mt5.response_to"]) for reply in replies] == [first, second]
    assert [float(reply["mt5.time"]) for reply in replies] == pytest.approx([2.25, 0.5], abs=1e-6)
    assert [experts(reply) for reply in replies] == [["mt5.expert.late"], []]


def test_a_reply_after_a_lost_request_belongs_to_the_next_one_and_says_that_this_is_not_certain(
    dissect: Dissect,
) -> None:
    capture = Capture()
    line = capture.conversation()
    lost = line.send(1.0, REQUEST, by_client=True)
    again = line.send(2.0, REQUEST, by_client=True)
    line.send(2.25, realtime(), by_client=False)
    third = line.send(4.0, REQUEST, by_client=True)
    line.send(4.25, realtime(), by_client=False)
    frames = {tree["packet"]: tree for tree in trees(dissect(capture), "frame")}
    assert experts(frames[lost]) == ["mt5.expert.unanswered"]
    assert int(frames[again + 1]["mt5.response_to"]) == again
    assert experts(frames[again + 1]) == ["mt5.expert.ambiguous"]
    assert int(frames[third + 1]["mt5.response_to"]) == third
    assert [float(frames[number]["mt5.time"]) for number in (again + 1, third + 1)] == pytest.approx(
        [0.25] * 2, abs=1e-6
    )


def test_two_connections_are_separate(dissect: Dissect) -> None:
    capture = Capture()
    one, two = capture.conversation(40001, 40000), capture.conversation(40002, 40000)
    asked = one.send(1.0, REQUEST, by_client=True), two.send(1.01, REQUEST, by_client=True)
    two.send(1.05, realtime(), by_client=False)
    one.send(1.06, realtime(), by_client=False)
    _, _, to_two, to_one = trees(dissect(capture), "frame")
    assert (int(to_one["mt5.response_to"]), int(to_two["mt5.response_to"])) == asked


# The filters in the README.


FILTERS = re.findall(r"^\| `([^`]+)` \|", (SCRIPT.parent / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_each_filter_of_the_readme_shows_what_it_says(dissect: Dissect) -> None:
    capture = Capture()
    line = capture.conversation()
    good = [line.send(1.0, REQUEST, by_client=True), line.send(1.1, realtime(), by_client=False)]
    low = Frame(0, 0xA0, (1150).to_bytes(2, "little") + bytes(22)).encode(start_up=False)
    low_battery = [line.send(2.0, REQUEST, by_client=True), line.send(2.1, low, by_client=False)]
    switch = Frame(0x16, 0xAA, ManualControl(LoadState.ON).to_bytes()).encode()
    load_commands = [line.send(3.0, switch, by_client=True), line.send(3.1, load(1), by_client=False)]
    slow = [line.send(4.0, REQUEST, by_client=True), line.send(4.75, realtime(), by_client=False)]
    broken = bytearray(realtime())
    broken[12] ^= 0xFF
    damaged = [line.send(6.0, REQUEST, by_client=True), line.send(6.1, bytes(broken), by_client=False)]
    shown = {text: [part["number"] for part in dissect(capture, "-Y", text)] for text in FILTERS}
    assert shown == {
        "mt5": good + low_battery + load_commands + slow + damaged,
        "mt5.command == 0xaa": load_commands,
        "mt5.battery_voltage < 12": low_battery[1:],
        "mt5.time > 0.5": slow[1:],
        "mt5.damaged": damaged[1:],
        "mt5 && _ws.expert": damaged,
    }


# Ports and other protocols.


def test_a_port_of_another_protocol_needs_the_option_in_the_readme(dissect: Dissect) -> None:
    """Wireshark takes port 8088 for HTTP."""
    capture = Capture()
    exchange(capture, REQUEST, realtime(), server=8088)
    option = "tcp.try_heuristic_first:TRUE"
    assert option in (SCRIPT.parent / "README.md").read_text(encoding="utf-8")
    assert len([*trees(dissect(capture, "-o", option), "frame")]) == 2
    assert len([*trees(dissect(capture, "-d", "tcp.port==8088,mt5"), "frame")]) == 2


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\xeb\x90 and more", b"\xaa\x55\xaa\x00", bytes(range(256))]
)
def test_other_protocols_are_left_alone(dissect: Dissect, data: bytes) -> None:
    capture = Capture()
    exchange(capture, data, data)
    assert dissect(capture) == []


def test_a_banner_before_the_first_frame_is_marked(dissect: Dissect) -> None:
    capture = Capture()
    line = capture.conversation()
    line.send(0.5, b"ready\r\n" + realtime(), by_client=False)
    parts = dissect(capture)
    assert raw(parts, "outside") == [b"ready\r\n"]
    assert "mt5.expert.outside" in experts(next(trees(parts, "outside")))
