"""The blocking API: the client of one controller for programs without an event loop."""

from tracer_async.sync._client import TracerClient

__all__ = ["TracerClient"]
