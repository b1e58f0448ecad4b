from __future__ import annotations

from tests.sync.lines import lines

__all__ = ["lines"]
