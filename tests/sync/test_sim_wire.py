"""``sim:`` without an event loop, with every fault of the simulator."""

from __future__ import annotations

import pytest

from tracer_async import LoadState, TracerError
from tracer_async.simulator import FAULT_KINDS, Faults, SimulatedTracer
from tracer_async.simulator._faulty_port import make_port
from tracer_async.sync import TracerClient
from tracer_async.sync._sim_wire import SimWire

pytestmark = pytest.mark.slow

# So that a run is short.
SHORT = {"silence": "silence=100ms", "stall": "stall=100ms", "late": "late=80ms", "flood": "flood=64KiB"}


@pytest.mark.parametrize("kind", sorted(FAULT_KINDS))
def test_no_fault_of_the_simulator_gives_a_wrong_value(kind: str) -> None:
    device = SimulatedTracer(time_scale=0.0)
    faults = Faults(f"{SHORT.get(kind, kind)}@20%", seed=1)
    tracer = TracerClient(
        "tcp://127.0.0.1:1", timeout=0.05, fence=0.05, retries=3, backoff=(0.001, 0.001), start_offline=True
    )
    tracer._opener = lambda *_: SimWire(make_port(device, faults))
    good = 0
    with tracer:
        for number in range(4):
            try:
                assert tracer.set_load(number % 2 == 0) is LoadState(number % 2 == 0)
                assert device.realtime().load_on is (number % 2 == 0)
                assert tracer.read_realtime() == device.realtime()
                good += 1
            except TracerError:
                continue
    assert good


def test_a_simulated_controller_is_the_same_after_a_reconnection() -> None:
    with TracerClient("sim:?time_scale=0") as tracer:
        tracer.set_load(True)
        tracer._driver._conversation._lose_link(None)  # type: ignore[union-attr]
        assert tracer.read_realtime().load_on
        assert tracer.stats.links == 2
