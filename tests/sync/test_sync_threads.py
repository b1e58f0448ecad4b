"""Several threads with one blocking client: each gets right values, and none waits too long."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import pytest

from tests.promise.stamping_controller import LOAD, Replies, Request, StampingController, answer
from tests.promise.stamping_lines import line_of
from tests.sync.lines import checked, client
from tracer_async import LinkClosedError, LinkTimeoutError, LoadState, ResponseTimeoutError
from tracer_async.sync import TracerClient


def slow(controller: StampingController, request: Request) -> Replies:
    """Answer after some milliseconds, sometimes twice."""
    reply = controller.execute(request)
    return [(0.005, reply), (0.01, reply)] if random.random() < 0.1 else [(0.005, reply)]


class Deaf:
    """Answers nothing until the test pushes a reply."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def __call__(self, controller: StampingController, request: Request) -> Replies:
        self.asked.set()
        return []


@pytest.mark.parametrize("kind", ["tcp", "pyserial"])
def test_every_thread_gets_right_readings_and_they_share_exchanges(kind: str) -> None:
    with line_of(kind, slow) as line, client(line) as tracer, ThreadPoolExecutor(8) as pool:

        def read() -> None:
            for _ in range(6):
                checked(line.controller, tracer.read())

        for done in [pool.submit(read) for _ in range(8)]:
            done.result()
        assert tracer.stats.requests < 8 * 6
        assert tracer.stats.timeouts == 0


def test_a_load_switched_by_one_thread_is_seen_by_its_next_reading() -> None:
    with line_of("tcp", slow) as line, client(line) as tracer, ThreadPoolExecutor(4) as pool:
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                checked(line.controller, tracer.read())

        reading = [pool.submit(read) for _ in range(3)]
        for on in [True, False] * 3:
            assert tracer.set_load(on) is LoadState(on)
            assert line.controller.load_on is on
            assert tracer.read_realtime().load_on is on
        stop.set()
        for done in reading:
            done.result()
        assert line.controller.count(LOAD) >= 6


@contextmanager
def one_thread_waits(tracer: TracerClient, deaf: Deaf, call: Callable[[], object]) -> Iterator[None]:
    """Within, a thread waits for the answer to *call*."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call)
        assert deaf.asked.wait(10)
        try:
            yield
        finally:
            tracer.close()
            with pytest.raises(LinkClosedError):
                waiting.result()


def test_a_thread_that_waits_for_another_one_does_not_wait_longer_than_connect_timeout() -> None:
    deaf = Deaf()
    with line_of("tcp", deaf) as line, client(line, timeout=60.0, connect_timeout=0.2) as tracer:
        with one_thread_waits(tracer, deaf, tracer.read):
            for call in (tracer.read, lambda: tracer.set_load(True)):
                with pytest.raises(LinkTimeoutError, match="other threads"):
                    call()
        assert len(line.controller.requests) == 1


@pytest.mark.parametrize("kind", ["tcp", "pyserial"])
def test_a_close_ends_the_calls_of_other_threads(kind: str) -> None:
    deaf = Deaf()
    with line_of(kind, deaf) as line, client(line, timeout=60.0) as tracer, one_thread_waits(tracer, deaf, tracer.read):
        pass


def test_a_close_ends_the_polls_of_all_threads() -> None:
    with line_of("tcp") as line, client(line) as tracer, ThreadPoolExecutor(4) as pool:
        begun = threading.Barrier(5)

        def poll() -> int:
            readings = tracer.poll(1e6)
            checked(line.controller, next(readings))
            begun.wait(10)
            return len(list(readings))

        polls = [pool.submit(poll) for _ in range(4)]
        begun.wait(10)
        tracer.close()
        assert [done.result(10) for done in polls] == [0] * 4


def test_threads_that_wait_for_the_same_reading_get_its_failure() -> None:
    deaf = Deaf()
    with line_of("tcp", deaf) as line, client(line, timeout=0.5, retries=0) as tracer, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(tracer.read) for _ in range(8)]
        wait(calls)
        errors = [call.exception() for call in calls]
        assert all(isinstance(error, ResponseTimeoutError) for error in errors)
        assert len({id(error) for error in errors}) == 8
        assert len(line.controller.requests) < 8


def test_a_thread_in_a_loop_does_not_keep_others_waiting() -> None:
    with line_of("tcp", answer) as line, client(line) as tracer, ThreadPoolExecutor(1) as pool:
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                tracer.read()

        reading = pool.submit(read)
        for on in [True, False] * 5:
            tracer.set_load(on)
        stop.set()
        reading.result()
