"""The checks of a serial port: nothing is sent where another process has it open."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.doctor.lines import SerialDevice, complaints, controller
from tracer_async.doctor import Severity, diagnose
from tracer_async.doctor import _port as port
from tracer_async.doctor._adapter import describe_adapter, is_console
from tracer_async.doctor._holders import holders_of
from tracer_async.simulator import serve_pty

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and pseudo-terminals")

ROOT = Path(__file__).parents[2]


@contextmanager
def process(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program that has printed a line, and waits for the end of its input."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{program}\nprint('ready', flush=True)\nsys.stdin.read()", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started


OPEN = "import os, sys; port = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)"


async def test_a_missing_port_is_the_only_finding() -> None:
    (found,) = await diagnose("/dev/ttyUSB99")
    assert (found.id, found.severity) == ("port-missing", Severity.ERROR)
    assert "/dev/ttyUSB99" in found.evidence
    assert "tracer-async ports" in found.advice


@pytest.mark.parametrize("kind", ["file", "folder", "null"])
async def test_what_is_no_serial_port_is_named(tmp_path: Path, kind: str) -> None:
    path = {"file": tmp_path / "file", "folder": tmp_path, "null": Path(os.devnull)}[kind]
    if kind == "file":
        path.touch()
    assert complaints(await diagnose(str(path))) == ["port-not-serial"]


async def test_a_driver_that_hangs_while_the_port_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "_OPEN_TIMEOUT", 0.1, raising=False)
    ended, open_now = threading.Event(), os.open
    with SerialDevice(controller()) as url:
        path = url.removeprefix("serial://")

        def hang(name: str, *arguments: Any, **options: Any) -> int:
            if name == path:
                ended.wait()
            return open_now(name, *arguments, **options)

        monkeypatch.setattr(os, "open", hang)
        try:
            async with asyncio.timeout(20):
                findings = await diagnose(url, seconds=0)
        finally:
            ended.set()
    assert complaints(findings) == ["port-failed"]
    assert "0.1 s" in findings[-1].evidence


async def test_a_link_to_a_port_is_followed(tmp_path: Path) -> None:
    async with serve_pty() as url:
        link = tmp_path / "tracer"
        link.symlink_to(url.removeprefix("serial://"))
        findings = await diagnose(str(link), seconds=0)
    assert complaints(findings) == []
    assert findings[0].evidence == f"{link} is {url.removeprefix('serial://')}"


@pytest.mark.parametrize(
    "more",
    [
        "",
        "; import fcntl; fcntl.flock(port, fcntl.LOCK_EX)",
        "; import fcntl, termios; fcntl.ioctl(port, termios.TIOCEXCL)",
    ],
    ids=["open", "locked", "exclusive"],
)
async def test_a_port_that_another_process_has_open_gets_not_a_byte(more: str) -> None:
    device = SerialDevice(controller())
    with device as url, process(OPEN + more, url.removeprefix("serial://")) as holder:
        findings = await diagnose(url, seconds=0)
        assert complaints(findings) == ["port-held"]
        assert f"(process {holder.pid})" in findings[-1].evidence
        assert findings[-1].evidence.startswith("python")
        assert findings[-1].advice.endswith("Close that program, or let both connect to `tracer-async share`.")
        assert device.received == b""


def lsof(program: str, path: str) -> set[int]:
    done = subprocess.run([program, "-t", path], capture_output=True, text=True, check=True)
    return {*map(int, done.stdout.split())} - {os.getpid()}


async def test_holders_are_those_that_lsof_names(require: Callable[[str], str]) -> None:
    program = require("lsof")
    with SerialDevice(controller()) as url:
        path = url.removeprefix("serial://")
        with process(OPEN, path), process(OPEN, path):
            assert {holder.pid for holder in holders_of(path)} == lsof(program, path)
            assert len(holders_of(path)) == 2


def test_the_process_that_serves_a_pseudo_terminal_does_not_count_as_a_holder() -> None:
    program = "import os, sys; ends = os.openpty(); print(os.ttyname(ends[1]), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{program}; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        path = server.stdout.readline().strip()
        assert holders_of(path) == []
        with process(OPEN, path) as holder:
            assert [each.pid for each in holders_of(path)] == [holder.pid]


# Another user. Only root can become one.

AS_NOBODY = """
import asyncio, grp, os, pwd, sys
sys.path.insert(0, sys.argv[2])
import tracer_async.doctor, tracer_async.transport._pyserial  # while its files can be read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for found in asyncio.run(tracer_async.doctor.diagnose(sys.argv[1], seconds=0)):
    print(found.id, found.severity, found.evidence, found.advice, found.title, sep="|")
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def restrict(path: str, mode: int) -> None:
    shutil.chown(path, "root", "dialout")
    Path(path).chmod(mode)


async def as_nobody(path: str) -> list[list[str]]:
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AS_NOBODY, path, str(ROOT), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await run.communicate()
    assert run.returncode == 0
    return [line.split("|") for line in out.decode().splitlines()]


@needs_root
async def test_without_permission_the_group_to_join_is_named() -> None:
    device = SerialDevice(controller())
    with device as url:
        path = url.removeprefix("serial://")
        restrict(path, 0o660)
        found = (await as_nobody(path))[-1]
        assert device.received == b""
    assert found[:2] == ["port-permission", "error"]
    assert "root dialout" in found[2]
    assert "sudo usermod -aG dialout nobody" in found[3]


@needs_root
async def test_without_permission_for_the_group_no_group_is_advised() -> None:
    with SerialDevice(controller()) as url:
        path = url.removeprefix("serial://")
        restrict(path, 0o600)
        found = (await as_nobody(path))[-1]
    assert found[0] == "port-permission"
    assert "usermod" not in found[3]


@needs_root
async def test_a_process_of_another_user_is_found_by_its_lock_or_said_to_be_invisible() -> None:
    device = SerialDevice(controller())
    with device as url:
        path = url.removeprefix("serial://")
        restrict(path, 0o666)
        lock = "; import fcntl; fcntl.flock(port, fcntl.LOCK_EX)"
        with process(OPEN + lock, path) as holder:
            found = (await as_nobody(path))[-1]
            assert found[0] == "port-held"
            assert f"(process {holder.pid})" in found[2]
        exclusive = "; import fcntl, termios; fcntl.ioctl(port, termios.TIOCEXCL)"
        with process(OPEN + exclusive, path):
            free, found = (await as_nobody(path))[-2:]
            assert free[0] == "port-free"
            assert "visible to root only" in free[2]
            assert free[4] == "no other program of yours has it open"
            assert found[0] == "port-held"
            assert "sudo tracer-async doctor" in found[2]
        assert device.received == b""


@needs_root
@pytest.mark.parametrize("mode", [0o600, 0o640])
async def test_a_socket_without_permission_gets_no_advice_for_devices(mode: int) -> None:
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        restrict(folder, 0o755)
        path = f"{folder}/socket"
        server.bind(path)
        server.listen()
        restrict(path, mode)
        found = (await as_nobody(f"unix:{path}"))[-1]
    assert found[0] == "port-permission"
    assert "udev" not in found[3]
    assert found[3].endswith("let the program that listens on it change its mode.")


@needs_root
async def test_a_socket_in_a_folder_without_permission_is_named() -> None:
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/socket")
        server.listen()
        found = (await as_nobody(f"unix:{folder}/socket"))[-1]
    assert found[:2] == ["port-permission", "error"]
    assert found[3] == "This user needs permission to enter the folder of the socket."


# Adapters, from a copy of what Linux shows in /sys.


def test_the_adapter_is_described_with_its_driver_and_usb_numbers(tmp_path: Path) -> None:
    usb = tmp_path / "devices" / "usb1" / "1-1"
    port = usb / "1-1:1.0" / "ttyUSB0"
    port.mkdir(parents=True)
    (usb / "idVendor").write_text("0403\n")
    (usb / "idProduct").write_text("6001\n")
    (usb / "product").write_text("FT232R USB UART\n")
    driver = tmp_path / "bus" / "drivers" / "ftdi_sio"
    driver.mkdir(parents=True)
    (port / "driver").symlink_to(driver)
    tty = tmp_path / "class" / "tty" / "ttyUSB0"
    tty.mkdir(parents=True)
    (tty / "device").symlink_to(port)
    assert describe_adapter("/dev/ttyUSB0", tmp_path) == "FT232R USB UART, USB 0403:6001, driver ftdi_sio"
    assert describe_adapter("/dev/ttyUSB1", tmp_path) == "unknown: the system has no data about it"


def test_a_port_to_which_the_kernel_writes_is_the_console(tmp_path: Path) -> None:
    active = tmp_path / "class" / "tty" / "console" / "active"
    active.parent.mkdir(parents=True)
    active.write_text("tty1 ttyAMA0\n")
    assert is_console("/dev/ttyAMA0", tmp_path)
    assert not is_console("/dev/ttyAMA1", tmp_path)
