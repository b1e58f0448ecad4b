"""Readings again and again: as lines, and as a view on a terminal."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.cli.conftest import Answer, Command, Start, environment
from tracer_async import ConnectionState, Frame, Reading, RealtimeData, ResponseTimeoutError, SessionStats
from tracer_async.cli.view import View

STATS = SessionStats(7, 5, 2, 1, 0, 0, 6, 3, 11, 1)
DATA = RealtimeData.from_bytes(bytes.fromhex("CE04A4060000E8035604A005010001500000000037E80300"))


def drawn(view: View, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_away_from_a_terminal_each_reading_is_a_line_of_as_many_words_as_columns(command: Command) -> None:
    code, out, err = command("watch", "sim:", "--interval", "0.01", "--count", "3")
    header, *lines = out.splitlines()
    assert (code, err, len(lines)) == (0, "", 3)
    assert {len(line.split()) for line in lines} == {len(header.split())}


@pytest.mark.parametrize("option", ["--json", "--line-protocol", "--csv"])
def test_programs_get_their_formats(command: Command, option: str) -> None:
    _, out, _ = command("watch", "sim:", "--interval", "0.01", "--count", "2", option)
    assert len(out.splitlines()) == (3 if option == "--csv" else 2)
    if option == "--json":
        assert all(json.loads(line)["address"] == "sim:" for line in out.splitlines())


def test_a_failed_reading_goes_to_standard_error_and_the_watch_goes_on(
    command: Command, controller: Callable[[Answer], str]
) -> None:
    replies = iter([b"\7", DATA.to_bytes(), b"\7"])
    url = controller(lambda frame: Frame(0, frame.command, next(replies)).encode())
    code, out, err = command("watch", url, "--interval", "0.01", "--count", "3")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert err.count("malformed") == 2


def test_it_fails_if_every_reading_did(command: Command, silent: str) -> None:
    options = ("--interval", "0.01", "--count", "2", "--timeout", "0.02", "--retries", "0")
    code, _, err = command("watch", silent, *options)
    assert code == 4
    assert err.count("no answer") == 2


def test_the_view_is_written_as_svg_at_the_end(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "view.svg"
    assert command("watch", "sim:", "--interval", "0.01", "--count", "2", "--svg", str(path)).code == 0
    svg = path.read_text("utf-8")
    assert svg.startswith("<svg")
    assert "Battery" in svg


def test_an_svg_file_that_cannot_be_written_is_refused_before_the_watch(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("watch", "sim:", "--svg", str(tmp_path / "no" / "view.svg"))
    assert (code, out) == (2, "")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (80, 60)])
def test_the_view_fits_its_terminal_and_shows_all_there_is(width: int, height: int) -> None:
    view = View("sim:", 2.0)
    for index in range(50):
        data = DATA._replace(battery_voltage=12 + index / 100)
        view.take(Reading(1000.0 + 2 * index, data, age=0.05), STATS, ConnectionState.UP)
    error = ResponseTimeoutError("tcp://controller.example:8088", 0xA0, 3.0, 3)
    view.take(Reading(1100.0, None, error), STATS, ConnectionState.DOWN)
    lines = drawn(view, width, height)
    text = "\n".join(lines)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    for words in (
        "12.49 V",
        "LOAD SHORT CIRCUIT",
        "link down",
        "last 1 min 40 s",
        "3 damaged",
        "no answer to command A0",
    ):
        assert words in text
    assert "max 12.49 V" in text
    assert "min 12.00 V" in text
    assert "█" in text


def test_the_view_of_a_small_terminal_is_one_row_a_chart() -> None:
    view = View("sim:", 2.0)
    view.take(Reading(1000.0, DATA), STATS, ConnectionState.UP)
    assert "12.30-12.30 V" in "\n".join(drawn(view, 60, 16))


class Terminal:
    """The command on a pseudo-terminal of 80 by 24."""

    def __init__(self, *arguments: str) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tracer_async", *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment(),
        )
        os.close(terminal)
        self.seen = b""

    def read_until(self, words: bytes) -> None:
        while words not in self.seen:
            self.seen += os.read(self.screen, 4096)

    def read_all(self) -> bytes:
        try:
            while data := os.read(self.screen, 4096):
                self.seen += data
        except OSError:  # how Linux says that nobody has the terminal open any more
            pass
        return self.seen

    def write(self, text: bytes) -> None:
        os.write(self.screen, text)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        terminals.append(Terminal(*arguments))
        return terminals[-1]

    yield start
    for started in terminals:
        started.process.kill()
        started.process.wait()
        os.close(started.screen)


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=lambda value: str(int(value))
)
def test_a_signal_ends_the_view_quietly_and_restores_the_terminal(
    terminal: Callable[..., Terminal], signum: signal.Signals, code: int
) -> None:
    started = terminal("watch", "sim:", "--interval", "0.05")
    started.read_until(b"charging")
    started.process.send_signal(signum)
    text = started.read_all()
    assert started.process.wait() == code
    assert text.index(b"\x1b[?1049h") < text.index(b"\x1b[?1049l")  # the screen beside the scrolling one, and back
    assert text.rindex(b"\x1b[?25l") < text.rindex(b"\x1b[?25h")  # the cursor
    assert b"Traceback" not in text


def test_the_last_view_stays_on_the_terminal(terminal: Callable[..., Terminal]) -> None:
    started = terminal("watch", "sim:", "--interval", "0.05", "--count", "2")
    text = started.read_all()
    assert started.process.wait() == 0
    assert b"2 answers" in text[text.index(b"\x1b[?1049l") :]


def test_settings_are_written_only_after_a_yes(terminal: Callable[..., Terminal]) -> None:
    started = terminal(
        *("settings", "sim:", "--battery-type", "gel", "--capacity", "100", "--temperature-compensation", "3"),
        *("--load-mode-1", "manual", "--load-mode-2", "off"),
    )
    started.read_until(b"[y/N]")
    started.write(b"n\n")
    text = started.read_all()
    assert started.process.wait() == 10
    assert b"unverified on hardware" in b" ".join(text.split())
    assert b"Nothing was written" in text


def test_a_reader_that_has_had_enough_is_no_error(start: Start) -> None:
    process = start("watch", "sim:", "--interval", "0.01")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_a_dumb_terminal_gets_lines_and_no_colour(start: Start) -> None:
    process = start("watch", "sim:", "--interval", "0.01", "--count", "1", TERM="dumb", FORCE_COLOR="1")
    out, _ = process.communicate()
    assert "\x1b" not in out
