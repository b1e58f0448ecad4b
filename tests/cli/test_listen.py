"""The command that listens beside a meter."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Start
from tests.cli.terminals import ENTERED, LEFT, Terminal
from tests.promise.stamping_controller import LOAD, READ, frame, realtime
from tracer_async.capture import Recording, readings_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")

ASKED = bytes.fromhex("AA55AA55AA55EB90EB90EB9016A000B1A77F")
PAGES = [Path(__file__).parents[2] / page for page in ("README.md", "docs/listening.md", "docs/command.md")]
COMMANDS = {
    line
    for page in PAGES
    for line in re.findall(r"^\$ tracer-async (listen .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.fixture
def wire() -> Iterator[tuple[int, str]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    mode = termios.tcgetattr(slave)
    mode[4] = mode[5] = termios.B38400  # the command changes it when it listens
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    yield master, os.ttyname(slave)
    os.set_blocking(master, False)
    with pytest.raises(BlockingIOError):
        os.read(master, 1)  # the command has written nothing
    os.close(master)
    os.close(slave)


def until_it_listens(wire: tuple[int, str]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        port = os.open(wire[1], os.O_RDONLY | os.O_NOCTTY)
        speed = termios.tcgetattr(port)[5]
        os.close(port)
        if speed == termios.B9600:
            return
        time.sleep(0.02)
    raise AssertionError("it does not listen")


def test_each_exchange_is_a_line(start: Start, wire: tuple[int, str]) -> None:
    process = start("listen", wire[1], "--count", "3")
    until_it_listens(wire)
    os.write(wire[0], ASKED + frame(READ, realtime(1234)) + ASKED + frame(LOAD, b"\x01") + frame(READ, realtime(1)))
    out, err = process.communicate(timeout=30)
    assert err == ""
    lines = out.splitlines()
    assert re.search(r"read request: ID 16 \| reading: battery 12\.34 V .* after \d+ ms$", lines[0])
    assert len(lines) == 3


def test_a_damaged_reply_is_not_called_a_missing_one(start: Start, wire: tuple[int, str]) -> None:
    process = start("listen", wire[1], "--count", "2")
    until_it_listens(wire)
    damaged = bytearray(frame(READ, realtime(1234)))
    damaged[12] ^= 0xFF
    os.write(wire[0], ASKED + damaged + ASKED)
    out, err = process.communicate(timeout=30)
    assert err == ""
    assert [line.rpartition(" | ")[2] for line in out.splitlines()] == ["damaged reply", "no reply"]


def test_json_has_an_object_for_each_exchange(start: Start, wire: tuple[int, str]) -> None:
    process = start("listen", wire[1], "--json", "--count", "2")
    until_it_listens(wire)
    os.write(wire[0], ASKED + frame(READ, realtime(1234)) + ASKED)
    out, err = process.communicate(timeout=30)
    assert err == ""
    first, second = map(json.loads, out.splitlines())
    assert set(first) == {"time", "delay", "request", "reply"}
    assert first["reply"]["values"]["battery_voltage"] == 12.34
    assert bytes.fromhex(first["reply"]["frame"]) == frame(READ, realtime(1234))
    assert first["request"]["kind"] == "read request"
    assert first["delay"] >= 0
    assert (second["reply"], second["delay"]) == (None, None)


@pytest.mark.parametrize(
    ("option", "lines"), [("--json", 2), ("--csv", 3), ("--line-protocol", 2), ("--format=text", 3)]
)
def test_readings_have_the_formats_of_watch(start: Start, wire: tuple[int, str], option: str, lines: int) -> None:
    process = start("listen", wire[1], "--readings", option, "--count", "2")
    until_it_listens(wire)
    os.write(wire[0], ASKED + frame(READ, realtime(1234)) + frame(READ, realtime(999)))
    out, err = process.communicate(timeout=30)
    assert err == ""
    printed = out.splitlines()
    assert len(printed) == lines
    assert "12.34" in printed[-2]
    assert "9.99" in printed[-1]
    if option == "--json":
        first, second = map(json.loads, printed)
        assert first["address"] == f"serial://{wire[1]}"
        assert first["ok"] is True
        assert first["age"] >= 0
        assert second["age"] is None  # nobody has seen its request


# The live view


@pytest.mark.parametrize("width", [60, 80])
def test_on_a_terminal_readings_are_the_view_of_watch(wire: tuple[int, str], width: int) -> None:
    with closing(Terminal("listen", wire[1], "--readings", width=width)) as terminal:
        terminal.read_until(b"waiting for the first reading")
        os.write(wire[0], ASKED + frame(READ, realtime(1234)))
        terminal.read_until(b"12.34 V")
        os.write(wire[0], ASKED + frame(READ, realtime(999)))
        terminal.read_until(b"9.99 V")
        terminal.read_until(b"4 frames")
        assert not terminal.edits_lines()
        terminal.write(b"q")
        assert terminal.wait() == 0
        assert terminal.edits_lines()
        text = terminal.read_all().decode()
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text[text.index(LEFT.decode()) :])
    assert max(map(len, last.splitlines())) <= width
    for words in ("read at", "Battery", "9.99 V", "per column", "0 damaged frames", "connected"):
        assert words in last
    assert not re.search(r"Battery {1,5}12\.34 V", last)  # only its chart has it
    for words in ("request", "every", "ends"):
        assert words not in last
    assert "every" not in text  # the interval is that of the other master


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_view_and_restores_the_terminal(
    wire: tuple[int, str], signum: signal.Signals, code: int
) -> None:
    with closing(Terminal("listen", wire[1], "--readings")) as terminal:
        terminal.read_until(b"q ends")
        terminal.process.send_signal(signum)
        assert terminal.wait() == code
        assert terminal.edits_lines()
        text = terminal.read_all()
    assert LEFT in text
    assert b"Traceback" not in text


def test_ctrl_z_leaves_the_view_until_the_process_continues(wire: tuple[int, str]) -> None:
    with closing(Terminal("listen", wire[1], "--readings")) as terminal:
        terminal.read_until(b"q ends")
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.wait_until_stopped()
        assert terminal.edits_lines()
        terminal.read_until(LEFT)
        terminal.seen = b""
        terminal.process.send_signal(signal.SIGCONT)
        terminal.read_until(ENTERED)
        os.write(wire[0], ASKED + frame(READ, realtime(1234)))
        terminal.read_until(b"12.34 V")
        terminal.write(b"q")
        assert terminal.wait() == 0


def test_the_view_ends_after_as_many_readings_as_wanted(wire: tuple[int, str]) -> None:
    with closing(Terminal("listen", wire[1], "--readings", "--count", "2")) as terminal:
        terminal.read_until(b"q ends")
        os.write(wire[0], 2 * (ASKED + frame(READ, realtime(1234))))
        assert terminal.wait() == 0


@pytest.mark.parametrize("width", [60, 80])
def test_the_view_shows_a_lost_port_and_that_it_is_back(width: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bridge:
        address = bridge.getsockname()
        url = f"tcp://127.0.0.1:{address[1]}"
        with closing(Terminal("listen", url, "--readings", width=width)) as terminal:
            with bridge.accept()[0] as connection:
                terminal.read_until(b"waiting for the first reading")
                connection.sendall(ASKED + frame(READ, realtime(1234)))
                terminal.read_until(b"12.34 V")
                bridge.close()  # so that the port stays lost until the view has shown it
            terminal.read_until(b"not connected")
            terminal.read_until(b"old: read at")
            terminal.read_until(b"lost, reconnecting: ")
            with socket.create_server(address) as again, again.accept()[0] as connection:
                connection.sendall(ASKED + frame(READ, realtime(999)))
                terminal.read_until(b"9.99 V")
                terminal.write(b"q")
                assert terminal.wait() == 0
            text = terminal.read_all()
    last = text[text.rindex(LEFT) :]
    assert b"reconnecting" not in last
    assert b"not connected" not in last
    assert b"old" not in last.replace(b"ms old", b"")


@pytest.mark.parametrize("option", ["--plain", "--json", "--csv", "--format=text"])
def test_on_a_terminal_an_output_that_is_asked_for_is_no_view(wire: tuple[int, str], option: str) -> None:
    with closing(Terminal("listen", wire[1], "--readings", option, "--count", "1")) as terminal:
        until_it_listens(wire)
        os.write(wire[0], ASKED + frame(READ, realtime(1234)))
        assert terminal.wait() == 0
        text = terminal.read_all()
    assert b"12.34" in text
    assert ENTERED not in text


def test_on_a_terminal_exchanges_are_lines(wire: tuple[int, str]) -> None:
    with closing(Terminal("listen", wire[1], "--count", "1")) as terminal:
        until_it_listens(wire)
        os.write(wire[0], ASKED + frame(READ, realtime(1234)))
        assert terminal.wait() == 0
        text = terminal.read_all()
    assert b"read request" in text
    assert ENTERED not in text


def test_exchanges_have_no_columns(command: Command) -> None:
    code, _, err = command("listen", "/dev/null", "--csv")
    assert code == 2
    assert "--readings" in err


def test_nobody_can_listen_to_a_simulator_of_its_own_process(command: Command) -> None:
    code, _, err = command("listen", "sim:")
    assert code == 2
    assert "sim:" in err


@pytest.mark.parametrize("line", sorted(COMMANDS))
def test_the_commands_of_the_pages_listen(start: Start, wire: tuple[int, str], line: str) -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    words = line.replace("/dev/ttyUSB0", wire[1]).replace("/dev/ttyUSB1", os.ttyname(slave)).split()
    process = start(*words)
    until_it_listens(wire)
    os.write(wire[0], frame(READ, realtime(1234)))
    assert process.stdout is not None
    if "--readings" in words and "--json" not in words:
        assert re.match(r" *time +bat_V |time,", process.stdout.readline())
    assert "12.34" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "")
    assert process.returncode == 130
    os.close(master)
    os.close(slave)


def test_record_can_listen(start: Start, wire: tuple[int, str], tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    process = start("record", wire[1], str(path), "--listen", "--count", "2")
    until_it_listens(wire)
    line = ASKED + frame(READ, realtime(1234)) + ASKED + b"\xeb\x90" + frame(READ, realtime(999))
    os.write(wire[0], line)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert f"2 readings and 0 errors in {path}" in err
    header, *records = map(json.loads, path.read_text("utf-8").splitlines())
    assert header["kind"] == "listener"
    bursts = [(record["from"], bytes.fromhex(record["hex"])) for record in records]
    assert b"".join(data for _, data in bursts) == line
    assert b"".join(data for sender, data in bursts if sender == "client") == 2 * ASKED
    readings = readings_of(Recording.read(path))
    assert [reading.data.battery_voltage for reading in readings if reading.data] == [12.34, 9.99]


def test_record_does_not_listen_to_a_simulator(command: Command, tmp_path: Path) -> None:
    code, _, err = command("record", "sim:", str(tmp_path / "line.jsonl"), "--listen")
    assert code == 2
    assert "sim:" in err


def test_a_missing_port_is_one_sentence(command: Command, tmp_path: Path) -> None:
    code, out, err = command("listen", str(tmp_path / "missing"))
    assert (code, out) == (3, "")
    assert err.count("\n") == 1


def test_a_timeout_out_of_range_is_a_usage_error(command: Command) -> None:
    code, _, err = command("listen", "/dev/null", "--timeout", "0")
    assert code == 2
    assert "timeout must be" in err
