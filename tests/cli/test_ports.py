"""The list of serial ports."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import serialx
from serial.tools import list_ports

from tests.cli.conftest import Command
from tracer_async.cli import ports
from tracer_async.transport import SerialAddress, parse_address

ADAPTER = SimpleNamespace(
    device="/dev/ttyUSB0",
    product="FT232R USB UART",
    description="FT232R USB UART - FT232R USB UART",
    manufacturer="FTDI",
    serial_number="A50285BI",
    vid=0x0403,
    pid=0x6001,
)
ON_BOARD = SimpleNamespace(
    device="/dev/ttyS0", product=None, description="n/a", manufacturer=None, serial_number=None, vid=None, pid=None
)


@pytest.fixture(params=["pyserial", "serialx"])
def found(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """The ports that the installed package finds."""
    found = [ADAPTER, ON_BOARD]
    if request.param == "pyserial":
        monkeypatch.setattr(list_ports, "comports", lambda: found)
    else:
        monkeypatch.setattr(ports, "find_spec", lambda name: name == "serialx" or None)
        monkeypatch.setattr(serialx, "list_serial_ports", lambda: found)
    return found


@pytest.mark.usefixtures("found")
def test_each_port_is_a_line_with_what_is_known_of_it(command: Command) -> None:
    assert command("ports") == (
        0,
        "/dev/ttyS0    -\n/dev/ttyUSB0  FT232R USB UART, FTDI, 0403:6001, A50285BI\n",
        "",
    )


@pytest.mark.usefixtures("found")
def test_programs_get_an_object_for_each_port(command: Command) -> None:
    code, out, err = command("ports", "--json")
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    assert records[1] == {
        "port": "/dev/ttyUSB0",
        "description": "FT232R USB UART",
        "manufacturer": "FTDI",
        "serial_number": "A50285BI",
        "usb_id": "0403:6001",
    }
    assert set(records[0]) == set(records[1])
    assert all(parse_address(record["port"]) == SerialAddress(record["port"]) for record in records)


def test_where_there_is_none_it_says_so(command: Command, found: list[SimpleNamespace]) -> None:
    found.clear()
    code, out, err = command("ports")
    assert (code, out) == (0, "")
    assert "No serial port" in err
    assert command("ports", "--json") == (0, "", "")


def test_without_a_package_that_finds_them_it_names_one(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "find_spec", lambda _: None)
    code, _, err = command("ports")
    assert code == 9
    assert "pip install 'tracer-async[serial]'" in err
