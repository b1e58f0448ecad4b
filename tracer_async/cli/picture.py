"""A view as an SVG picture."""

from __future__ import annotations

import io
import re

from rich.console import Console, RenderableType

__all__ = ["to_svg"]


def to_svg(view: RenderableType, title: str, width: int = 100, height: int = 30) -> str:
    """Return *view* as an SVG picture, *width* by *height* characters in size."""
    console = Console(
        record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor", width=width, height=height
    )
    console.print(view, height=height)
    # Without an ID of its own, rich makes one of the content, and each picture differs from the last in every line.
    svg = console.export_svg(title=title, unique_id="tracer-async")
    # The picture shall not fetch its fonts from somewhere; the reader has a fixed-width one.
    svg = re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL)
    # Without this some programs drop the blanks that a line begins with, and move the charts.
    return svg.replace("<svg ", '<svg xml:space="preserve" ', 1)
