"""What `FrameDecoder` finds in a buffer, found in all of it at once.

Its rules, stated over whole arrays:

1. A good frame is a sync with a length up to 200, the end byte and the right CRC, unless it stands within another good
   frame that begins before it.
2. Each other sync that is not within a good frame began a damaged one. It goes on to the next place where a frame could
   begin, or to where its length says; if that is within its own sync bytes, it was a stray EB 90.
3. All else is noise.

So nothing has to be decoded in order but good frames that overlap, which are rare.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracer_async.capture._events import NOISE_PIECE
from tracer_async.capture._kinds import KINDS
from tracer_async.capture._records import DAMAGE, ROWS, Bytes, Places, frames_at, replies_of, runs_at
from tracer_async.protocol import END, MAX_DATA, OVERHEAD, SYNC, Reason, crc16

__all__ = ["Found", "Sender"]

Mask: TypeAlias = NDArray[np.bool_]

_HEADER_SIZE = len(SYNC) + 3
_SEARCHED = 1 << 17
_PROBED = 64

_NOISE = KINDS.index("noise")
_CRC, _END, _LENGTH, _UNFINISHED = map(KINDS.index, (Reason.CRC, Reason.END, Reason.LENGTH, Reason.UNFINISHED))


def _crc_table() -> NDArray[np.uint16]:
    """Return the CRC of each word, both with the first byte as the low one: an XOR of the CRCs of the word's bits."""
    table = np.zeros(1, np.uint16)
    for bit in range(16):
        crc = crc16((1 << bit).to_bytes(2, "little")).to_bytes(2, "big")
        table = np.concatenate([table, table ^ np.uint16(int.from_bytes(crc, "little"))])
    return table


_TABLE = _crc_table()


class Found(NamedTuple):
    """The arrays of a `Capture`, with the replies not decoded yet."""

    senders: tuple[str, ...]
    replies: NDArray[np.void]
    frames: NDArray[np.void]
    damage: NDArray[np.void]
    damaged_bytes: bytes


class Sender:
    """The bytes of one direction that are not decided on yet, and where they stand."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._offset = 0
        self._held: list[bytes] = []

    def hold(self, data: bytes) -> None:
        """Keep received bytes for the next scan."""
        self._held.append(data)

    def scan(self, senders: tuple[str, ...], *, last: bool) -> Found | None:
        """Return what is decided by the bytes so far, or None if nothing is; all of it is if they are the *last*.

        The names of all *senders* go into it as they are.
        """
        data = b"".join(self._held)
        view = np.frombuffer(data, np.uint8)
        start, stop, damage, done = _scan(view, last=last)
        self._held = [data[done:]]
        if not done:
            return None
        frames = frames_at(view, start)
        gaps = np.append(0, stop), np.append(start, done)
        between = np.flatnonzero(gaps[0] < gaps[1])
        found = Found(
            senders,
            replies_of(view, frames),
            frames,
            damage,
            b"".join([data[begin:end] for begin, end in zip(*(gap[between].tolist() for gap in gaps), strict=True)]),
        )
        for records in (found.replies, found.frames, found.damage):
            records["offset"] += self._offset
            records["sender"] = self._index
        self._offset += done
        return found


def _frame_size(view: Bytes) -> int:
    """Return the size of the frames if there is nothing else, all are good and of one size; if not, 0.

    This is what most captures are, and it takes half as long as looking for the frames. The last may be cut off.
    """
    length = int(view[8]) if len(view) >= _HEADER_SIZE else MAX_DATA
    size = OVERHEAD + length
    count = len(view) // size
    if not count or length > MAX_DATA:
        return 0
    every = view[: count * size].reshape(count, size)
    # A few at first: where there is damage, it soon shows.
    for rows in every[:_PROBED], every[_PROBED:]:
        for index, byte in (*enumerate(SYNC), (8, length), (size - 1, END)):
            if (rows[:, index] != byte).any():
                return 0
        odd = (size - len(SYNC) - 1) & 1
        words = rows[:, len(SYNC) + odd : -1].view("<u2")
        if not _is_crc(words, rows[:, len(SYNC)] if odd else None).all():
            return 0
    return size


def _scan(view: Bytes, *, last: bool) -> tuple[Places, Places, NDArray[np.void], int]:
    """Return where the good frames start and stop, the damage, and how many bytes that is."""
    size = len(view)
    even = _frame_size(view)
    if even and not (last and size % even):
        start = np.arange(0, size - even + 1, even)
        return start, start + even, np.empty(0, DAMAGE), len(start) * even
    syncs = _syncs(view)
    starts = syncs[: np.searchsorted(syncs, size - _HEADER_SIZE, "right")]
    lengths = view[starts + 8]
    stops = starts + (lengths.astype(np.intp) + OVERHEAD)

    good = np.flatnonzero((stops <= size) & (lengths <= MAX_DATA))
    good = good[view[stops[good] - 1] == END]
    good = good[_right_crc(view, starts[good], lengths[good])]
    good = good[_in_turn(starts[good], stops[good])]
    start, stop = starts[good], stops[good]
    bad = _outside(starts, good, stop)

    # A frame that is not whole yet, or the start of a header, has to wait for more bytes.
    limit = size
    if not last:
        unfinished = bad[(stops[bad] > size) & (lengths[bad] <= MAX_DATA)]
        limit = int(starts[unfinished[0]]) if len(unfinished) else max(0, size - _HEADER_SIZE + 1)
        frames = np.searchsorted(start, limit)
        start, stop = start[:frames], stop[:frames]
        bad = bad[: np.searchsorted(starts[bad], limit)]

    begin, end, kind = _damaged(view, syncs, starts[bad], stops[bad], lengths[bad])
    # Frames, good and damaged, do not overlap, so their starts and their ends sort alike; noise is what is between.
    edges = _merged(start, begin), _merged(stop, end)
    limit = max(limit, int(edges[1][-1]) if len(edges[1]) else 0)
    quiet, quiet_end = _pieces(np.append(0, edges[1]), np.append(edges[0], limit))
    if not last and len(quiet) and quiet_end[-1] == limit:
        # More noise may follow and belong to the same piece.
        limit = int(quiet[-1])
        quiet, quiet_end = quiet[:-1], quiet_end[:-1]

    damage = np.empty(len(begin) + len(quiet), DAMAGE)
    damage["offset"] = np.concatenate([begin, quiet])
    damage["size"] = np.concatenate([end - begin, quiet_end - quiet])
    damage["kind"] = np.concatenate([kind, np.full(len(quiet), _NOISE)])
    return start, stop, damage[np.argsort(damage["offset"], kind="stable")], limit


def _syncs(view: Bytes) -> Places:
    """Return every place where sync bytes stand, overlapping ones too."""
    found = []
    for at in range(0, len(view), _SEARCHED):
        part = view[at : at + _SEARCHED + len(SYNC) - 1]
        pair = part[1:] == SYNC[1]
        pair &= part[:-1] == SYNC[0]
        sync = pair[:-4] & pair[2:-2]
        sync &= pair[4:]
        found.append(np.flatnonzero(sync) + at)
    return np.concatenate(found) if found else np.empty(0, np.intp)


def _right_crc(view: Bytes, starts: Places, lengths: Bytes) -> Mask:
    """Say which frames have the right CRC, those of one length together."""
    present = np.flatnonzero(np.bincount(lengths)).tolist()
    if len(present) == 1:
        return _right_crc_of(view, starts, present[0])
    right = np.empty(len(starts), np.bool_)
    for length in present:
        alike = lengths == length
        right[alike] = _right_crc_of(view, starts[alike], length)
    return right


def _right_crc_of(view: Bytes, starts: Places, length: int) -> Mask:
    right = np.empty(len(starts), np.bool_)
    # From the controller ID to the CRC; if that is an odd number of bytes, the first is a word by itself.
    size = 3 + length + 2
    odd = size & 1
    for at in range(0, len(starts), ROWS):
        body = starts[at : at + ROWS] + len(SYNC)
        words = runs_at(view, body + odd, size - odd).view("<u2").reshape(len(body), -1)
        right[at : at + ROWS] = _is_crc(words, view[body] if odd else None)
    return right


def _is_crc(words: NDArray[np.uint16], first: Bytes | None) -> Mask:
    """Say of which rows the last word is the CRC of what is before it: a byte, if there is an odd one, and words."""
    *inner, check = np.ascontiguousarray(words.T)
    crc = np.zeros(len(check), np.uint16) if first is None else _TABLE.take(first.astype(np.uint16) << 8)
    for word in inner:
        crc = _TABLE.take(crc ^ word)
    right: Mask = crc == check
    return right


def _in_turn(start: Places, stop: Places) -> Places | slice:
    """Return which frames are left when each that begins within an earlier one is taken away."""
    if (stop[:-1] <= start[1:]).all():
        return slice(None)
    following = np.searchsorted(start, stop).tolist()
    taken = []
    at = 0
    while at < len(following):
        taken.append(at)
        at = following[at]
    return np.array(taken, np.intp)


def _outside(starts: Places, good: Places, stop: Places) -> Places:
    """Return which places, of those that *starts* lists, are in no good frame; these are the *good* ones of them."""
    rest = np.ones(len(starts), np.bool_)
    rest[good] = False
    places = np.flatnonzero(rest)
    before = np.searchsorted(good, places) - 1
    # Without a frame before it, a place is compared with the last frame, behind it; without any frame, with 0.
    return places[(before < 0) | (starts[places] >= np.append(stop, 0)[before])]


def _damaged(
    view: Bytes, syncs: Places, starts: Places, stops: Places, lengths: Bytes
) -> tuple[Places, Places, NDArray[np.uint8]]:
    """Return where damaged frames begin and end, and their kind, of the headers that began no good frame."""
    kind = np.full(len(starts), _CRC, np.uint8)
    if not len(starts):
        return starts, stops, kind
    kind[view[np.minimum(stops, len(view)) - 1] != END] = _END
    kind[stops > len(view)] = _UNFINISHED
    kind[lengths > MAX_DATA] = _LENGTH
    stops = np.where(kind == _LENGTH, starts + _HEADER_SIZE, np.minimum(stops, len(view)))

    # Each ends where a frame could begin: at the start of sync bytes that runs up to its stop, or at whole ones.
    end = stops
    for size in range(1, len(SYNC)):
        begun = np.ones(len(starts), np.bool_)
        for index, byte in enumerate(SYNC[:size]):
            begun &= view[stops - size + index] == byte
        end = np.where(begun, stops - size, end)
    following = np.append(syncs, len(view))[np.searchsorted(syncs, starts, "right")]
    end = np.where(following + len(SYNC) <= stops, np.minimum(end, following), end)
    whole = end - starts >= len(SYNC)
    return starts[whole], end[whole], kind[whole]


def _pieces(begin: Places, end: Places) -> tuple[Places, Places]:
    """Return the noise between places, where there is any, in pieces as `read_capture` has them."""
    counts = (end - begin + NOISE_PIECE - 1) // NOISE_PIECE
    if (counts <= 1).all():
        any_noise = counts > 0
        return begin[any_noise], end[any_noise]
    first = np.repeat(np.cumsum(counts) - counts, counts)
    begin = np.repeat(begin, counts) + NOISE_PIECE * (np.arange(len(first)) - first)
    return begin, np.minimum(begin + NOISE_PIECE, np.repeat(end, counts))


def _merged(some: Places, others: Places) -> Places:
    return np.sort(np.concatenate([some, others])) if len(others) else some
