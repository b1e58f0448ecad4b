"""Finds out why a controller does not answer: probes of the port, the line and the replies, with advice."""

from tracer_async.doctor._diagnosis import diagnose
from tracer_async.doctor._findings import FINDING_IDS, Finding, Severity

__all__ = ["FINDING_IDS", "Finding", "Severity", "diagnose"]
