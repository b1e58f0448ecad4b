"""A serial adapter that is unplugged at any step is reported as such. A pseudo-terminal whose other end is closed."""

from __future__ import annotations

import asyncio
import os
import sys
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import serial

from tests.doctor.lines import complaints
from tracer_async.doctor import Finding, Severity, diagnose
from tracer_async.doctor import _line as line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")

READ_MODBUS = bytes.fromhex("0104310000013F36")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing answers: the outcome does not depend on how long it waits."""
    monkeypatch.setattr(line, "_REPLY_TIME", 0.05)


class Adapter:
    """A silent line that is unplugged when *is_due* is true for what was sent to it.

    Its path is a link, because another process can get a pseudo-terminal with the same number at once.
    """

    def __init__(self, link: Path, is_due: Callable[[bytes], bool]) -> None:
        self._is_due = is_due
        self._received = b""
        self._controller, self._terminal = os.openpty()
        tty.setraw(self._terminal)
        link.symlink_to(os.ttyname(self._terminal))
        self.link = link
        os.set_blocking(self._controller, False)
        self.is_plugged = True
        asyncio.get_running_loop().add_reader(self._controller, self._read)

    def _read(self) -> None:
        self._received += os.read(self._controller, 4096)
        if self._is_due(self._received):
            self.unplug()

    def unplug(self) -> None:
        if self.is_plugged:
            self.is_plugged = False
            self.link.unlink()
            asyncio.get_running_loop().remove_reader(self._controller)
            os.close(self._controller)
            os.close(self._terminal)


@contextmanager
def adapter(folder: Path, is_due: Callable[[bytes], bool]) -> Iterator[Adapter]:
    made = Adapter(folder / "ttyUSB0", is_due)
    try:
        yield made
    finally:
        made.unplug()


def judge(findings: list[Finding]) -> None:
    assert complaints(findings) == ["port-failed"]
    found = findings[-1]
    assert (found.severity, found.title) == (Severity.ERROR, "it was unplugged")
    assert "client" not in found.advice


async def test_an_adapter_that_is_unplugged_before_the_first_request(tmp_path: Path) -> None:
    with adapter(tmp_path, lambda received: False) as made:
        asyncio.get_running_loop().call_later(0.1, made.unplug)
        judge(await diagnose(str(made.link), seconds=30))


@pytest.mark.parametrize(
    "is_due",
    [
        bool,
        lambda received: received.count(b"\x7f") == 3,
        lambda received: READ_MODBUS in received,
        lambda received: received.count(b"\x7f") == 4,
        lambda received: received.count(b"\x7f") == 6,
    ],
    ids=["first request", "third request", "Modbus request", "first other rate", "third other rate"],
)
async def test_an_adapter_that_is_unplugged_after_a_request(is_due: Callable[[bytes], bool], tmp_path: Path) -> None:
    with adapter(tmp_path, is_due) as made:
        judge(await diagnose(str(made.link), seconds=0))
        assert not made.is_plugged


async def test_an_adapter_that_does_not_have_every_baud_rate_is_not_unplugged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = serial.Serial

    def port(path: str, baudrate: int, **options: Any) -> serial.Serial:
        if baudrate != 9600:
            raise ValueError(f"Failed to set custom baud rate ({baudrate}): [Errno 22] Invalid argument")
        return real(path, baudrate, **options)

    monkeypatch.setattr(serial, "Serial", port)
    with adapter(tmp_path, lambda received: False) as made:
        assert complaints(await diagnose(str(made.link), seconds=0)) == ["line-silent"]
