"""The kinds of damage in a capture. A separate module, because it must be importable without NumPy."""

from __future__ import annotations

from tracer_async.protocol import Reason

__all__ = ["KINDS"]

KINDS: tuple[str, ...] = ("noise", *Reason)
"""Names of the kinds of damage. The field ``kind`` of a damage record is an index into this tuple."""
