"""The picture of a view, read as XML."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

from rich.text import Text

from tests.cli.conftest import Command
from tracer_async.cli.picture import to_svg

SVG = "{http://www.w3.org/2000/svg}"
BAR = re.compile(r"M([\d.]+),([\d.]+)v-([\d.]+)h([\d.]+)v[\d.]+z")


def bars(svg: str) -> list[tuple[float, float, float, float]]:
    """Return left, bottom, height and width of each bar."""
    paths = ET.fromstring(svg).iter(f"{SVG}path")
    return [tuple(map(float, found)) for path in paths for found in BAR.findall(path.get("d", ""))]  # type: ignore[misc]


def test_bars_touch_each_other_whatever_the_font() -> None:
    (top_left, top_bottom, top_height, _), (left, bottom, height, width), (right, _, half, _) = bars(
        to_svg(Text("▂\n█▄", style="cyan"), "title")
    )
    assert top_left == left
    assert abs(top_bottom - (bottom - height)) < 0.01
    assert abs(left + width - right) < 0.1
    assert abs(top_height / height - 2 / 8) < 0.01
    assert abs(half / height - 4 / 8) < 0.01


def test_a_blank_has_no_bar_and_words_stay_text() -> None:
    svg = to_svg(Text("▁ ▁\nwords & numbers"), "title")
    assert len(bars(svg)) == 2
    assert "words" in "".join(ET.fromstring(svg).itertext())


def test_the_picture_fetches_nothing() -> None:
    svg = to_svg(Text("▁"), "title")
    assert not re.search(r"url\((?!#)|(?:href|src)\s*=|@import", svg)


def test_the_title_is_a_command_that_a_shell_accepts(command: Command, tmp_path: Path) -> None:
    url = "sim:?seed=1&start_hour=5"
    command("watch", url, "--interval", "0.01", "--count", "1", "--svg", str(tmp_path / "view.svg"))
    titles = [text for text in ET.parse(tmp_path / "view.svg").getroot().itertext() if "tracer-async" in text]
    assert ["tracer-async", "watch", url] in [
        shlex.split(title.replace("\N{NO-BREAK SPACE}", " ")) for title in titles if "{" not in title
    ]
