"""One reading, in each of its forms, and what each failure exits with."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable
from math import inf

import pytest

from tests.cli.conftest import Answer, Command, Start
from tracer_async import Reading
from tracer_async.cli.tables import reading_table
from tracer_async.protocol import Frame, RealtimeData

# The document's example reply, with an alarm in it.
DATA = RealtimeData.from_bytes(bytes.fromhex("CE04A4060000E8035604A005010001500000000037E80300"))


def test_the_table_has_every_field_with_its_unit(command: Command) -> None:
    code, out, err = command("read", "sim:")
    assert (code, err) == (0, "")
    for name in (
        "Battery voltage",
        "PV voltage",
        "Charge current",
        "Charge power",
        "Load current",
        "Age",
        "Reserved bytes",
    ):
        assert name in out
    for unit in (" V ", " A ", " W ", " °C ", " s "):
        assert unit in out


def test_alarms_are_coloured_and_said_in_words() -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    console.print(reading_table("sim:", Reading(0.0, DATA, age=0.05)))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    line = next(line for line in text.splitlines() if "Load short circuit" in line)
    assert "ALARM" in line
    assert "\x1b[1;37;41m" in line


@pytest.mark.parametrize(("age", "shown"), [(0.0001, "0.001"), (0.25, "0.250"), (1.0001, "1.001"), (inf, "unknown")])
def test_the_table_never_says_that_a_reading_is_newer_than_it_may_be(age: float, shown: str) -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=80)
    console.print(reading_table("sim:", Reading(0.0, DATA, age=age)))
    assert isinstance(console.file, io.StringIO)
    (line,) = [line for line in console.file.getvalue().splitlines() if "Age, at most" in line]
    assert shown in line.split()


def test_the_url_may_come_from_the_environment(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("read").code == 2
    monkeypatch.setenv("TRACER_URL", "sim:?seed=7")
    assert json.loads(command("read", "--json").out)["address"] == "sim:?seed=7"


def test_a_wrong_address_is_refused_in_the_librarys_words(command: Command) -> None:
    code, out, err = command("read", "controller")
    assert (code, out) == (2, "")
    assert err.startswith("Error: 'controller' is not the address of a controller")
    assert err.count("\n") == 1


def test_a_link_that_cannot_be_opened(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    code, out, err = command("read", f"127.0.0.1:{port}")
    assert (code, out) == (3, "")
    assert "refused" in err
    assert err.count("\n") == 1


def test_no_answer(command: Command, silent: str) -> None:
    code, out, err = command("read", silent, "--timeout", "0.05", "--retries", "1")
    assert (code, out) == (4, "")
    assert "sent 2 times" in err


def test_an_answer_that_makes_no_sense(command: Command, controller: Callable[[Answer], str]) -> None:
    url = controller(lambda frame: Frame(0, frame.command, b"\7").encode())
    code, out, err = command("read", url)
    assert (code, out) == (5, "")
    assert "malformed" in err


@pytest.mark.parametrize("arguments", [("-vv", "read", "sim:", "--json"), ("read", "sim:", "--json", "-vv")])
def test_verbose_logs_to_standard_error_before_or_behind_the_command(start: Start, arguments: tuple[str, ...]) -> None:
    out, err = start(*arguments).communicate()
    assert json.loads(out)
    assert "DEBUG" in err
