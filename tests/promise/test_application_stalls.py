"""An application that blocks its event loop gets no wrong value, no false timeout and no false success.

`block` simulates a slow disk or a synchronous call. The controllers run in their own threads,
so they continue during the stall.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, Self

import pytest

from tests.promise.logging_controller import encode
from tests.promise.stamping_controller import LOAD, READ, TOLERANCE, Replies, Request, StampingController
from tests.promise.stamping_lines import (
    Line,
    NewLoop,
    all_lines,
    clients_of,
    high_descriptors,
    line_of,
    of_each,
    on_each_loop,
    run,
)
from tracer_async import (
    BatteryType,
    ControlSettings,
    Fleet,
    LoadError,
    LoadMode,
    LoadState,
    Reading,
    ResponseTimeoutError,
    TracerClient,
    TracerError,
)
from tracer_async.client import _suspend
from tracer_async.simulator import Faults, SimulatedTracer, open_in_process

# The shortest timeouts that a controller in a thread can meet on a busy machine.
QUICK = {"timeout": 0.3, "fence": 0.1}


class DoubledThenDeaf:
    """Duplicates each reply, except to readings. When it is `deaf`, it executes and answers no command.

    So the readings before the first command do not reveal that the line duplicates replies.
    """

    def __init__(self, after: float) -> None:
        self.after = after
        self.deaf = False

    def __call__(self, controller: StampingController, request: Request) -> Replies:
        if request.command == READ:
            return [(0, controller.execute(request))]
        if self.deaf:
            return []
        reply = controller.execute(request)
        return [(0, reply), (self.after, reply)]


def block(seconds: float) -> None:
    """Block the event loop."""
    time.sleep(seconds)


def settings(capacity: int) -> ControlSettings:
    return ControlSettings(
        battery_type=BatteryType.GEL,
        battery_capacity=capacity,
        temperature_compensation=3,
        load_mode_1=LoadMode.MANUAL,
        load_mode_2=LoadMode.OFF,
    )


def checked(controller: StampingController, reading: Reading) -> int:
    """Judge a reading; return its number."""
    assert reading.data is not None, reading.error
    number = controller.number(reading.data.battery_voltage, reading.data.charge_current)
    controller.judge(reading, number)
    return number


# With a doubled reply, nothing is reported that the controller did not do.


@on_each_loop
@pytest.mark.parametrize("stalled", ["before the request", "after the request"])
def test_a_copy_read_after_a_stall_does_not_confirm_a_load_switch(new_loop: NewLoop, stalled: str) -> None:
    with all_lines(lambda: DoubledThenDeaf(0.1)) as lines:

        async def main() -> None:
            async with clients_of(lines, retries=0, **QUICK) as clients:
                await of_each(clients, lambda client: client.set_load(True))
                for line in lines.values():
                    assert line.controller.load_on
                    deafen(line.controller)
                    line.controller.load_on = False  # a protection: the copy on its way says that the load is on
                if stalled == "before the request":
                    block(0.3)
                else:
                    stall_when_asked(lines, 0.4)
                outcomes = await of_each(clients, lambda client: error_of(client.set_load(True)))
                assert {kind for kind, error in outcomes.items() if not isinstance(error, LoadError)} == set()

        run(new_loop, main)
        assert all(line.controller.count(LOAD) == 2 for line in lines.values())


@on_each_loop
def test_a_copy_read_after_a_stall_does_not_confirm_settings(new_loop: NewLoop) -> None:
    with all_lines(lambda: DoubledThenDeaf(0.2)) as lines:

        async def main() -> None:
            async with clients_of(lines, retries=0, **QUICK) as clients:
                await of_each(clients, lambda client: client.write_settings(settings(100)))
                for line in lines.values():
                    deafen(line.controller)
                writing = asyncio.create_task(
                    of_each(clients, lambda client: error_of(client.write_settings(settings(200))))
                )
                # The reading between two writes is answered, then the copy arrives during a stall.
                while any(line.controller.count(READ) < 2 for line in lines.values()):
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.03)
                block(0.5)
                await of_each(clients, lambda client: error_of(client.read()))
                outcomes = await writing
                assert {kind for kind, error in outcomes.items() if error is None} == set()

        run(new_loop, main)
        assert all(line.controller.settings[4] == 10 for line in lines.values())


@on_each_loop
@pytest.mark.parametrize("seed", [1])
def test_a_reported_success_is_true_for_a_stall_at_any_moment(new_loop: NewLoop, seed: int) -> None:
    dice = random.Random(seed)

    def script(controller: StampingController, request: Request) -> Replies:
        if dice.random() < 0.3:
            return []
        reply = controller.execute(request)
        return [(0, reply), (dice.uniform(0.0, 0.2), reply)]

    async def stall() -> None:
        while True:
            await asyncio.sleep(dice.uniform(0.0, 0.1))
            block(dice.uniform(0.0, 0.3))

    with line_of("tcp", script) as line:
        controller = line.controller
        reported = 0

        async def main() -> None:
            nonlocal reported
            async with line.client(retries=1, timeout=0.05, fence=0.05) as tracer:
                stalling = asyncio.create_task(stall())
                end = time.monotonic() + 1.0
                while time.monotonic() < end:
                    wanted = dice.random() < 0.5
                    written = settings(10 * dice.randint(1, 200))
                    with suppress(TracerError):
                        if dice.random() < 0.5:
                            assert await tracer.set_load(wanted) is LoadState(wanted)
                            assert controller.load_on == wanted
                        else:
                            await tracer.write_settings(written)
                            assert controller.settings[4] * 10 == written.battery_capacity
                        reported += 1
                    with suppress(TracerError):
                        reading = await tracer.read()
                        checked(controller, reading)
                        reported += 1
                stalling.cancel()

        run(new_loop, main)
        assert reported


# The age of a reading that was read late covers the delay.


@on_each_loop
@pytest.mark.parametrize("delay", [0.05, 0.25])
def test_a_reply_that_came_during_a_stall_is_an_answer_whose_age_covers_the_stall(
    new_loop: NewLoop, delay: float
) -> None:
    """One reply comes before the timeout and one after it. Both are read after it, and neither request times out."""

    def script(controller: StampingController, request: Request) -> Replies:
        return [(delay, controller.execute(request))]

    with all_lines(lambda: script) as lines:

        async def main() -> None:
            async with clients_of(lines, timeout=0.15, fence=0.1, retries=2) as clients:
                stall_when_asked(lines, 0.5)
                readings = await of_each(clients, TracerClient.read)
                for kind, reading in readings.items():
                    assert checked(lines[kind].controller, reading) == 0, kind
                    assert clients[kind].stats.timeouts == 0, kind
                    if kind != "timer":  # it has no thread that continues during the stall
                        assert reading.age >= 0.4, kind

        run(new_loop, main)


class FastSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout / SPEED if timeout else timeout)


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock runs 20 times as fast."""

    def __init__(self) -> None:
        super().__init__(FastSelector())

    def time(self) -> float:
        return fast_time()


SPEED = 20.0
START = time.monotonic()


def fast_time() -> float:
    return START + SPEED * (time.monotonic() - START)


@pytest.mark.parametrize("stalled", ["before the second request", "after the second request"])
def test_a_late_reply_that_came_during_a_stall_of_11_seconds_is_not_reported_as_new(stalled: str) -> None:
    """The reply to an abandoned request comes 5 s after it, when the application has just begun to block for 11 s."""
    measured: list[float] = []

    def script(controller: StampingController, request: Request) -> Replies:
        reply = controller.execute(request)
        measured.append(fast_time())
        return [] if len(measured) > 1 else [(5 / SPEED, reply)]

    with line_of("tcp", script) as line:
        controller = line.controller

        async def main() -> None:
            async with line.client(timeout=3.0, retries=0, fence=1.0) as tracer:
                with pytest.raises(ResponseTimeoutError):
                    await tracer.read()
                if stalled == "before the second request":
                    block(11 / SPEED)
                    with pytest.raises(ResponseTimeoutError):
                        await tracer.read()
                    return
                stall_when_asked({"tcp": line}, 11 / SPEED)
                reading = await tracer.read()
                assert reading.data is not None
                number = controller.number(reading.data.battery_voltage, reading.data.charge_current)
                assert number == 0
                assert reading.age > fast_time() - measured[number] - 1.0

        with asyncio.Runner(loop_factory=FastLoop) as runner:
            runner.run(main())


# The time of a reading is that of its arrival.


@on_each_loop
def test_all_callers_who_wait_for_a_reading_get_the_time_of_its_arrival(new_loop: NewLoop) -> None:
    with line_of("tcp") as line:
        controller = line.controller

        async def main() -> None:
            async with line.client() as tracer:

                async def first() -> Reading:
                    reading = await tracer.read()
                    block(0.5)
                    return reading

                readings = await asyncio.gather(first(), tracer.read(), tracer.read())
                assert controller.count(READ) == 1
                for reading in readings:
                    checked(controller, reading)
                    assert reading.time < time.time() - 0.5 + TOLERANCE

        run(new_loop, main)


@on_each_loop
def test_a_reading_of_a_fleet_has_the_time_of_its_arrival(new_loop: NewLoop) -> None:
    with line_of("tcp") as line:

        async def main() -> None:
            async with Fleet() as fleet:
                fleet.add(line.url, interval=60.0)
                while not line.controller.measured:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
                block(0.5)
                reading = (await anext(fleet)).reading
                checked(line.controller, reading)
                assert reading.time < time.time() - 0.5 + TOLERANCE

        run(new_loop, main)


# All that had arrived is read before a request is sent.


@on_each_loop
@pytest.mark.parametrize(("noise", "descriptors"), [(False, "low"), (True, "low"), (True, "high")])
def test_no_request_is_sent_before_all_input_that_has_arrived_is_read(
    new_loop: NewLoop, noise: bool, descriptors: str, request: pytest.FixtureRequest
) -> None:
    """A reading from before the request, read after it was sent, would look like its answer."""
    if descriptors == "high":
        request.getfixturevalue("descriptors_above_1023")
    with all_lines() as lines:

        async def main() -> None:
            async with clients_of(lines) as clients:
                await of_each(clients, TracerClient.read)
                for kind, line in lines.items():
                    # With noise, more than one read takes. More than 4 KiB does not fit into a pty.
                    size = 0 if not noise else 10_000 if kind in ("tcp", "tls", "unix") else 3000
                    line.controller.push(bytes(size) + line.controller.measure())
                block(0.1)
                readings = await of_each(clients, TracerClient.read)
                for kind, reading in readings.items():
                    assert checked(lines[kind].controller, reading) == 2, kind
                    assert clients[kind].stats.unsolicited == 1, kind

        run(new_loop, main)


@pytest.fixture
def descriptors_above_1023() -> Iterator[None]:
    with high_descriptors():
        yield


async def test_in_process_a_copy_read_after_a_stall_does_not_confirm_a_switch() -> None:
    tracer = SimulatedTracer()
    faults = Faults("double@50%", "drop@20%", "late=50ms@50%", seed=1)

    reported = 0
    async with TracerClient(
        lambda protocol: open_in_process(protocol, tracer, faults=faults), timeout=0.15, fence=0.1, retries=1
    ) as client:
        for number in range(4):
            wanted = number % 2 == 0
            with suppress(TracerError):
                assert await client.set_load(wanted) is LoadState(wanted)
                assert tracer.load_on == wanted
                reported += 1
            block(0.05)
    assert reported


# Continuous input does not stop requests.


class EndlessTransport(asyncio.Transport):
    """A transport whose input is never empty.

    If it is `exposed`, the transport names a socket with bytes that nobody reads. Otherwise it delivers as many
    bytes as a header has in each turn of the loop.
    """

    def __init__(self, protocol: Any, controller: StampingController, *, exposed: bool) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._end, self._other = socket.socketpair()
        self._other.send(bytes(100))
        self._protocol = protocol
        self._controller = controller
        self._exposed = exposed
        if not exposed:
            self._loop.call_soon(self._bring)

    def _bring(self) -> None:
        if not self.is_closing():
            self._loop.call_soon(self._bring)
            self._protocol.data_received(bytes(9))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._end if name == "socket" and self._exposed else default

    def write(self, data: Any) -> None:
        self._loop.call_soon(self._protocol.data_received, self._controller.measure())

    def is_closing(self) -> bool:
        return self._end.fileno() < 0

    def abort(self) -> None:
        if not self.is_closing():
            self._end.close()
            self._other.close()
            self._loop.call_soon(self._protocol.connection_lost, None)


@on_each_loop
@pytest.mark.parametrize("exposed", [True, False])
def test_requests_are_sent_although_the_input_is_never_empty(new_loop: NewLoop, exposed: bool) -> None:
    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        made = protocol()
        transport = EndlessTransport(made, controller, exposed=exposed)
        made.connection_made(transport)
        return transport, made

    async def main() -> None:
        async with TracerClient(connect) as tracer:
            for number in range(3):
                await asyncio.sleep(0.003)  # only just opened, the input is known to be empty
                assert checked(controller, await tracer.read()) == number

    with StampingController() as controller:
        run(new_loop, main)


@on_each_loop
def test_a_peer_that_never_stops_sending_does_not_stop_requests(new_loop: NewLoop) -> None:
    """Each sends 50 KiB/s of bytes that belong to no frame."""
    with all_lines() as lines:

        async def flood() -> None:
            while True:
                for line in lines.values():
                    line.controller.push(bytes(1024), wait=False)
                await asyncio.sleep(0.02)

        async def main() -> None:
            async with clients_of(lines) as clients:
                flooding = asyncio.create_task(flood())
                for number in range(4):
                    block(0.1)
                    readings = await of_each(clients, TracerClient.read)
                    for kind, reading in readings.items():
                        assert checked(lines[kind].controller, reading) == number, kind
                flooding.cancel()
                assert all(client.stats.noise_bytes for client in clients.values())

        run(new_loop, main)


# After a suspend of the machine.


@on_each_loop
@pytest.mark.parametrize("first", ["bytes come", "a request is sent"])
def test_the_link_is_reopened_after_the_machine_was_suspended(
    new_loop: NewLoop, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspended = 0.0
    monkeypatch.setattr(_suspend, "suspended_seconds", lambda: suspended)
    with all_lines() as lines:

        async def main() -> None:
            nonlocal suspended
            async with clients_of(lines) as clients:
                await of_each(clients, TracerClient.read)
                suspended += 0.1  # tolerance: a busy machine may pause between the reads of the two clocks
                await asyncio.sleep(0.01)
                await of_each(clients, TracerClient.read)
                assert [client.stats.links for client in clients.values()] == [1] * len(clients)
                states = {kind: client.state_changes() for kind, client in clients.items()}
                await asyncio.sleep(0.01)
                suspended += 3600.0
                if first == "bytes come":
                    for line in lines.values():
                        line.controller.push(line.controller.measure())
                    for kind, changes in states.items():
                        assert [await anext(changes), await anext(changes)] == ["down", "up"], kind
                readings = await of_each(clients, TracerClient.read)
                for kind, reading in readings.items():
                    controller = lines[kind].controller
                    assert checked(controller, reading) == len(controller.measured) - 1, kind
                    assert clients[kind].stats.links == 2, kind

        run(new_loop, main)


async def test_a_suspend_between_the_answer_and_the_task_that_waits_for_it_is_part_of_the_age(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two tasks wait for one answer. The machine is suspended while the first one works."""
    suspended = 0.0
    monkeypatch.setattr(_suspend, "suspended_seconds", lambda: suspended)
    async with TracerClient(open_in_process) as tracer:

        async def first() -> Reading:
            nonlocal suspended
            reading = await tracer.read()
            suspended += 3600.0
            return reading

        early, late = await asyncio.gather(first(), tracer.read())
        assert early.age < 3600 <= late.age
        assert early.data == late.data


# What the tests do to controllers.


def deafen(controller: StampingController) -> None:
    assert isinstance(controller.script, DoubledThenDeaf)
    controller.script.deaf = True


async def error_of(call: Awaitable[object]) -> TracerError | None:
    try:
        await call
    except TracerError as error:
        return error
    return None


def stall_when_asked(lines: dict[str, Line], seconds: float) -> None:
    """Block the running event loop as soon as each controller has its next request."""
    loop = asyncio.get_running_loop()
    waiting = set(lines)
    lock = threading.Lock()

    def note(kind: str) -> Callable[[Request], None]:
        def on_request(_: Request) -> None:
            lines[kind].controller.on_request = lambda _: None
            with lock:
                waiting.remove(kind)
                last = not waiting
            if last:
                loop.call_soon_threadsafe(block, seconds)
                time.sleep(0.01)  # a controller with a thread answers only when the stall has begun

        return on_request

    for kind, line in lines.items():
        line.controller.on_request = note(kind)


async def test_an_idle_client_schedules_nothing_on_a_busy_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a transport without a descriptor, where turns of the loop take the place of asking for unread input."""

    async def work() -> None:
        for _ in range(20):
            time.sleep(0.001)  # noqa: ASYNC251  # the application
            await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    scheduled: list[object] = []
    call_soon = loop.call_soon

    def counted(callback: Any, *args: Any, **options: Any) -> asyncio.Handle:
        scheduled.append(callback)
        return call_soon(callback, *args, **options)

    async with TracerClient("sim:") as tracer:
        reading = asyncio.create_task(tracer.read_realtime())
        await work()
        await reading
        monkeypatch.setattr(loop, "call_soon", counted)
        await work()
        monkeypatch.undo()
    assert not [callback for callback in scheduled if "Connection" in getattr(callback, "__qualname__", "")]


class TimedServer:
    """A bridge in a thread. The battery voltage of each reply says when it was sent: seconds since 1970, modulo 600."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._client = self._listener
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._client.close()
        self._listener.close()

    def _serve(self) -> None:
        self._client, _ = self._listener.accept()
        while self._client.recv(4096):
            time.sleep(0.05)
            self.reply()

    def reply(self) -> None:
        data = struct.pack("<H", int(time.time() % 600 * 100)) + bytes(22)
        self._client.sendall(encode(0, READ, data))

    def noise(self) -> None:
        self._client.sendall(b"\0")


@on_each_loop
@pytest.mark.parametrize("turns", range(5))
@pytest.mark.slow
def test_input_that_comes_while_earlier_input_is_read_does_not_answer_the_request_after_it(
    new_loop: NewLoop, turns: int
) -> None:
    """The application blocks again, in one of the turns of the event loop in which the client reads first."""

    async def main() -> None:
        async with TracerClient(bridge.url) as tracer:
            await tracer.read()
            await asyncio.sleep(0.3)
            threading.Timer(0.02, bridge.noise).start()
            threading.Timer(0.4, bridge.reply).start()
            block(0.1)  # the noise waits
            asking = asyncio.create_task(tracer.read())
            for _ in range(turns + 1):
                await asyncio.sleep(0)
            block(0.6)  # the reply of nobody's request waits
            reading = await asking
            assert reading.data is not None
            true_age = (reading.time - reading.data.battery_voltage + 300) % 600 - 300
            # The stamp has steps of 10 ms. uvloop's clock has steps of 1 ms, so the true age can be a little below 0.
            assert true_age <= reading.age + 0.02

    with TimedServer() as bridge:
        run(new_loop, main)
