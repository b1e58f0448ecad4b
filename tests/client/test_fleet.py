"""A fleet: many controllers in one event loop."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest

from tests.peer import Peer, realtime
from tracer_async import (
    ConnectionState,
    Fleet,
    LinkClosedError,
    LinkTimeoutError,
    Reading,
    ResponseTimeoutError,
    TracerClient,
)
from tracer_async.simulator import SimulatedTracer, serve_tcp


async def test_every_controller_is_read_at_its_own_interval() -> None:
    async with serve_tcp() as url, Fleet() as fleet:
        fleet.add(url, interval=0.02, name="frequent")
        fleet.add(url, interval=0.1, name="rare")
        counts: Counter[str] = Counter()
        async for name, reading in fleet:
            assert reading.data is not None
            assert reading.data.charging
            counts[name] += 1 + reading.skipped
            if counts["rare"] == 3:
                break
    # Ticks are at multiples of the interval, even if some were late: 10 ticks of one fall between 3 of the other.
    assert counts["frequent"] >= 10


async def test_a_failing_member_does_not_delay_the_others(peer: Peer) -> None:
    """One controller does not answer, one cannot be reached. The third is still read at every tick."""
    async with serve_tcp() as url, Fleet() as fleet:
        fleet.add(peer.url, interval=0.02, name="silent", timeout=0.05, retries=0, fence=0.0)
        fleet.add("unix:/no/such/socket", interval=0.02, name="none", connect_timeout=0.05)
        fleet.add(url, interval=0.02, name="good")
        seen: defaultdict[str, list[Reading]] = defaultdict(list)
        async for name, reading in fleet:
            seen[name].append(reading)
            if len(seen) == 3 and min(map(len, seen.values())) >= 2:
                break
    assert all(reading.ok for reading in seen["good"])
    assert {type(reading.error) for reading in seen["silent"]} == {ResponseTimeoutError}
    assert {type(reading.error) for reading in seen["none"]} == {LinkTimeoutError}
    assert {reading.age for reading in seen["silent"] + seen["none"]} == {math.inf}
    assert all(reading.age < 1.0 for reading in seen["good"])
    assert len(seen["good"]) > len(seen["silent"])


async def test_a_tick_during_a_request_in_flight_is_skipped_and_counted(peer: Peer) -> None:
    async with Fleet() as fleet:
        fleet.add(peer.url, interval=0.01, timeout=30.0)
        await peer.request()
        for _ in range(3):
            await asyncio.sleep(0.01)  # at least three ticks go by
        assert peer.idle
        peer.send(realtime())
        assert (await anext(fleet)).reading.skipped == 0
        await peer.request()
        peer.send(realtime())
        assert (await anext(fleet)).reading.skipped >= 2


async def test_no_request_is_sent_while_the_queue_of_readings_is_full(peer: Peer) -> None:
    async with Fleet(capacity=2) as fleet:
        client = fleet.add(peer.url, interval=0.01)
        for _ in range(2):
            await peer.request()
            peer.send(realtime())
        while client.stats.answers < 2:
            await asyncio.sleep(0.01)
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert client.stats.requests == 2
        await anext(fleet)
        await peer.request()
        peer.send(realtime())
        await anext(fleet)  # requested before the queue was full
        assert (await anext(fleet)).reading.skipped >= 4


async def test_members_can_be_added_and_removed_while_the_fleet_runs() -> None:
    async with serve_tcp() as url, Fleet() as fleet:
        fleet.add(url, interval=0.01, name="a")
        assert (await anext(fleet)).name == "a"
        second = fleet.add(url, interval=0.01, name="b")
        while (await anext(fleet)).name != "b":
            pass
        await fleet.remove("a")
        assert ("a" in fleet, "b" in fleet, len(fleet)) == (False, True, 1)
        assert fleet["b"] is second
        rest = [(await anext(fleet)).name for _ in range(20)]
        assert rest[10:] == ["b"] * 10
        with pytest.raises(KeyError):
            await fleet.remove("a")
        fleet.add(url, interval=0.01, name="a")
        while (await anext(fleet)).name != "a":
            pass


async def test_the_client_of_a_member_can_be_used_directly() -> None:
    simulated = SimulatedTracer()
    async with serve_tcp(simulated) as url, Fleet() as fleet:
        fleet.add(url, interval=0.01)
        await fleet[url].set_load(False)
        assert not simulated.load_on
        readings = [(await anext(fleet)).reading for _ in range(5)]
        assert readings[-1].data is not None
        assert not readings[-1].data.load_on


async def test_the_number_of_connections_being_opened_is_limited() -> None:
    opening = most = 0
    may_finish = asyncio.Event()

    async def slow(protocol: object) -> tuple[object, object]:
        nonlocal opening, most
        opening += 1
        most = max(most, opening)
        await may_finish.wait()
        opening -= 1
        raise ConnectionRefusedError

    async with Fleet(connecting=3) as fleet:
        for number in range(10):
            fleet.add(slow, name=str(number), connect_timeout=30.0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert opening == 3
        may_finish.set()
    assert most == 3


async def test_first_requests_are_spread_over_the_interval() -> None:
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(Fleet())
        url = await stack.enter_async_context(serve_tcp())
        for number in range(100):
            fleet.add(url, interval=100.0, name=str(number))
        starts = sorted(member._due for member in fleet._members.values())
        gaps = [after - before for before, after in pairwise(starts)]
        assert max(gaps) < 3.0


async def test_a_closed_fleet_ends_its_iteration_and_refuses_new_members() -> None:
    async with serve_tcp() as url:
        fleet = Fleet()
        fleet.add(url, interval=0.01)
        names = []
        async for name, _ in fleet:
            names.append(name)
            if len(names) == 3:
                await fleet.aclose()
        assert set(names) == {url}
        with pytest.raises(LinkClosedError):
            fleet.add(url)
        assert [reading async for reading in fleet] == []
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("tracer_async ")]


async def test_a_member_whose_client_was_closed_is_not_polled() -> None:
    async with serve_tcp() as url, Fleet() as fleet:
        closed = fleet.add(url, interval=0.01, name="closed")
        fleet.add(url, interval=0.01, name="other")
        await closed.aclose()
        names = [(await anext(fleet)).name for _ in range(20)]
        assert names[5:] == ["other"] * 15


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"interval": 0.0}, "interval"), ({"interval": float("nan")}, "interval"), ({"name": "taken"}, "taken")],
)
async def test_an_invalid_interval_or_a_duplicate_name_is_refused(arguments: dict[str, object], words: str) -> None:
    async with Fleet() as fleet:
        fleet.add("sim:", name="taken")
        with pytest.raises(ValueError, match=words):
            fleet.add("sim:", **arguments)  # type: ignore[arg-type]
        assert len(fleet) == 1


@pytest.mark.parametrize("arguments", [{"connecting": 0}, {"capacity": 0}])
async def test_the_limits_of_a_fleet_must_be_1_or_more(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Fleet(**arguments)


async def test_a_fleet_gets_the_same_readings_as_a_client() -> None:
    """The controller is the same, so are the set points in the readings."""
    async with serve_tcp() as url, Fleet() as fleet, TracerClient(url) as tracer:
        fleet.add(url, interval=0.01)
        one, other = (await anext(fleet)).reading.data, await tracer.read_realtime()
        assert one is not None
        assert one.over_discharge_voltage == other.over_discharge_voltage


async def test_a_cancelled_aclose_has_closed_all_members() -> None:
    """A cancel scope around a fleet cancels aclose() again at its first await."""
    async with serve_tcp() as url:
        fleet = Fleet()
        clients = [fleet.add(url, interval=0.01, name=str(number)) for number in range(3)]
        names = set()
        async for name, _ in fleet:
            names.add(name)
            if len(names) == 3:
                break
        closing = asyncio.create_task(fleet.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert {client.state for client in clients} == {ConnectionState.CLOSED}
        before = [client.stats.requests for client in clients]
        await fleet.aclose()
        assert [client.stats.requests for client in clients] == before
        assert len(fleet) == 0


async def test_a_removed_member_yields_no_reading_and_is_garbage_collected() -> None:
    async with serve_tcp() as url, Fleet() as fleet:
        fleet.add(url, interval=0.01, name="removed")
        fleet.add(url, interval=0.01, name="other")
        while len(fleet._readings.items) < 10:
            await asyncio.sleep(0)
        member = weakref.ref(fleet["removed"])
        await fleet.remove("removed")
        fleet.add("unix:/no/such/socket", interval=1000.0, name="removed", connect_timeout=1000.0)
        seen = [(await anext(fleet)).name for _ in range(20)]
        assert set(seen) == {"other"}
        gc.collect()
        assert member() is None


async def test_a_closed_fleet_yields_no_further_reading() -> None:
    async with serve_tcp() as url:
        fleet = Fleet()
        for number in range(20):
            fleet.add(url, interval=0.01, name=str(number))
        await anext(fleet)
        await fleet.aclose()
        async for _ in fleet:
            pass
        assert [item async for item in fleet] == []


@pytest.mark.parametrize("interval", [0.0, -1.0, 5e-324, 1e307, float("inf"), float("nan")])
async def test_an_interval_out_of_range_is_refused_before_the_member_is_added(interval: float) -> None:
    async with Fleet() as fleet:
        with pytest.raises(ValueError, match="interval"):
            fleet.add("sim:", interval=interval)
        assert len(fleet) == 0


async def test_members_with_the_same_default_name_are_refused_with_the_advice_to_name_them() -> None:
    async def nowhere(protocol: object, number: int) -> tuple[object, object]:
        raise OSError(number)

    async with Fleet() as fleet:
        fleet.add(lambda protocol: nowhere(protocol, 1))
        with pytest.raises(ValueError, match=r"'<lambda>'.* name="):
            fleet.add(lambda protocol: nowhere(protocol, 2))
        fleet.add(lambda protocol: nowhere(protocol, 2), name="removed")
        assert len(fleet) == 2
