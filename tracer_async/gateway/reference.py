"""Writes the reference of the configuration into a page: ``python -m tracer_async.gateway.reference docs/gateway.md``.

The page has two comments, at the beginning and at the end of the reference. What is between them is replaced.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tracer_async.gateway.example import reference

__all__ = ["with_reference"]

BEGIN = "<!-- reference: written by `python -m tracer_async.gateway.reference docs/gateway.md` -->\n"
END = "<!-- end of the reference -->\n"


def with_reference(page: str) -> str:
    """Return *page* with the present reference. Raises ValueError if the page lacks one of the two comments."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page lacks the comments between which the reference belongs")
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


if __name__ == "__main__":
    _path = Path(sys.argv[1])
    _path.write_text(with_reference(_path.read_text(encoding="utf-8")), encoding="utf-8")
