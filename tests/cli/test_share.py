"""A controller that is shared by the command, as a process."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Start
from tests.promise.stamping_controller import StampingController
from tracer_async import TracerClient


def urls(process: object, count: int) -> list[str]:
    stdout = getattr(process, "stdout", None)
    assert stdout is not None
    lines = [stdout.readline() for _ in range(count)]
    assert all(line.startswith("listening on ") and line.endswith("\n") for line in lines)
    return [line.removeprefix("listening on ").rstrip("\n") for line in lines]


async def test_every_place_answers_and_shows_the_same_controller(start: Start, tmp_path: Path) -> None:
    places = ("--tcp", "127.0.0.1:0", "--unix", str(tmp_path / "socket"), "--pty", str(tmp_path / "one"))
    with StampingController() as controller:
        served = urls(start("share", controller.listen(), *places, "--pty", str(tmp_path / "two")), 4)
        assert re.fullmatch(r"tcp://127\.0\.0\.1:[1-9]\d+", served[0])
        assert served[1:] == [f"unix:{tmp_path}/socket", f"serial://{tmp_path}/one", f"serial://{tmp_path}/two"]
        for number, url in enumerate(served):
            async with TracerClient(url, timeout=2.0) as tracer:
                await tracer.set_load(on=number % 2 == 0)
            assert controller.load_on is (number % 2 == 0)


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=lambda value: str(int(value))
)
def test_a_signal_ends_it_quietly_and_removes_what_it_made(
    start: Start, signum: signal.Signals, code: int, tmp_path: Path
) -> None:
    process = start("share", "sim:", "--unix", str(tmp_path / "socket"), "--pty", str(tmp_path / "link"))
    urls(process, 2)
    process.send_signal(signum)
    assert process.communicate() == ("", "")
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


async def test_trace_shows_the_bytes_of_programs_and_of_the_controller(start: Start) -> None:
    process = start("share", "sim:", "--tcp", "127.0.0.1:0", "--trace")
    (url,) = urls(process, 1)
    async with TracerClient(url) as tracer:
        await tracer.read_realtime()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert re.search(r"> 18 bytes sent, client 127\.0\.0\.1:\d+\n", err)
    assert re.search(r"> 18 bytes sent, sim:\n", err)
    assert re.search(r"< 36 bytes received, sim:\n", err)
    assert re.search(r"< 36 bytes received, client 127\.0\.0\.1:\d+\n", err)


async def test_lost_and_restored_connections_to_the_controller_are_printed(start: Start) -> None:
    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        connected.set()
        await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ended.release()

    ended = asyncio.Semaphore(0)
    connections: list[asyncio.StreamWriter] = []
    connected = asyncio.Event()
    async with await asyncio.start_server(keep, "127.0.0.1", 0) as bridge, asyncio.timeout(30):
        url = f"tcp://127.0.0.1:{bridge.sockets[0].getsockname()[1]}"
        process = start("share", url, "--tcp", "127.0.0.1:0")
        await connected.wait()
        urls(process, 1)
        connected.clear()
        connections.pop().close()
        await connected.wait()
        assert process.stderr is not None
        lines = [await asyncio.to_thread(process.stderr.readline) for _ in range(2)]
        assert re.fullmatch(rf"{url}: connection lost \(.+\), reconnecting in [\d.]+ s\n", lines[0])
        assert lines[1] == f"{url}: connection established\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate() == ("", "")
        for _ in range(2):
            await ended.acquire()


def test_refused_programs_are_one_line(start: Start) -> None:
    process = start("share", "sim:", "--tcp", "127.0.0.1:0", "--allow", "192.168.1.0/24")
    (url,) = urls(process, 1)
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    for _ in range(5):
        with socket.create_connection((host, int(port)), timeout=10) as program, suppress(ConnectionError):
            assert program.recv(1) == b""
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert re.fullmatch(r"client 127\.0\.0\.1:\d+: refused: its address is not allowed\n", err)


def test_off_this_machine_without_allow_it_says_what_that_means(start: Start) -> None:
    process = start("share", "sim:", "--tcp", "0.0.0.0:0")
    (url,) = urls(process, 1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert err.count("\n") == 1
    assert url in err
    assert "switch its load" in err
    process = start("share", "sim:", "--tcp", "0.0.0.0:0", "--allow", "192.168.1.0/24")
    urls(process, 1)
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[1] == ""


def test_a_regular_file_is_not_overwritten(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    for option in ("--pty", "--unix"):
        code, out, err = command("share", "sim:", option, str(file))
        assert (code, out) == (3, "")
        assert err.count("\n") == 1
        assert "a file with this name exists" in err
    assert file.read_text() == "precious"


def test_without_a_connection_to_the_controller_it_ends_with_one_sentence(command: Command, tmp_path: Path) -> None:
    code, out, err = command("share", str(tmp_path / "missing"), "--tcp", "127.0.0.1:0")
    assert (code, out) == (3, "")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--tcp HOST:PORT"),
        (("--tcp", "8088"), "HOST:PORT"),
        (("--unix", ""), "the path is empty"),
        (("--tcp", "127.0.0.1:0", "--allow", "192.168.1.1/24"), "192.168.1.1/24"),
        (("--tcp", "127.0.0.1:0", "--max-age", "-1"), "max_age must be"),
        (("--tcp", "127.0.0.1:0", "--reply-within", "0"), "reply_within must be"),
        (("--tcp", "127.0.0.1:0", "--max-clients", "0"), "max_clients must be"),
        (("--tcp", "127.0.0.1:0", "--idle-timeout", "0"), "idle_timeout must be"),
        (("--tcp", "127.0.0.1:0", "--timeout", "0"), "timeout must be"),
    ],
)
def test_a_wrong_option_is_a_usage_error(command: Command, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = command("share", "sim:", *arguments)
    assert (code, out) == (2, "")
    assert words in err
