"""A simulated controller, for tests and examples, and for trying the library without hardware."""

from tracer_async.simulator._charger import Stage
from tracer_async.simulator._inprocess import open_in_process
from tracer_async.simulator._plant import Installation
from tracer_async.simulator._replay import Replay
from tracer_async.simulator.device import SimulatedTracer
from tracer_async.simulator.faults import FAULT_KINDS, Fault, FaultKind, Faults, parse_fault
from tracer_async.simulator.servers import serve_pty, serve_tcp, serve_unix

__all__ = [
    "FAULT_KINDS",
    "Fault",
    "FaultKind",
    "Faults",
    "Installation",
    "Replay",
    "SimulatedTracer",
    "Stage",
    "open_in_process",
    "parse_fault",
    "serve_pty",
    "serve_tcp",
    "serve_unix",
]
