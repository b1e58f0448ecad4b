"""A view as an SVG picture."""

from __future__ import annotations

import html
import io
import re

from rich.console import Console, RenderableType

__all__ = ["to_svg"]

_BLOCKS = " ▁▂▃▄▅▆▇█"

# The size of a character and of a line in the pictures that rich makes, and where a line begins above its text.
_WIDTH, _HEIGHT, _ABOVE = 12.2, 24.4, 18.5

_CHART_ROW = re.compile(rf'<text class="([^"]+)" x="([\d.]+)" y="([\d.]+)"[^>]*>((?:&#160;|[{_BLOCKS[1:]}])+)</text>')


def to_svg(view: RenderableType, title: str, width: int = 88, height: int = 30) -> str:
    """Return *view* as an SVG picture, *width* by *height* characters in size."""
    console = Console(
        record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor", width=width, height=height
    )
    console.print(view, height=height)
    # Without an ID of its own, rich makes one of the content, and each picture differs from the last in every line.
    svg = console.export_svg(title=title, unique_id="tracer-async")
    # The picture must not fetch a font from a server. The reader's system has a fixed-width one.
    svg = re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL)
    svg = _CHART_ROW.sub(_bars, svg)
    # The lines of frames are characters. At the size that rich takes, there are gaps between them.
    svg = svg.replace("font-size: 20px", "font-size: 21.5px", 1)
    # Without this some programs drop the blanks that a line begins with, and move the charts.
    return svg.replace("<svg ", '<svg xml:space="preserve" ', 1)


def _bars(row: re.Match[str]) -> str:
    """Return a row of block characters as rectangles: the characters of most fonts leave gaps between rows."""
    style, x, y, text = row.groups()
    bottom = float(y) - _ABOVE + _HEIGHT
    bars = [
        f"M{float(x) + _WIDTH * column:.1f},{bottom:.2f}v-{height:.2f}h{_WIDTH}v{height:.2f}z"
        for column, letter in enumerate(html.unescape(text))
        if (height := _HEIGHT * max(0, _BLOCKS.find(letter)) / 8)
    ]
    return f'<path class="{style}" shape-rendering="crispEdges" d="{"".join(bars)}"/>' if bars else row[0]
