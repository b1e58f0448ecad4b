"""The live view on a pseudo-terminal: its size, its keys, and how it leaves the terminal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.cli.terminals import ENTERED, LEFT, Terminal

Start = Callable[..., Terminal]


@pytest.fixture
def terminal() -> Iterator[Start]:
    terminals: list[Terminal] = []

    def start(*arguments: str, width: int = 80) -> Terminal:
        terminals.append(Terminal(*arguments, width=width))
        return terminals[-1]

    yield start
    for started in terminals:
        started.close()


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=lambda value: str(int(value))
)
def test_a_signal_ends_the_view_quietly_and_restores_the_terminal(
    terminal: Start, signum: signal.Signals, code: int
) -> None:
    started = terminal("watch", "sim:", "--interval", "0.05")
    started.read_until(b"charging")
    started.process.send_signal(signum)
    assert started.wait() == code
    assert started.edits_lines()
    text = started.read_all()
    assert text.index(ENTERED) < text.index(LEFT)
    assert text.rindex(b"\x1b[?25l") < text.rindex(b"\x1b[?25h")  # the cursor
    assert b"Traceback" not in text


@pytest.mark.parametrize("key", [b"q", b"Q"])
@pytest.mark.parametrize("urls", [("sim:",), ("sim:", "sim:?seed=1")], ids=["one", "several"])
def test_q_ends_the_view_and_restores_the_terminal(terminal: Start, key: bytes, urls: tuple[str, ...]) -> None:
    started = terminal("watch", *urls, "--interval", "0.05")
    started.read_until(b"q ends")
    started.write(b"x" + key)
    assert started.wait() == 0
    assert started.edits_lines()
    assert LEFT in started.read_all()


def test_q_ends_a_view_that_waits_for_a_connection(terminal: Start) -> None:
    started = terminal("watch", "unix:/no/such/socket", "--wait")
    started.read_until(b"q ends")
    started.write(b"q")
    assert started.wait() == 0


def test_ctrl_z_leaves_the_alternate_screen_until_the_process_continues(terminal: Start) -> None:
    started = terminal("watch", "sim:", "--interval", "0.05")
    started.read_until(b"charging")
    assert not started.edits_lines()
    for _ in range(2):
        started.process.send_signal(signal.SIGTSTP)
        started.wait_until_stopped()
        assert started.edits_lines()
        started.read_until(LEFT)
        started.seen = b""
        started.process.send_signal(signal.SIGCONT)
        started.read_until(ENTERED)
        started.read_until(b"charging")
        assert not started.edits_lines()
        started.seen = b""
    started.write(b"q")
    assert started.wait() == 0


def test_the_last_view_stays_on_the_terminal_and_does_not_speak_of_keys(terminal: Start) -> None:
    started = terminal("watch", "sim:", "--interval", "0.05", "--count", "2")
    assert started.wait() == 0
    text = started.read_all()
    last = text[text.index(LEFT) :]
    assert b"2 answers" in last
    assert b"read at" in last
    assert b"ends" in text[: text.index(LEFT)]
    for words in (b"ends", b"Ctrl-C", b"every"):
        assert words not in last


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("urls", [("sim:",), ("sim:", "sim:?seed=1")], ids=["one", "several"])
def test_the_load_and_its_power_are_there_at_every_width(terminal: Start, width: int, urls: tuple[str, ...]) -> None:
    started = terminal("watch", *urls, "--interval", "0.05", "--count", "1", width=width)
    assert started.wait() == 0
    text = started.read_all().decode()
    last = text[text.index(LEFT.decode()) :]
    rows = [row for row in last.splitlines() if "on" in row.replace("│", " ").split() or "\x1b[32mon" in row]
    assert len(rows) == len(urls)
    assert all("17." in row or "18." in row for row in rows)  # watts


def test_settings_are_written_only_after_a_yes(terminal: Start) -> None:
    started = terminal(
        *("settings", "sim:", "--battery-type", "gel", "--capacity", "100", "--temperature-compensation", "3"),
        *("--load-mode-1", "manual", "--load-mode-2", "off"),
    )
    started.read_until(b"[y/N]")
    started.write(b"n\n")
    assert started.wait() == 10
    text = started.read_all()
    assert b"unverified on hardware" in b" ".join(text.split())
    assert b"Nothing was written" in text
