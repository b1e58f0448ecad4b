"""Readings again and again: as lines, and as a view on a terminal."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.cli.conftest import Answer, Command, Start
from tracer_async import Frame, RealtimeData, TracerClient
from tracer_async.cli import options

DATA = RealtimeData.from_bytes(bytes.fromhex("CE04A4060000E8035604A005010001500000000037E80300"))


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


# Waiting for a connection

NOBODY = "unix:/no/such/socket"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request wait only shortly for a connection."""
    monkeypatch.setattr(options, "TracerClient", partial(TracerClient, connect_timeout=0.05))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)


@pytest.mark.usefixtures("impatient")
def test_without_a_connection_at_the_start_the_watch_ends_at_once(command: Command) -> None:
    for arguments in ((), ("--json", "--no-wait")):
        code, out, err = command("watch", NOBODY, "--interval", "0.01", "--count", "3", *arguments)
        assert code == 3
        assert out == ""
        assert err.startswith("Error: ")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("arguments", [("--wait",), ("-w",), ("--json",), ("--csv",), ("--line-protocol",)])
def test_it_keeps_trying_where_it_is_told_or_a_program_reads(command: Command, arguments: tuple[str, ...]) -> None:
    code, out, err = command("watch", NOBODY, "--interval", "0.01", "--count", "3", *arguments)
    assert code == 3
    assert (out + err).count("no connection within") == 3


@pytest.mark.usefixtures("impatient")
def test_it_keeps_trying_in_a_systemd_service(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    _, _, err = command("watch", NOBODY, "--interval", "0.01", "--count", "3")
    assert err.count("no connection within") == 3


@pytest.mark.usefixtures("impatient")
@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_it_tells_systemd_that_it_is_ready_also_without_a_connection(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    address = f"\0tracer-async-{os.getpid()}" if kind == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        command("watch", NOBODY, "--interval", "0.01", "--count", "1")
        assert manager.recv(100) == b"READY=1"


# Several controllers


def test_several_controllers_are_read_and_each_line_ends_with_its_address(command: Command) -> None:
    urls = ["sim:?seed=1", "sim:?seed=2", "sim:?seed=3"]
    code, out, err = command("watch", *urls, "--interval", "0.02", "--count", "2")
    header, *lines = out.splitlines()
    assert (code, err) == (0, "")
    assert header.split()[-1] == "address"
    assert {len(line.split()) for line in lines} == {len(header.split())}
    assert Counter(line.split()[-1] for line in lines) == dict.fromkeys(urls, 2)


def test_several_controllers_for_programs(command: Command) -> None:
    urls = ["sim:?seed=1", "sim:?seed=2"]
    _, out, _ = command("watch", *urls, "--interval", "0.02", "--count", "3", "--json")
    assert Counter(json.loads(line)["address"] for line in out.splitlines()) == dict.fromkeys(urls, 3)


def test_a_controller_that_fails_does_not_fail_the_others(command: Command, silent: str) -> None:
    arguments = ("--interval", "0.02", "--count", "1", "--timeout", "0.02", "--retries", "0")
    code, out, err = command("watch", "sim:", silent, *arguments)
    assert code == 0
    assert out.splitlines()[-1].endswith("sim:")
    assert "no answer" in err


def test_the_same_controller_twice_is_a_usage_error(command: Command) -> None:
    code, _, err = command("watch", "127.0.0.1:8088", "tcp://127.0.0.1:8088")
    assert code == 2
    assert "tcp://127.0.0.1:8088 is given twice" in err


def test_no_wait_with_several_controllers_is_a_usage_error(command: Command) -> None:
    code, out, err = command("watch", "sim:", NOBODY, "--no-wait", "--count", "1")
    assert (code, out) == (2, "")
    assert "--no-wait needs a single URL" in err


def test_several_controllers_as_a_picture(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "view.svg"
    command("watch", "sim:", "sim:?seed=1", "--interval", "0.02", "--count", "1", "--svg", str(path))
    assert "controllers" in path.read_text("utf-8")
