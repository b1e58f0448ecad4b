"""Pictures of few colours as small PNG files: at most 256 colours, each pixel a byte before compression."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cache

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Colour = tuple[int, int, int]


def with_palette(png: bytes) -> bytes:
    """Return the same picture with its 256 most frequent colours; others become the nearest of them.

    Raises ValueError for a file that a browser's screenshot is not: not 8 bits a channel, or interlaced.
    """
    width, height, channels, data = _pixels(png)
    rows = [_colours(row, channels) for row in _rows(data, width * channels, height, channels)]
    palette = [colour for colour, _ in Counter(colour for row in rows for colour in row).most_common(256)]

    @cache
    def index(colour: Colour) -> int:
        def distance(place: int) -> int:
            return sum((a - b) ** 2 for a, b in zip(colour, palette[place], strict=True))

        return min(range(len(palette)), key=distance)

    indices = b"".join(b"\0" + bytes(map(index, row)) for row in rows)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(value for colour in palette for value in colour)),
            _chunk(b"IDAT", zlib.compress(indices, 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _pixels(png: bytes) -> tuple[int, int, int, bytes]:
    """Return width, height, the number of channels, and the filtered rows."""
    place, header, body = len(_SIGNATURE), b"", b""
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        kind, content = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        header, body = (content if kind == b"IHDR" else header), (body + content if kind == b"IDAT" else body)
        place += length + 12
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if depth != 8 or colour not in {2, 6} or interlaced:
        raise ValueError("not a picture of 8 bits a channel")
    return width, height, 3 if colour == 2 else 4, zlib.decompress(body)


def _rows(data: bytes, length: int, height: int, step: int) -> Iterator[bytes]:
    """Undo the filters of the rows, each of which refers to the byte to the left, the one above, or both."""
    above = bytes(length)
    for number in range(height):
        start = number * (length + 1)
        kind, row = data[start], bytearray(data[start + 1 : start + 1 + length])
        for place in range(length) if kind else ():
            left, corner = (row[place - step], above[place - step]) if place >= step else (0, 0)
            row[place] = (row[place] + _predicted(kind, left, above[place], corner)) & 0xFF
        above = bytes(row)
        yield above


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 1:
        return left
    if kind == 2:
        return up
    if kind == 3:
        return (left + up) // 2
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


def _colours(row: bytes, channels: int) -> list[Colour]:
    return list(zip(row[0::channels], row[1::channels], row[2::channels], strict=True))
