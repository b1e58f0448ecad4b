"""A program that forks: the child never reads the replies to requests of its parent."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.promise.stamping_controller import Replies, Request, StampingController
from tests.promise.stamping_lines import line_of
from tests.sync.lines import checked, client
from tracer_async.capture import Recorder, Recording
from tracer_async.sync import TracerClient

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork"),
    # The controllers of these tests have a thread, and the child does not use them.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def slow(controller: StampingController, request: Request) -> Replies:
    """Answer after a moment, in which another process could wait for a reply too."""
    return [(0.01, controller.execute(request))]


def forked(work: Callable[[], bool]) -> int:
    """Start *work* in a child. Return its process number."""
    process = os.fork()
    if not process:
        signal.alarm(10)  # a child that hangs is ended
        done = False
        try:
            done = work()
        finally:
            os._exit(0 if done else 1)
    return process


def is_refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except RuntimeError as error:
        return "another process" in str(error)
    return False


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix", "pyserial"])
def test_parent_and_child_with_one_client_never_take_each_others_replies(kind: str) -> None:
    with line_of(kind, slow) as line, client(line) as tracer:
        checked(line.controller, tracer.read())
        asked = len(line.controller.requests)

        def work() -> bool:
            until = time.monotonic() + 0.3
            refused = True
            while time.monotonic() < until:
                refused = refused and is_refused(tracer.read) and is_refused(lambda: tracer.read_realtime(max_age=60))
            return refused and is_refused(lambda: tracer.set_load(True))

        child = forked(work)
        for _ in range(20):
            checked(line.controller, tracer.read())
        assert os.waitpid(child, 0)[1] == 0
        assert len(line.controller.requests) == asked + 20
        assert not line.controller.load_on


@pytest.mark.parametrize("kind", ["tcp", "unix", "pyserial"])
def test_a_child_that_closes_the_client_leaves_the_connection_of_its_parent_alone(kind: str) -> None:
    with line_of(kind, slow) as line, client(line) as tracer:
        checked(line.controller, tracer.read())
        connections = line.controller.connections

        def work() -> bool:
            tracer.close()
            return True

        assert os.waitpid(forked(work), 0)[1] == 0
        checked(line.controller, tracer.read())
        assert line.controller.connections == connections


def test_a_child_opens_a_client_of_its_own() -> None:
    with TracerClient("sim:") as tracer:
        tracer.read()

        def work() -> bool:
            with TracerClient("sim:") as own:
                return own.read().ok

        assert os.waitpid(forked(work), 0)[1] == 0


def test_a_child_that_closes_a_recorded_client_neither_hangs_nor_writes(tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    with TracerClient("sim:", recorder=Recorder(path)) as tracer:
        tracer.read()

        def work() -> bool:
            tracer.close()
            return True

        assert os.waitpid(forked(work), 0)[1] == 0
        tracer.read()
    recording = Recording.read(path)
    assert [burst.sender for burst in recording.bursts] == ["client", "controller"] * 2
    assert not recording.damaged
