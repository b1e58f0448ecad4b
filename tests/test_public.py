"""The public surface, pinned: what is added or taken away shows here."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tracer_async
from tracer_async import simulator
from tracer_async.errors import TracerError

NAMES = """
AddressError BatteryType CaptureError Command CommandCode ControlSettings CorruptFrame Fleet FleetReading Frame
FrameDecoder
HostNotFoundError LineStats LinkClosedError LinkError LinkLostError LinkRefusedError LinkState
LinkTimeoutError LoadError LoadMode LoadRefusedError LoadState LoadUnknownError MalformedReplyError
ManualControl MissingExtraError Noise PortBusyError PortNotFoundError PortPermissionError ReadRealtime Reading
RealtimeData ResponseTimeoutError Subscription TlsError TracerClient TracerError WriteSettings crc16 poll
"""


def test_public_names() -> None:
    assert tracer_async.__all__ == sorted(NAMES.split())
    assert all(hasattr(tracer_async, name) for name in tracer_async.__all__)


def test_public_names_of_the_protocol() -> None:
    from tracer_async import protocol

    assert set(protocol.__all__) >= {
        "CommandCode",
        "CorruptFrame",
        "Frame",
        "FrameDecoder",
        "Noise",
        "crc16",
    }
    assert all(hasattr(protocol, name) for name in protocol.__all__)


def test_public_names_of_the_simulator() -> None:
    assert {"SimulatedTracer", "serve_pty", "serve_tcp"} <= set(simulator.__all__)


def test_every_error_is_in_the_tree_and_public() -> None:
    from tracer_async import errors

    assert all(issubclass(getattr(errors, name), TracerError) for name in errors.__all__)
    assert set(errors.__all__) < set(tracer_async.__all__)
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in errors.__all__)


@pytest.mark.parametrize("module", ["tracer_async", "tracer_async.simulator", "tracer_async.cli"])
def test_importing_imports_nothing_of_an_extra(module: str) -> None:
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"serial", "serial_asyncio", "serialx", "click", "rich", "numpy", "aiohttp"} & set(done.stdout.split())


def test_the_simulator_is_not_imported_before_it_is_asked_for() -> None:
    program = "import sys, tracer_async; print('tracer_async.simulator' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
