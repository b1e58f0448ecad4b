"""A simulator that runs out of descriptors reports this once, and accepts clients again when some are free."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.promise.bridges import REPLY, REQUEST, SECONDS
from tracer_async.simulator import serve_tcp, serve_unix, servers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of descriptors")

LIMIT = 30
# In a separate process, because the test process has more descriptors open than this limit.
PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
from tracer_async.cli import main
sys.exit(main())
"""


@contextmanager
def simulator(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``tracer-async simulate`` with few descriptors; give the process and its URL."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(limit=LIMIT), "simulate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.kill()


def connect(url: str) -> socket.socket:
    if url.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(SECONDS)
        client.connect(url.removeprefix("unix:"))
        return client
    host, port = url.removeprefix("tcp://").split(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS)


def is_answered(client: socket.socket) -> bool:
    client.sendall(REQUEST)
    return len(client.recv(1024)) == len(REPLY)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_lack_of_descriptors_is_reported_once_and_clients_are_accepted_again(kind: str, tmp_path: Any) -> None:
    arguments = ("--tcp", "127.0.0.1:0") if kind == "tcp" else ("--unix", str(tmp_path / "tracer"))
    with simulator(*arguments) as (process, url):
        clients = [connect(url) for _ in range(LIMIT + 10)]
        assert is_answered(clients[0])
        assert process.stderr is not None
        assert "cannot accept a client (Too many open files)" in process.stderr.readline()
        assert is_answered(clients[0])  # a connected client is still served
        for client in clients[:-1]:
            client.close()
        assert is_answered(clients[-1])  # it connected while no descriptor was free
        with connect(url) as late:
            assert is_answered(late)
        clients[-1].close()
        assert process.poll() is None
        process.terminate()
        _, errors = process.communicate(timeout=SECONDS)
    assert errors.count("cannot accept") == 0
    assert errors.count("accepts clients again") == 1
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED])
@pytest.mark.parametrize("serve", ["tcp", "unix"])
async def test_a_server_in_a_program_also_accepts_clients_again(
    serve: str, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    """The test simulates the kernel's refusal, because other tests need their descriptors."""
    refusals = 2
    accept = socket.socket.accept

    def refuse(self: socket.socket) -> Any:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise OSError(code, "refused by the test")
        return accept(self)

    async with serve_tcp() if serve == "tcp" else serve_unix(path=tmp_path / "tracer") as url:
        await asyncio.sleep(0)
        monkeypatch.setattr(servers, "_ACCEPT_RETRY", 0.01)
        monkeypatch.setattr(socket.socket, "accept", refuse)
        for _ in range(2):
            if serve == "tcp":
                reader, writer = await asyncio.open_connection(*url.removeprefix("tcp://").split(":"))
            else:
                reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix:"))
            writer.write(REQUEST)
            async with asyncio.timeout(SECONDS):
                assert len(await reader.readexactly(len(REPLY))) == len(REPLY)
            writer.close()
            await writer.wait_closed()
    said = [record.getMessage() for record in caplog.records if record.name == "tracer_async.simulator"]
    assert len([text for text in said if "refused by the test" in text]) == 1
    assert len([text for text in said if "accepts clients again" in text]) == 1
