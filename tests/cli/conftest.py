"""The command, run within this process or as its users run it, and controllers that answer what a test wants."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tracer_async.cli import main
from tracer_async.protocol import Frame, FrameDecoder

ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]
Answer = Callable[[Frame], bytes]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], restored_logging: None) -> Command:
    """Run the command within this process, where nothing is a terminal."""
    monkeypatch.delenv("TRACER_URL", raising=False)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["tracer-async", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
        return Outcome(int(exited.value.code or 0), *capsys.readouterr())

    return run


def environment(**changes: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TRACER_URL", "COLUMNS")}
    return inherited | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | changes


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command as a process of its own, with pipes; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tracer_async", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**variables),
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def controller() -> Iterator[Callable[[Answer], str]]:
    """Serve one connection on TCP, answering each frame as told; the call returns the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def serve(answer: Answer) -> None:
            connection, _ = listener.accept()
            decoder = FrameDecoder()
            with connection:
                while data := connection.recv(4096):
                    for event in decoder.feed(data):
                        if isinstance(event, Frame):
                            connection.sendall(answer(event))

        def started(answer: Answer) -> str:
            threads.append(threading.Thread(target=serve, args=(answer,), daemon=True))
            threads[-1].start()
            return f"tcp://127.0.0.1:{listener.getsockname()[1]}"

        yield started
        for thread in threads:
            thread.join(5)


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
