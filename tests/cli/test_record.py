"""``tracer-async record``: what the controller and the client exchanged is in the file, also after a crash."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Start
from tracer_async import Frame, FrameDecoder, TracerClient, TracerError
from tracer_async.capture import Recording, RecordingHeader, readings_of
from tracer_async.simulator import SimulatedTracer


def test_it_records_as_many_readings_as_asked_for(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    code, out, err = command("record", "sim:", str(path), "--interval", "0.01", "--count", "3")
    assert (code, out) == (0, "")
    assert err.endswith(f"3 readings and 0 errors in {path}\n")
    assert [reading.ok for reading in readings_of(Recording.read(path))] == [True] * 3


def test_it_continues_a_recording(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    for _ in range(2):
        assert command("record", "sim:", str(path), "--fsync", "--interval", "0.01", "--count", "2").code == 0
    recording = Recording.read(path)
    assert sum(isinstance(record, RecordingHeader) for record in recording.records) == 2
    assert len(recording.bursts) == 8


def test_it_writes_into_no_other_file(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("notes", encoding="utf-8")
    code, _, err = command("record", "sim:", str(path), "--count", "1")
    assert code == 8
    assert "not a recording" in err
    assert path.read_text(encoding="utf-8") == "notes"


def test_a_file_that_cannot_be_written_is_an_error(command: Command, tmp_path: Path) -> None:
    code, _, err = command("record", "sim:", str(tmp_path / "missing" / "line.jsonl"))
    assert code == 1
    assert "No such file" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_records_that_could_not_be_written_are_counted_at_the_end(command: Command) -> None:
    _, _, err = command("record", "sim:", "/dev/full", "--interval", "0.01", "--count", "3")
    # 3 requests, 3 replies, and both ends of the connection.
    assert err.endswith("3 readings and 0 errors in /dev/full, 8 records are missing\n")


def test_a_silent_controller_is_an_error_and_its_silence_is_recorded(
    command: Command, silent: str, tmp_path: Path
) -> None:
    path = tmp_path / "line.jsonl"
    code, _, err = command("record", silent, str(path), "--count", "1", "--timeout", "0.1", "--retries", "0")
    assert code == 4
    assert "no answer" in err
    recording = Recording.read(path)
    assert [burst.sender for burst in recording.bursts] == ["client"]


def test_ctrl_c_ends_it_with_a_whole_recording(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    process = start("record", "sim:", str(path), "--interval", "0.01")
    assert process.stderr is not None
    assert "recording sim:" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.wait()
    assert process.returncode == 130
    recording = Recording.read(path)
    assert not recording.damaged
    assert recording.link_changes == () or not recording.link_changes[-1].up


# URL and FILE


def test_without_a_url_that_of_the_environment_is_recorded(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACER_URL", "sim:")
    path = tmp_path / "line.jsonl"
    assert command("record", str(path), "--interval", "0.01", "--count", "2").code == 0
    assert [reading.ok for reading in readings_of(Recording.read(path))] == [True] * 2


@pytest.mark.parametrize("word", ["sim:", "192.168.1.20:8088", "unix:/run/tracer.sock", "/dev/ttyUSB0", "COM3"])
def test_the_name_of_a_controller_alone_is_never_written_to(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv("TRACER_URL", "sim:")
    monkeypatch.chdir(tmp_path)
    code, _, err = command("record", word, "--count", "1")
    assert code == 2
    assert "Missing FILE" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_nothing_is_written_to_a_terminal_that_is_given_alone(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACER_URL", "sim:")
    controller, terminal = os.openpty()
    try:
        link = tmp_path / "port"  # as in /dev/serial/by-id
        link.symlink_to(os.ttyname(terminal))
        assert command("record", str(link), "--count", "1").code == 2
        os.set_blocking(controller, False)
        with pytest.raises(BlockingIOError):
            os.read(controller, 1)
    finally:
        os.close(controller)
        os.close(terminal)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), "Missing FILE"),
        (("line.jsonl",), "Missing URL"),
        (("sim:", "line.jsonl", "other.jsonl"), "Give one URL and one FILE"),
    ],
)
def test_missing_or_too_many_words_are_a_usage_error(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command("record", *words, "--count", "1")
    assert code == 2
    assert error in err
    assert not list(tmp_path.iterdir())


# Listening


def test_listening_begins_when_there_is_a_connection(start: Start, tmp_path: Path) -> None:
    path, place = tmp_path / "line.jsonl", tmp_path / "bridge"
    process = start("record", f"unix:{place}", str(path), "--listen", "--count", "2")
    assert process.stderr is not None
    assert "recording unix:" in process.stderr.readline()
    line = process.stderr.readline()
    assert f"unix://{place}" in line
    assert "retrying in" in line
    request = Frame(0x16, 0xA0, b"").encode()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        bridge, _ = listening.accept()
        with bridge:
            for _ in range(2):
                bridge.sendall(request)
                bridge.sendall(SimulatedTracer().answer(Frame(0x16, 0xA0, b"")) or b"")
            assert process.wait(30) == 0
    assert [reading.ok for reading in readings_of(Recording.read(path))] == [True] * 2


# After kill -9


class Controller:
    """A controller with a bad line, for many clients. It keeps what it sent on the first connection, with the time."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, bytes]] = []
        self.received = b""
        self._tracer = SimulatedTracer(time_scale=600)
        self._random = random.Random(1)
        self._is_first = True
        self._over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_recorded, self._is_first = self._is_first, False
        decoder = FrameDecoder()
        try:
            while data := await reader.read(4096):
                if is_recorded:
                    self.received += data
                for event in decoder.feed(data):
                    if isinstance(event, Frame):
                        reply = self._reply(event)
                        if is_recorded:
                            self.sent.append((time.time(), reply))
                            if len(self.sent_before(time.time() - 1.6)) > 3000:
                                self._over.set()
                        writer.write(reply)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def _reply(self, request: Frame) -> bytes:
        reply = self._tracer.answer(request) or b""
        chance = self._random.random()
        # A good reply follows the damaged one: after a timeout the client would wait, and later connect again.
        if chance < 0.1:
            return reply[:20] + bytes((reply[20] ^ 0x10,)) + reply[21:] + reply
        return self._random.randbytes(5) + reply if chance < 0.2 else reply

    async def wait(self) -> None:
        """Wait until enough was sent on the first connection more than 1.6 s ago."""
        await self._over.wait()

    def sent_before(self, moment: float) -> bytes:
        """Return what was sent on the first connection before *moment*."""
        return b"".join(data for at, data in self.sent if at < moment)


async def read_again_and_again(url: str) -> None:
    async with TracerClient(url, fence=0.0) as tracer:
        while True:
            with suppress(TracerError):
                await tracer.read_realtime()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("cycles", [1, pytest.param(5, marks=pytest.mark.slow)])
async def test_kill_9_under_load_loses_at_most_the_last_second(start: Start, tmp_path: Path, cycles: int) -> None:
    path = tmp_path / "line.jsonl"
    known = 0
    for _ in range(cycles):
        controller = Controller()
        server = await asyncio.start_server(controller.serve, "127.0.0.1", 0)
        url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        process = start("record", url, str(path), "--interval", "0.01", "--timeout", "0.5")
        async with server:
            while not controller.sent:
                await asyncio.sleep(0.01)
            load = [asyncio.create_task(read_again_and_again(url)) for _ in range(8)]
            await controller.wait()
            process.kill()
            killed_at = time.time()
            process.wait()
            for task in load:
                task.cancel()
            await asyncio.wait(load)

        recording = Recording.read(path)
        found = recording.bursts[known:]
        known = len(recording.bursts)
        received = b"".join(burst.data for burst in found if burst.sender == "controller")
        assert controller.sent_before(killed_at).startswith(received)
        # At most the last second is missing, and half a second for a machine that is busy.
        assert len(received) >= len(controller.sent_before(killed_at - 1.5)) > 3000
        assert controller.received.startswith(b"".join(burst.data for burst in found if burst.sender == "client"))
        assert len(recording.damaged) <= cycles
