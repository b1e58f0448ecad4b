"""Text of a live view that is broken into lines where it is easy to read."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

__all__ = ["joined", "message_lines"]


def joined(items: Sequence[Text], width: int) -> Text:
    """Return *items* with commas between them. A line ends only after a comma, so a number stays with its unit."""
    lines = [Text()]
    for index, item in enumerate(items):
        part = item if index == len(items) - 1 else Text.assemble(item, ",")
        if lines[-1] and len(lines[-1]) + 1 + len(part) > width:
            lines.append(Text())
        lines[-1].append(" " if lines[-1] else "").append_text(part)
    return Text("\n").join(lines)


def message_lines(text: Text, width: int, most: int) -> list[Text]:
    """Return *text* in lines of *width* columns, at most *most* of them. An ellipsis stands for what does not fit."""
    lines = text.wrap(Console(width=width), width)
    if len(lines) > most:
        lines[most - 1].truncate(width - 1)
        lines[most - 1].append("…")
    return list(lines[:most])
