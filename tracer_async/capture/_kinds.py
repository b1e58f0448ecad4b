"""The kinds of damage that a capture can have. A module of its own, because it must not need NumPy."""

from __future__ import annotations

from tracer_async.protocol import Reason

__all__ = ["KINDS"]

KINDS: tuple[str, ...] = ("noise", *Reason)
"""Names of the kinds of damage. The field ``kind`` of a record of damage is an index into it."""
