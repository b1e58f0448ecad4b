"""Each defect of a line that can be made here is the first finding."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.doctor.lines import SerialDevice, bridge, complaints, controller, requests, ser2net
from tests.doctor.uart import through
from tests.peer import READING, realtime
from tracer_async import TracerClient
from tracer_async.doctor import Finding, Severity, diagnose
from tracer_async.doctor import _line as line
from tracer_async.protocol import Frame, FrameDecoder
from tracer_async.simulator import Faults, SimulatedTracer, serve_pty, serve_tcp

pytestmark = pytest.mark.slow

READ_MODBUS = bytes.fromhex("0104310000013F36")


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """For peers that never answer: the outcome does not depend on how long it waits."""
    monkeypatch.setattr(line, "_REPLY_TIME", 0.05)


async def first(url: str, seconds: float = 0.05) -> Finding:
    findings = await diagnose(url, seconds=seconds)
    return next(found for found in findings if found.severity in (Severity.WARNING, Severity.ERROR))


async def discard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(4096):
        pass


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)


# Over TCP.


@pytest.mark.usefixtures("short_waits")
async def test_a_bridge_behind_which_nothing_answers() -> None:
    async with bridge(discard) as url:
        found = await first(url)
    assert found.id == "line-silent"
    assert "12 V" in found.advice
    assert "night is no reason" in found.advice


@pytest.mark.usefixtures("short_waits")
async def test_tx_wired_to_rx() -> None:
    async with bridge(echo) as url:
        found = await first(url)
    assert found.id == "line-echo"
    assert found.advice.endswith("Check the wires, and that the battery feeds the controller.")


async def test_an_adapter_that_echoes_is_only_a_note_if_the_controller_answers() -> None:
    answer = controller()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data + answer(data))

    async with bridge(echo) as url:
        findings = await diagnose(url, seconds=0.05)
    assert complaints(findings) == []
    assert "line-echo" in [found.id for found in findings if found.severity is Severity.NOTE]


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("negotiation", ["FFFB03 FFFD03", "FFFB2C", "FFFD2C FFFB00 FFFD00"])
async def test_a_bridge_that_negotiates_telnet_options(negotiation: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes.fromhex(negotiation))
        await discard(reader, writer)

    async with bridge(serve) as url:
        assert (await first(url)).id == "line-telnet"


async def test_ser2net_with_rfc_2217_is_a_warning_because_the_controller_answers(
    tmp_path: Path, require: Callable[[str], str]
) -> None:
    async with (
        serve_pty() as device,
        ser2net(require("ser2net"), tmp_path, device, accepter="telnet(rfc2217),tcp") as url,
    ):
        async with TracerClient(url, start_offline=True, backoff=(0.01, 0.2)) as client:
            await client.read()  # it listens
        found = await first(url, 0.3)
    assert (found.id, found.severity) == ("line-telnet", Severity.WARNING)


@pytest.mark.usefixtures("short_waits")
async def test_a_bridge_that_sends_a_heartbeat_text() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reading = asyncio.create_task(discard(reader, writer))
        while not reading.done():
            writer.write(b"HEARTBEAT 0017\r\n")
            await asyncio.wait([reading], timeout=0.02)

    async with bridge(serve) as url:
        found = await first(url)
    assert found.id == "line-text"
    assert "HEARTBEAT 0017" in found.evidence


@pytest.mark.usefixtures("short_waits")
async def test_a_web_server_on_the_wrong_port() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: keep-alive\r\n\r\n")
        await discard(reader, writer)

    async with bridge(serve) as url:
        found = await first(url)
    assert found.id == "line-text"
    assert "HTTP/1.1 400" in found.evidence


async def test_a_banner_before_a_healthy_line_is_only_a_note() -> None:
    async with serve_tcp(faults=Faults("banner=ser2net port 8088@100%")) as url:
        findings = await diagnose(url, seconds=0.3)
    assert complaints(findings) == []
    assert [found.evidence for found in findings if found.id == "line-text"] == [
        "'ser2net port 8088' at the beginning: harmless"
    ]


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("answer", ["010402FFFFB880", "018402C2C1"], ids=["register", "exception"])
async def test_a_modbus_controller_behind_a_bridge(answer: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            if data == READ_MODBUS:
                writer.write(bytes.fromhex(answer))

    async with bridge(serve) as url:
        found = await first(url)
    assert found.id == "line-modbus"
    assert found.evidence.replace(" ", "") == answer


async def test_a_modbus_controller_by_pymodbus() -> None:
    server = pytest.importorskip("pymodbus.server")
    datastore = pytest.importorskip("pymodbus.datastore")
    pymodbus = pytest.importorskip("pymodbus")
    block = datastore.ModbusSequentialDataBlock(0x3100, [1700] * 8)
    context = datastore.ModbusServerContext(devices=datastore.ModbusDeviceContext(ir=block), single=True)
    simulator = server.ModbusTcpServer(context, framer=pymodbus.FramerType.RTU, address=("127.0.0.1", 0))
    await simulator.serve_forever(background=True)
    try:
        port = simulator.transport.sockets[0].getsockname()[1]
        assert (await first(f"tcp://127.0.0.1:{port}")).id == "line-modbus"
    finally:
        await simulator.shutdown()


async def test_another_master_on_the_bridge() -> None:
    answer = controller()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def read() -> None:
            while data := await reader.read(4096):
                writer.write(answer(data))

        reading = asyncio.create_task(read())
        while not reading.done():
            writer.write(realtime(READING))
            await asyncio.wait([reading], timeout=0.05)

    async with bridge(serve) as url:
        found = await first(url, 0.3)
    assert (found.id, found.severity) == ("line-other-master", Severity.WARNING)


@pytest.mark.usefixtures("short_waits")
async def test_replies_of_which_none_is_good() -> None:
    async with serve_tcp(faults=Faults("flip@100%")) as url:
        assert (await first(url)).id in ("line-damaged", "line-noise")  # a flipped bit may be one of the sync bytes


@pytest.mark.usefixtures("short_waits")
async def test_the_noise_of_a_wrong_rate_behind_a_bridge() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(through(realtime(), 9600, 19200))

    async with bridge(serve) as url:
        assert (await first(url)).id == "line-noise"


# The replies of a line with faults.


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("drop@15%", "reply-missing"),
        ("flip@15%", "reply-damaged"),
        ("double@20%", "reply-doubled"),
    ],
)
async def test_faults_of_replies_are_named(fault: str, expected: str) -> None:
    async with serve_tcp(faults=Faults(fault, seed=3)) as url:
        findings = await diagnose(url, seconds=0)
    assert complaints(findings)[0] == expected


@pytest.mark.slow
async def test_a_slow_line_is_named() -> None:
    async with serve_tcp(faults=Faults("late=800ms@100%")) as url:
        assert complaints(await diagnose(url, seconds=0)) == ["reply-slow"]


async def test_three_requests_without_a_reply_are_named_as_the_reason_of_a_new_connection() -> None:
    async with serve_tcp(faults=Faults("drop@50%", seed=1)) as url:
        findings = await diagnose(url, seconds=0)
    (found,) = (found for found in findings if found.id == "reply-missing")
    assert found.evidence.endswith("requests within 1 s; 3 requests in a row were not answered")


async def test_a_connection_that_the_other_side_closes_is_lost() -> None:
    async with serve_tcp(faults=Faults("hangup@20%", seed=3)) as url:
        findings = await diagnose(url, seconds=0)
    (found,) = (found for found in findings if found.id == "reply-missing")
    assert found.evidence.endswith("requests within 1 s; the connection was lost")


@pytest.mark.parametrize("seconds", [0, 0.1])
async def test_stray_bytes_are_a_note_if_the_controller_answers(seconds: float) -> None:
    async with serve_tcp(faults=Faults("stray@100%", seed=1)) as url:
        findings = await diagnose(url, seconds=seconds)
    assert complaints(findings) == []
    (found,) = (found for found in findings if found.id == "line-noise")
    assert found.severity is Severity.NOTE
    assert " bytes in 20 requests: " in found.evidence
    assert "baud" not in found.advice


async def test_late_replies_are_named() -> None:
    async with serve_tcp(faults=Faults("late=1.3s@10%", seed=2)) as url:
        findings = await diagnose(url, seconds=0)
    assert complaints(findings)[0] == "reply-late"


class Oddity(SimulatedTracer):
    """A controller with unusual firmware."""

    def __init__(self, controller_id: int = 0, **changes: int) -> None:
        super().__init__()
        self._id = controller_id
        self._bytes = {int(name.removeprefix("at_")): value for name, value in changes.items()}

    def answer(self, frame: Frame) -> bytes | None:
        reply = super().answer(frame)
        assert reply is not None
        (decoded,) = requests(FrameDecoder(), reply)
        data = bytearray(decoded.data)
        for at, value in self._bytes.items():
            data[at] = value
        return Frame(self._id, decoded.command, bytes(data)).encode(start_up=False)


@pytest.mark.parametrize(
    ("tracer", "evidence"),
    [
        (Oddity(0x16), "reply ID 16 instead of 00"),
        (Oddity(at_4=1), "reserved byte 4 is 01"),
        (Oddity(at_23=0xFF), "reserved byte 23 is FF"),
    ],
    ids=["ID", "byte 4", "byte 23"],
)
async def test_unusual_firmware_is_only_a_note(tracer: SimulatedTracer, evidence: str) -> None:
    async with serve_tcp(tracer) as url:
        findings = await diagnose(url, seconds=0)
    assert complaints(findings) == []
    assert [found.evidence for found in findings if found.id == "reply-unusual"] == [evidence]


async def test_a_flag_that_is_neither_0_nor_1_is_a_warning() -> None:
    async with serve_tcp(Oddity(at_12=5)) as url:
        assert complaints(await diagnose(url, seconds=0)) == ["reply-malformed"]


async def test_only_readings_and_the_modbus_reading_are_sent() -> None:
    sent = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while data := await reader.read(4096):
            sent += data
            if data != READ_MODBUS:
                await asyncio.sleep(0)

    tracer = SimulatedTracer()
    async with serve_tcp(tracer) as url:
        await diagnose(url, seconds=0)
    assert len(tracer.requests) == 21
    assert {(frame.command, frame.data) for frame in tracer.requests} == {(0xA0, b"")}
    async with bridge(serve) as url:
        await diagnose(url, seconds=0)
    request = bytes.fromhex("AA55AA55AA55EB90EB90EB9016A000B1A77F")
    assert sent == request * 3 + READ_MODBUS


# On a serial port.


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("rate", [19200, pytest.param(1200, marks=pytest.mark.slow), 115200])
async def test_the_baud_rate_of_the_controller_is_found(rate: int) -> None:
    with SerialDevice(controller(), rate=9600) as url:
        found = await first(f"{url}?baudrate={rate}")
    assert found.id == "line-baud-rate"
    assert found.evidence == f"frames appear at 9600 baud, and not at {rate}"
    assert found.advice == f"Write {url} as the URL."


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize(
    "rate", [115200, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (1200, 2400, 4800, 19200, 38400, 57600))]
)
async def test_a_controller_with_another_baud_rate_is_found(rate: int) -> None:
    with SerialDevice(controller(), rate=rate) as url:
        found = await first(url)
    assert found.id == "line-baud-rate"
    assert f"baudrate={rate}" in found.advice


@pytest.mark.usefixtures("short_waits")
async def test_a_modbus_controller_at_its_own_rate() -> None:
    def answer(data: bytes) -> bytes:
        return bytes.fromhex("010402FFFFB880") if data == READ_MODBUS else b""

    with SerialDevice(answer, rate=115200) as url:
        found = await first(url)
    assert found.id == "line-modbus"
    assert found.evidence.startswith("at 115200 baud: 01 04")


@pytest.mark.slow
@pytest.mark.usefixtures("short_waits")
async def test_an_inverted_signal() -> None:
    with SerialDevice(controller(), inverted=True) as url:
        assert (await first(url)).id == "line-inverted"


@pytest.mark.slow
@pytest.mark.usefixtures("short_waits")
async def test_a_pseudo_terminal_on_which_nothing_answers_has_no_rates() -> None:
    with SerialDevice(lambda data: b"") as url:
        found = await first(url)
    assert found.id == "line-silent"
    assert "baud" not in found.evidence


@pytest.mark.slow
@pytest.mark.usefixtures("short_waits")
async def test_a_port_on_which_nothing_answers_at_any_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "is_pseudo_terminal", lambda path: False)  # there is no real port here
    with SerialDevice(lambda data: b"") as url:
        found = await first(url)
    assert found.id == "line-silent"
    assert "at any rate from 1200 to 115200 baud" in found.evidence


@pytest.mark.usefixtures("short_waits")
async def test_a_port_whose_tx_is_wired_to_its_rx(tmp_path: Path, require: Callable[[str], str]) -> None:
    port = tmp_path / "port"
    async with bridge(echo) as url:
        socat = await asyncio.create_subprocess_exec(
            require("socat"), f"PTY,link={port},rawer", url.replace("tcp://", "TCP:")
        )
        try:
            while not port.is_symlink():
                assert socat.returncode is None
                await asyncio.sleep(0.01)
            assert (await first(str(port))).id == "line-echo"
        finally:
            with suppress(ProcessLookupError):
                socat.kill()
            await socat.wait()
