"""For how long replies may come late or twice."""

from __future__ import annotations

__all__ = ["DUPLICATE_WINDOW", "DUPLICATING_LINE_PERIOD", "LATE_REPLY_WINDOW"]

LATE_REPLY_WINDOW = 10.0
"""Seconds after a request was abandoned within which its reply may still come. Slow bridges answer seconds late."""

DUPLICATE_WINDOW = 0.25
"""Seconds after a reply within which a copy of it may come."""

DUPLICATING_LINE_PERIOD = 60.0
"""Seconds after an unsolicited reply for which the line is treated as one that duplicates replies."""
