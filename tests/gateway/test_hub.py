"""The hub: each reading reaches every output, and no fault of an output reaches anything else."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.gateway.hub_outputs import FailingOutput, RaisingOutput, RecordingOutput, StubbornOutput
from tests.peer import Peer
from tests.promise.virtual_time import virtual_time
from tracer_async import LoadState, LoadUnknownError, TracerClient
from tracer_async.gateway.config import ControllerConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.hub import Hub
from tracer_async.simulator import SimulatedTracer, serve_tcp


def simulated(seed: int = 0, **changes: object) -> ControllerConfig:
    return ControllerConfig.model_validate({"url": f"sim:?seed={seed}", "interval": 1.0, **changes})


@asynccontextmanager
async def running(**controllers: ControllerConfig) -> AsyncIterator[Hub]:
    # Nothing is read from the file or written to it.
    hub = Hub(EnergyLedger(Path("unused"), zone=None, flush_seconds=60))
    await hub.apply(controllers)
    task = asyncio.create_task(hub.run())
    yield hub
    await hub.aclose()
    await task


# Events


@virtual_time
async def test_every_output_receives_each_reading_once_in_the_same_order() -> None:
    async with running(roof=simulated(1), shed=simulated(2, interval=2.0)) as hub:
        one, other = RecordingOutput(), RecordingOutput()
        hub.start(one)
        hub.start(other)
        await one.until(lambda events: len(events) == 30)
        assert one.events == other.events
        assert len({id(event.reading.data) for event in one.events}) == 30
        names = [event.controller.name for event in one.events]
        assert (names.count("roof"), names.count("shed")) in {(20, 10), (19, 11), (21, 9)}


@virtual_time
async def test_an_output_that_starts_later_receives_the_latest_event_of_each_controller_first() -> None:
    async with running(roof=simulated(1), shed=simulated(2)) as hub:
        early, late = RecordingOutput(), RecordingOutput()
        hub.start(early)
        await early.until(lambda events: {event.controller.name for event in events} == {"roof", "shed"})
        hub.start(late)
        assert late.told == early.told
        assert {event.controller.name: event for event in late.events} == {
            name: hub.latest(name) for name in ("roof", "shed")
        }


@virtual_time
async def test_an_output_is_started_once() -> None:
    async with running(roof=simulated()) as hub:
        output = RecordingOutput()
        hub.start(output)
        with pytest.raises(ValueError, match="started already"):
            hub.start(output)


async def test_an_offline_controller_gives_events_with_the_reason_and_since_when(peer: Peer) -> None:
    config = simulated(url=peer.url, interval=0.2, timeout=0.05, retries=0)
    async with running(gone=config, roof=simulated(interval=0.2)) as hub:
        output = RecordingOutput()
        hub.start(output)
        began = time.time()
        await output.until(lambda events: sum(not event.online for event in events) == 3)
        offline = [event for event in output.events if not event.online]
        assert {event.controller.name for event in offline} == {"gone"}
        assert all(event.reading.data is None and event.reason for event in offline)
        assert len({event.since for event in offline}) == 1
        assert began - 60 < offline[0].since <= offline[0].reading.time
        assert {event.controller.name for event in output.events if event.online} == {"roof"}


async def test_the_state_begins_anew_when_a_controller_comes_back(peer: Peer) -> None:
    async with serve_tcp(SimulatedTracer()) as url:
        online, offline = (simulated(url=address, interval=0.2, timeout=0.05, retries=0) for address in (url, peer.url))
        async with running(roof=online) as hub:
            output = RecordingOutput()
            hub.start(output)
            await output.until(lambda events: len(events) == 2)
            assert output.events[0].since == output.events[1].since == output.events[0].reading.time
            await hub.apply({"roof": offline})
            await output.until(lambda events: not events[-1].online)
            await hub.apply({"roof": online})
            await output.until(lambda events: events[-1].online)
            assert output.events[-1].since == output.events[-1].reading.time > output.events[0].since


# Outputs that fail


@virtual_time
async def test_an_output_that_raises_disturbs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with running(roof=simulated()) as hub:
        bad, good = RaisingOutput("bad"), RecordingOutput("good")
        hub.start(bad)
        hub.start(good)
        await good.until(lambda events: len(events) == 5)
        hub.add("shed", simulated(1))
        await hub.remove("shed")
        await hub.remove("roof")
        assert [word for word, _ in good.told] == ["add", "add", "remove", "remove"]
        assert bad.state.dropped >= 5
        assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
            "bad: an internal error; please report it"
        ]


def fails() -> None:
    raise OSError("no broker")


def is_cancelled() -> None:
    raise asyncio.CancelledError


def ends() -> None:
    """Return at once."""


def fails_in_a_group() -> None:
    raise ExceptionGroup("unhandled errors", [OSError("no broker")])


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (fails, "no broker"),
        (fails_in_a_group, "no broker"),
        (is_cancelled, "it was cancelled from within"),
        (ends, "it ended"),
    ],
)
def test_an_output_that_ends_is_started_again_with_growing_delays(
    end: object, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    @virtual_time
    async def check() -> None:
        async with running(roof=simulated()) as hub:
            output = FailingOutput(end)  # type: ignore[arg-type]
            hub.start(output)
            await output.until(lambda _: len(output.starts) == 10, seconds=1000)
            delays = [after - before for before, after in zip(output.starts, output.starts[1:], strict=False)]
            for number, delay in enumerate(delays):
                longest = min(2.0**number, 60.0)
                assert longest / 2 <= delay <= longest + 0.01
            assert (output.state.connected, output.state.error) == (False, text)
            (state,) = (state for state in hub.outputs() if state.name == "failing")
            assert state is output.state

    check()
    messages = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert messages == [f"failing: {text}"]


@virtual_time
async def test_stopping_cancels_the_output_then_lets_it_deliver_and_then_only_hands_it_events() -> None:
    async with running(roof=simulated()) as hub:
        output, other = RecordingOutput(), RecordingOutput()
        hub.start(output)
        hub.start(other)
        await output.next_event()
        await hub.stop(output)
        number = len(output.events)
        assert output.drained_with == number
        # What comes now is for the output that takes its place. It is told nothing else.
        told = len(output.told)
        hub.add("shed", simulated(1))
        await hub.remove("shed")
        await other.next_event()
        assert output.events == other.events
        assert len(output.told) == told
        hub.detach(output)
        number = len(output.events)
        await other.next_event()
        assert len(output.events) == number
        with pytest.raises(KeyError):
            await hub.stop(output)


@pytest.mark.parametrize(("run", "drain"), [(True, False), (False, True), (False, False)])
def test_an_output_that_does_not_end_is_left_behind_after_a_few_seconds(
    run: bool, drain: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @virtual_time
    async def check() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr("tracer_async.gateway.output_task.time.monotonic", loop.time)
        async with running(roof=simulated()) as hub:
            output = StubbornOutput(run=run, drain=drain)
            hub.start(output)
            await output.next_event()
            began, number = loop.time(), len(output.events)
            await hub.stop(output)
            assert 3.0 <= loop.time() - began <= 3.5
            assert output.drained_with == (None if run else number)
            output.released.set()
            await asyncio.sleep(0)

    check()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


# Switching the load


@virtual_time
async def test_switching_the_load_publishes_a_reading_that_shows_it() -> None:
    async with running(roof=simulated(interval=3600)) as hub:
        output = RecordingOutput()
        hub.start(output)
        first = await output.next_event()
        assert first.reading.data is not None
        wanted = not first.reading.data.load_on
        assert await hub.set_load("roof", wanted, within=5) is LoadState(wanted)
        assert output.events[-1].reading.data is not None
        assert output.events[-1].reading.data.load_on is wanted
        assert hub.latest("roof") is output.events[-1]


@virtual_time
async def test_a_flood_of_commands_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(roof=simulated(interval=3600)) as hub:
        begun = asyncio.get_running_loop().time()
        for number in range(500):
            await hub.set_load("roof", number % 2 == 0, within=5)
        minutes = math.ceil((asyncio.get_running_loop().time() - begun) / 60)
    lines = [text for record in caplog.records if "load" in (text := record.getMessage())]
    assert 0 < len(lines) <= 31 * minutes < 500
    assert any("switched too often" in line for line in lines)


@virtual_time
async def test_a_poll_and_a_switch_that_share_an_answer_give_one_event() -> None:
    async with running(roof=simulated(interval=0.2)) as hub:
        output = RecordingOutput()
        hub.start(output)
        for number in range(40):
            await hub.set_load("roof", number % 2 == 0, within=5)
        answers = [id(event.reading.data) for event in output.events]
        assert len(answers) == len(set(answers)) > 40
        times = [event.monotonic for event in output.events]
        assert times == sorted(times)


@virtual_time
async def test_a_controller_that_is_removed_while_its_load_is_switched_gives_no_event_after_that() -> None:
    async with running(roof=simulated(), shed=simulated(1)) as hub:
        output = RecordingOutput()
        hub.start(output)
        await output.until(lambda events: {event.controller.name for event in events} == {"roof", "shed"})
        switching = asyncio.create_task(hub.set_load("roof", on=True, within=5))
        await asyncio.sleep(0)
        await hub.remove("roof")
        with pytest.raises(LoadUnknownError, match="was not sent"):
            await switching
        assert output.told[-1][0] == "remove"
        number = len(output.events)
        await output.until(lambda events: len(events) > number + 3)
        assert {event.controller.name for event in output.events[number:]} == {"shed"}
        with pytest.raises(KeyError):
            await hub.set_load("roof", on=True, within=5)
        with pytest.raises(KeyError):
            hub.latest("roof")


# A changed configuration


@virtual_time
async def test_an_unchanged_controller_keeps_its_connection_and_its_latest_event() -> None:
    before = {"roof": simulated(1), "shed": simulated(2)}
    async with running(**before) as hub:
        output = RecordingOutput()
        hub.start(output)
        await output.until(lambda events: len(events) >= 20)
        latest = hub.latest("roof")
        assert latest is not None
        output.told.clear()
        await hub.apply({"barn": simulated(3), "roof": simulated(1), "shed": simulated(2, interval=5.0)})
        assert hub.latest("roof") is latest
        assert hub.latest("shed") is None
        assert [controller.name for controller in hub.all()] == ["barn", "roof", "shed"]
        assert [(word, controller.name) for word, controller in output.told] == [("add", "barn"), ("add", "shed")]
        number = len(output.events)
        await output.until(lambda events: {event.controller.name for event in events[number:]} == set(hub_names(hub)))
        first = {event.controller.name: event for event in reversed(output.events[number:])}
        assert first["roof"].stats.requests > latest.stats.requests - 1
        assert first["shed"].stats.requests == first["barn"].stats.requests == 1


def hub_names(hub: Hub) -> list[str]:
    return [controller.name for controller in hub.all()]


@virtual_time
async def test_a_new_title_changes_neither_the_connection_nor_the_latest_reading() -> None:
    async with running(roof=simulated(1)) as hub:
        output = RecordingOutput()
        hub.start(output)
        before = await output.next_event()
        await hub.apply({"roof": simulated(1, title="House")})
        after = hub.latest("roof")
        assert after is not None
        assert (after.reading, after.controller.title) == (before.reading, "House")
        assert [word for word, _ in output.told] == ["add", "add"]
        event = await output.next_event()
        assert event.controller.title == "House"
        assert event.stats.requests == before.stats.requests + 1


@virtual_time
async def test_another_id_is_another_controller_to_the_outputs() -> None:
    async with running(roof=simulated(1)) as hub:
        output = RecordingOutput()
        hub.start(output)
        await output.next_event()
        await hub.apply({"roof": simulated(1, id="house")})
        assert hub.latest("roof") is None
        assert [(word, controller.id) for word, controller in output.told] == [
            ("add", "roof"),
            ("remove", "roof"),
            ("add", "house"),
        ]


async def test_two_controllers_can_exchange_their_lines() -> None:
    async with serve_tcp(SimulatedTracer()) as one, serve_tcp(SimulatedTracer()) as other:
        for url, load in ((one, False), (other, True)):
            async with TracerClient(url) as tracer:
                await tracer.set_load(load)
        first, second = (simulated(url=url, interval=0.2) for url in (one, other))
        async with running(a=first, b=second) as hub:
            output = RecordingOutput()
            hub.start(output)
            await output.until(lambda events: {event.controller.name for event in events} == {"a", "b"})
            await hub.apply({"a": second, "b": first})
            number = len(output.events)
            await output.until(lambda events: {event.controller.name for event in events[number:]} == {"a", "b"})
            loads = {
                event.controller.name: event.reading.data.load_on
                for event in output.events[number:]
                if event.reading.data is not None
            }
            assert loads == {"a": True, "b": False}


@virtual_time
async def test_a_removed_controller_is_gone_everywhere() -> None:
    async with running(roof=simulated(1), shed=simulated(2)) as hub:
        output = RecordingOutput()
        hub.start(output)
        await output.next_event()
        await hub.apply({"shed": simulated(2)})
        assert [(word, controller.name) for word, controller in output.told][2:] == [("remove", "roof")]
        assert hub_names(hub) == ["shed"]


# Is it alive?


def test_no_reading_for_longer_than_any_reading_takes_means_that_polling_has_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("tracer_async.gateway.hub.time.monotonic", lambda: now)

    @virtual_time
    async def check() -> None:
        nonlocal now
        async with running(roof=simulated(interval=10, timeout=1, retries=2)) as hub:
            output = RecordingOutput()
            hub.start(output)
            await output.next_event()
            now += 13
            assert hub.is_polling()
            now += 60
            assert not hub.is_polling()
            await output.next_event()
            assert hub.is_polling()
            await hub.apply({})
            now += 1000
            assert hub.is_polling()

    check()
