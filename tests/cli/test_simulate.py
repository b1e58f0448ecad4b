"""The simulated controller on real wires, as a process."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Start
from tracer_async import Frame, TracerClient
from tracer_async.simulator import FAULT_KINDS


def ready_line(process: object) -> str:
    stdout = getattr(process, "stdout", None)
    assert stdout is not None
    line: str = stdout.readline()
    assert line.startswith("listening on ")
    assert line.endswith("\n")
    return line.removeprefix("listening on ").rstrip("\n")


@pytest.mark.parametrize("arguments", [("--tcp", "127.0.0.1:0"), ("--pty",), ()], ids=["tcp", "pty", "nothing"])
async def test_the_url_in_the_ready_line_answers(start: Start, arguments: tuple[str, ...]) -> None:
    url = ready_line(start("simulate", *arguments))
    assert url.startswith("serial:///dev/" if "--pty" in arguments else "tcp://127.0.0.1:")
    async with TracerClient(url) as tracer:
        assert (await tracer.read_realtime()).battery_voltage > 10


async def test_several_wires_share_one_controller(start: Start, tmp_path: Path) -> None:
    process = start("simulate", "--tcp", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--unix", str(tmp_path / "socket"))
    one, _, other = (ready_line(process) for _ in range(3))
    async with TracerClient(one) as switch, TracerClient(other) as look:
        await switch.set_load(on=False)
        assert not (await look.read_realtime()).load_on


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=lambda value: str(int(value))
)
def test_a_signal_ends_it_quietly(start: Start, signum: signal.Signals, code: int, tmp_path: Path) -> None:
    process = start("simulate", "--unix", str(tmp_path / "socket"))
    ready_line(process)
    process.send_signal(signum)
    assert process.communicate() == ("", "")
    assert process.returncode == code
    assert not (tmp_path / "socket").exists()


def test_an_address_in_use_is_one_sentence(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, out, err = command("simulate", "--tcp", f"127.0.0.1:{port}")
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert f"127.0.0.1:{port}" in err


@pytest.mark.parametrize("address", ["8088", "host:", ":8088", "host:99999", "host:port"])
def test_an_address_to_listen_on_is_host_and_port(command: Command, address: str) -> None:
    code, out, err = command("simulate", "--tcp", address)
    assert (code, out) == (2, "")
    assert "HOST:PORT" in err


async def test_faults_are_the_seeds(start: Start) -> None:
    received = []
    for seed in ("3", "3", "4"):
        url = ready_line(
            start("simulate", "--fault", "double@50%", "--fault", "id=50%", "--time-scale=0", "--seed", seed)
        )
        host, _, port = url.removeprefix("tcp://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(Frame(0, 0xAA, b"\0").encode() * 50)
        writer.write_eof()
        received.append(await reader.read())
        writer.close()
        await writer.wait_closed()
    assert received[0] == received[1] != received[2]
    assert len(received[0]) > 60 * 13


def test_help_lists_every_kind_of_fault(command: Command) -> None:
    code, out, _ = command("simulate", "--help")
    assert code == 0
    assert all(kind.example in out for kind in FAULT_KINDS.values())


def test_what_is_no_fault_is_a_usage_error_with_a_right_one(command: Command) -> None:
    code, out, err = command("simulate", "--fault", "late=2.5")
    assert (code, out) == (2, "")
    assert "'late=2.5' is not a valid fault: late takes a time in ms or s" in err
    assert "late=2.5s@5%." in err


def test_a_serial_line_has_no_connection_faults(command: Command) -> None:
    code, out, err = command("simulate", "--pty", "--fault", "banner")
    assert (code, out) == (2, "")
    assert "no banner" in err


def test_an_empty_path_of_a_socket_is_a_usage_error(command: Command) -> None:
    """Linux would serve on an abstract socket whose name nobody knows."""
    code, out, err = command("simulate", "--unix", "")
    assert (code, out) == (2, "")
    assert "the path is empty" in err


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("time_scale", "-1"),
        ("time_scale", "1000001"),
        ("time_scale", "nan"),
        ("time_scale", "inf"),
        ("start_hour", "24"),
        ("start_hour", "-1"),
        ("seed", "-1"),
        ("seed", str(2**63 + 1)),
        ("seed", "1.5"),
    ],
)
def test_the_options_have_the_ranges_of_the_url(command: Command, name: str, wrong: str) -> None:
    code, _, err = command("simulate", f"--{name.replace('_', '-')}", wrong)
    assert code == 2
    assert " must be " in err or "is not a whole number" in err
    assert command("read", f"sim:?{name}={wrong}").code == 2


@pytest.mark.parametrize("right", ["time_scale=0", "time_scale=1000000", f"seed={2**63}", "start_hour=0"])
def test_the_url_has_the_ranges_of_the_options(command: Command, right: str) -> None:
    assert command("read", f"sim:?{right}", "--json").code == 0
