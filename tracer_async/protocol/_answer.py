"""What a request is answered with."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from tracer_async.protocol.frame import Frame

__all__ = ["Answer"]

R = TypeVar("R")


class Answer(NamedTuple, Generic[R]):
    """A decoded reply, and how far it can be trusted. Times are in seconds, on the clock of the session's driver.

    What it tells was so at some moment within [``since``, ``received_at``].
    """

    value: R
    frame: Frame
    """The reply as it came, for those who pass it on."""
    since: float
    """When the oldest request was sent that the reply may belong to."""
    received_at: float
    """When the reply had been received at the latest."""
    ambiguous: bool
    """Whether the reply may belong to another request, or may be an echo."""
