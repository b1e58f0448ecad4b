"""Programs that open a pseudo-terminal by its link, as a serial port."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cli.conftest import Start
from tests.cli.conftest import start as start_fixture
from tests.promise.stamping_controller import LOAD, READ, SYNC, StampingController, answer, checksum, frame
from tests.promise.virtual_time import virtual_time
from tests.sharing.programs import number_of, timer_line
from tracer_async import LinkError, TracerClient
from tracer_async.sharing import share

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals"),
]
start = start_fixture


class SerialProgram:
    """A program that opens a serial port without any of the habits of pyserial: it discards nothing."""

    def __init__(self, link: str) -> None:
        self.port = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def send(self, command: int, data: bytes = b"") -> None:
        os.write(self.port, frame(command, data))

    def wait_for_input(self, patience: float = 5.0) -> bool:
        return bool(select.select([self.port], [], [], patience)[0])

    def read(self) -> bytes:
        """Return what is unread now."""
        try:
            return os.read(self.port, 4096)
        except BlockingIOError:
            return b""

    def reply(self) -> bytes:
        received = b""
        until = time.monotonic() + 10
        while len(received) < 9 or len(received) < received[8] + 12:
            assert self.wait_for_input(until - time.monotonic()), "no reply"
            received += self.read()
        assert received[:6] == SYNC
        assert checksum(received[6:-1]) == 0
        return received

    def ask(self, command: int, data: bytes = b"") -> bytes:
        self.send(command, data)
        return self.reply()

    def close(self) -> None:
        os.close(self.port)


@contextmanager
def served(start: Start, *arguments: str) -> Iterator[StampingController]:
    """Share a controller in a process of its own, so that tests may block."""
    with StampingController() as controller:
        process = start("share", controller.listen(), *arguments)
        for _ in range(arguments.count("--pty")):
            assert process.stdout is not None
            assert process.stdout.readline().startswith("listening on serial://")
        yield controller


def test_a_program_is_answered_on_the_link_and_on_two_links_at_once(start: Start, tmp_path: Path) -> None:
    links = [str(tmp_path / name) for name in ("one", "two")]
    with served(start, "--pty", links[0], "--pty", links[1]) as controller:
        programs = [SerialProgram(link) for link in links]
        for program in programs:
            before = len(controller.measured)
            assert number_of(program.ask(READ)) >= before
        for program in programs:
            program.send(READ)
        assert all(program.reply() for program in programs)
        assert programs[0].ask(LOAD, b"\x01") == frame(LOAD, b"\x01")
        assert controller.load_on
        for program in programs:
            program.close()


def test_programs_that_open_one_link_at_the_same_time_get_their_own_replies(start: Start, tmp_path: Path) -> None:
    link = str(tmp_path / "link")
    with served(start, "--pty", link):
        one = SerialProgram(link)
        assert one.ask(READ)
        other = SerialProgram(link)
        assert other.ask(LOAD, b"\x01") == frame(LOAD, b"\x01")
        assert one.read() == b""
        assert one.ask(READ)
        assert other.read() == b""
        one.close()
        other.close()


def test_what_a_program_left_unread_is_not_read_by_the_next(start: Start, tmp_path: Path) -> None:
    link = str(tmp_path / "link")
    with served(start, "--pty", link):
        for _ in range(10):
            program = SerialProgram(link)
            program.send(READ)
            assert program.wait_for_input()  # the reply has come, and is not read
            program.close()
            # At once: the server has had no time to notice that the first one has left.
            program = SerialProgram(link)
            assert program.read() == b""
            assert program.ask(READ)
            program.close()


def test_a_request_whose_program_has_left_is_not_answered_to_the_next(start: Start, tmp_path: Path) -> None:
    link = str(tmp_path / "link")
    with served(start, "--pty", link) as controller:
        for _ in range(5):
            program = SerialProgram(link)
            assert program.ask(READ)
            program.send(LOAD, b"\x01")
            program.close()
            program = SerialProgram(link)
            before = len(controller.measured)
            assert number_of(program.ask(READ)) >= before
            program.close()


def test_a_program_may_open_and_close_it_without_a_request(start: Start, tmp_path: Path) -> None:
    link = str(tmp_path / "link")
    with served(start, "--pty", link):
        for _ in range(20):
            SerialProgram(link).close()
        program = SerialProgram(link)
        assert program.ask(READ)
        program.close()


async def test_the_client_of_the_library_opens_it_as_a_serial_port(tmp_path: Path) -> None:
    async with share("sim:", f"pty:{tmp_path}/link") as sharing:
        for _ in range(3):
            async with TracerClient(sharing.urls[0], timeout=2.0) as tracer:
                await tracer.set_load(on=True)
                assert (await tracer.read_realtime()).load_on


@virtual_time
async def test_a_program_on_a_terminal_may_be_idle() -> None:
    with timer_line(answer) as (_, url), TemporaryDirectory() as folder:
        async with TracerClient(url) as client, share(client, f"pty:{folder}/link", idle_timeout=60.0, max_clients=1):
            program = SerialProgram(f"{folder}/link")
            for _ in range(3):
                program.send(READ)
                await asyncio.sleep(0.5)
                assert len(program.read()) == 36
                await asyncio.sleep(100)
            other = SerialProgram(f"{folder}/link")
            other.send(READ)
            await asyncio.sleep(0.5)
            program.send(READ)
            await asyncio.sleep(0.5)
            assert len(program.read()) == 36
            program.close()
            other.close()


async def test_terminals_are_released_when_their_programs_close_them(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():  # noqa: ASYNC240
        pytest.skip("the number of descriptors is not known here")
    async with share("sim:", f"pty:{tmp_path}/link") as sharing:
        counts = []
        for _ in range(5):
            async with TracerClient(sharing.urls[0], timeout=2.0) as tracer:
                await tracer.read_realtime()
            counts.append(len(os.listdir(descriptors)))  # noqa: PTH208
        assert counts[-1] <= counts[0] + 1


async def test_the_link_is_removed_at_the_end_unless_another_program_has_replaced_it(tmp_path: Path) -> None:
    link = tmp_path / "link"
    async with share("sim:", f"pty:{link}"):
        assert link.is_symlink()
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    async with share("sim:", f"pty:{link}"):
        link.unlink()
        link.symlink_to("/dev/null")
    assert os.listdir(tmp_path) == ["link"]  # noqa: PTH208
    assert str(link.readlink()) == "/dev/null"


async def test_a_link_that_is_served_is_refused_and_served_further(tmp_path: Path) -> None:
    link = tmp_path / "link"
    async with share("sim:", f"pty:{link}") as sharing:
        for _ in range(2):
            with pytest.raises(LinkError, match="another program serves there"):
                async with share("sim:", f"pty:{link}"):
                    pass
            async with TracerClient(sharing.urls[0], timeout=2.0) as tracer:
                await tracer.read_realtime()
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_link_that_another_process_serves_is_refused_until_that_was_killed(start: Start, tmp_path: Path) -> None:
    link = tmp_path / "link"
    first = start("share", "sim:", "--pty", str(link))
    assert first.stdout is not None
    assert first.stdout.readline() == f"listening on serial://{link}\n"
    second = start("share", "sim:", "--pty", str(link))
    out, err = second.communicate(timeout=30)
    assert (second.returncode, out, err.count("\n")) == (3, "", 1)
    assert "another program serves there" in err
    first.kill()
    first.wait()
    # The number of its terminal is another program's now.
    master, slave = os.openpty()
    link.unlink()
    link.symlink_to(os.ttyname(slave))
    (tmp_path / "link.lock").write_text(os.ttyname(slave))
    third = start("share", "sim:", "--pty", str(link))
    assert third.stdout is not None
    assert third.stdout.readline() == f"listening on serial://{link}\n"
    program = SerialProgram(str(link))
    assert program.ask(READ)
    program.close()
    third.terminate()
    third.communicate(timeout=30)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    os.close(master)
    os.close(slave)


async def test_a_link_to_the_terminal_of_another_program_is_not_replaced(tmp_path: Path) -> None:
    link = tmp_path / "link"
    master, slave = os.openpty()
    link.symlink_to(os.ttyname(slave))
    with pytest.raises(LinkError, match="another program serves there"):
        async with share("sim:", f"pty:{link}"):
            pass
    assert os.listdir(tmp_path) == ["link"]  # noqa: PTH208
    assert str(link.readlink()) == os.ttyname(slave)
    os.close(master)
    os.close(slave)


async def test_a_link_that_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/pts/999999")
    async with share("sim:", f"pty:{link}") as sharing, TracerClient(sharing.urls[0], timeout=2.0) as tracer:
        await tracer.read_realtime()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link"])
async def test_nothing_else_is_replaced(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("precious")
    elif kind == "folder":
        place.mkdir()
    else:
        # That of an adapter that is unplugged leads nowhere.
        place.symlink_to("/dev/null" if kind == "link" else "/dev/ttyUSB77")
    with pytest.raises(LinkError, match="with this name exists"):
        async with share("sim:", f"pty:{place}"):
            pass
    assert os.listdir(tmp_path) == ["place"]  # noqa: PTH208
    assert kind != "file" or place.read_text() == "precious"


async def test_a_file_with_the_name_of_the_lock_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "link.lock").write_text("precious")
    with pytest.raises(LinkError, match=r"link\.lock exists"):
        async with share("sim:", f"pty:{tmp_path}/link"):
            pass
    assert os.listdir(tmp_path) == ["link.lock"]  # noqa: PTH208
    assert (tmp_path / "link.lock").read_text() == "precious"


async def test_a_link_in_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="No such file or directory"):
        async with share("sim:", f"pty:{tmp_path}/missing/link"):
            pass
