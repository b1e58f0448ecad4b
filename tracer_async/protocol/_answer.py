"""The decoded answer to a request."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from tracer_async.protocol.frame import Frame

__all__ = ["Answer"]

R = TypeVar("R")


class Answer(NamedTuple, Generic[R]):
    """A decoded reply, how old it may be, and whether it is certain.

    The controller sent it, and measured its values, within [``since``, ``received_at``]. Times are in seconds, on the
    clock of the session's driver.
    """

    value: R
    frame: Frame
    """The frame of the reply, unchanged."""
    since: float
    """When the oldest request that the reply may belong to was sent."""
    received_at: float
    """Latest time at which the reply was received."""
    ambiguous: bool
    """Whether the reply may belong to another request, or be an echo."""
