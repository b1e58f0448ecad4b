"""The rules of `FrameDecoder`, applied to a whole buffer at once.

The rules for arrays:

1. A good frame has sync bytes, a length of up to 200, the end byte and the right CRC, and does not start within another
   good frame.
2. Sync bytes outside of good frames start a damaged frame. It ends at its length, or earlier where the next frame could
   start. If that is within its own sync bytes, it is noise (a stray EB 90).
3. All other bytes are noise.

Only good frames that overlap, which are rare, have to be processed in order.
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
# Bytes that are searched for sync bytes at a time, so that the masks fit into the cache of a processor.
_SEARCH_CHUNK = 1 << 17
# Frames of a uniform capture that are checked first.
_PROBE_ROWS = 64

_NOISE = KINDS.index("noise")
_CRC, _END, _LENGTH, _UNFINISHED = map(KINDS.index, (Reason.CRC, Reason.END, Reason.LENGTH, Reason.UNFINISHED))


def _crc_table() -> NDArray[np.uint16]:
    """Return the CRC of each 16-bit word. Words and CRCs have their first byte as the low one."""
    # A CRC is linear: that of a word is the XOR of the CRCs of its bits. So each bit doubles the table.
    table = np.zeros(1, np.uint16)
    for bit in range(16):
        crc = crc16((1 << bit).to_bytes(2, "little")).to_bytes(2, "big")
        table = np.concatenate([table, table ^ np.uint16(int.from_bytes(crc, "little"))])
    return table


_TABLE = _crc_table()


class Found(NamedTuple):
    """The arrays of a `Capture`, before the replies are decoded."""

    senders: tuple[str, ...]
    replies: NDArray[np.void]
    frames: NDArray[np.void]
    damage: NDArray[np.void]
    damaged_bytes: bytes


class Sender:
    """The pending bytes of one sender, and their position."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._offset = 0
        self._pending: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Store received bytes for the next scan."""
        self._pending.append(data)

    def scan(self, senders: tuple[str, ...], *, last: bool) -> Found | None:
        """Return the frames and the damage that are complete, or None. With *last* all bytes are complete.

        *senders* are the names of all senders, for the result.
        """
        data = b"".join(self._pending)
        view = np.frombuffer(data, np.uint8)
        start, stop, damage, done = _scan(view, last=last)
        self._pending = [data[done:]]
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


def _uniform_frame_size(view: Bytes) -> int:
    """Return the frame size if the buffer contains only good frames of one size, else 0. The last frame may be cut.

    Most captures are like this, and this check takes half as long as searching for the frames.
    """
    length = int(view[8]) if len(view) >= _HEADER_SIZE else MAX_DATA
    size = OVERHEAD + length
    count = len(view) // size
    if not count or length > MAX_DATA:
        return 0
    every = view[: count * size].reshape(count, size)
    # Check a few rows first: in a damaged capture they usually fail, and the rest need not be checked.
    for rows in every[:_PROBE_ROWS], every[_PROBE_ROWS:]:
        for index, byte in (*enumerate(SYNC), (8, length), (size - 1, END)):
            if (rows[:, index] != byte).any():
                return 0
        odd = (size - len(SYNC) - 1) & 1
        words = rows[:, len(SYNC) + odd : -1].view("<u2")
        if not _is_crc(words, rows[:, len(SYNC)] if odd else None).all():
            return 0
    return size


def _scan(view: Bytes, *, last: bool) -> tuple[Places, Places, NDArray[np.void], int]:
    """Return the starts and ends of the good frames, the damage records, and the number of bytes they cover."""
    size = len(view)
    uniform_size = _uniform_frame_size(view)
    if uniform_size and not (last and size % uniform_size):
        start = np.arange(0, size - uniform_size + 1, uniform_size)
        return start, start + uniform_size, np.empty(0, DAMAGE), len(start) * uniform_size
    syncs = _syncs(view)
    starts = syncs[: np.searchsorted(syncs, size - _HEADER_SIZE, "right")]
    lengths = view[starts + 8]
    stops = starts + (lengths.astype(np.intp) + OVERHEAD)

    # Apply the cheap conditions first: the CRC, the most expensive one, is computed only for the remaining candidates.
    good = np.flatnonzero((stops <= size) & (lengths <= MAX_DATA))
    good = good[view[stops[good] - 1] == END]
    good = good[_has_right_crc(view, starts[good], lengths[good])]
    good = good[_without_overlaps(starts[good], stops[good])]
    start, stop = starts[good], stops[good]
    bad = _outside_of_good_frames(starts, good, stop)

    # An incomplete frame or header at the end must wait for more bytes.
    limit = size
    if not last:
        unfinished = bad[(stops[bad] > size) & (lengths[bad] <= MAX_DATA)]
        limit = int(starts[unfinished[0]]) if len(unfinished) else max(0, size - _HEADER_SIZE + 1)
        # Good frames after the limit wait too: the incomplete frame may turn out to contain them.
        frames = np.searchsorted(start, limit)
        start, stop = start[:frames], stop[:frames]
        bad = bad[: np.searchsorted(starts[bad], limit)]

    begin, end, kind = _damaged(view, syncs, starts[bad], stops[bad], lengths[bad])
    # Good and damaged frames do not overlap, so sorted starts and sorted ends match. The gaps between them are noise.
    edges = _merged(start, begin), _merged(stop, end)
    limit = max(limit, int(edges[1][-1]) if len(edges[1]) else 0)
    noise, noise_end = _pieces(np.append(0, edges[1]), np.append(edges[0], limit))
    if not last and len(noise) and noise_end[-1] == limit:
        # More noise may follow. It belongs to the same event, up to NOISE_PIECE bytes.
        limit = int(noise[-1])
        noise, noise_end = noise[:-1], noise_end[:-1]

    damage = np.empty(len(begin) + len(noise), DAMAGE)
    damage["offset"] = np.concatenate([begin, noise])
    damage["size"] = np.concatenate([end - begin, noise_end - noise])
    damage["kind"] = np.concatenate([kind, np.full(len(noise), _NOISE)])
    return start, stop, damage[np.argsort(damage["offset"], kind="stable")], limit


def _syncs(view: Bytes) -> Places:
    """Return the positions of all sync bytes, including overlapping ones."""
    found = []
    for at in range(0, len(view), _SEARCH_CHUNK):
        # The chunks overlap by 5 bytes, so that sync bytes at a border are found once.
        part = view[at : at + _SEARCH_CHUNK + len(SYNC) - 1]
        pair = part[1:] == SYNC[1]
        pair &= part[:-1] == SYNC[0]
        sync = pair[:-4] & pair[2:-2]
        sync &= pair[4:]
        found.append(np.flatnonzero(sync) + at)
    return np.concatenate(found) if found else np.empty(0, np.intp)


def _has_right_crc(view: Bytes, starts: Places, lengths: Bytes) -> Mask:
    """Return which frames have the right CRC. Frames of the same length are checked together."""
    present = np.flatnonzero(np.bincount(lengths)).tolist()
    if len(present) == 1:
        return _has_right_crc_of_length(view, starts, present[0])
    right = np.empty(len(starts), np.bool_)
    for length in present:
        alike = lengths == length
        right[alike] = _has_right_crc_of_length(view, starts[alike], length)
    return right


def _has_right_crc_of_length(view: Bytes, starts: Places, length: int) -> Mask:
    right = np.empty(len(starts), np.bool_)
    # The words from the controller ID to the CRC. If the number of bytes is odd, the first byte is checked separately.
    size = 3 + length + 2
    odd = size & 1
    for at in range(0, len(starts), ROWS):
        body = starts[at : at + ROWS] + len(SYNC)
        words = runs_at(view, body + odd, size - odd).view("<u2").reshape(len(body), -1)
        right[at : at + ROWS] = _is_crc(words, view[body] if odd else None)
    return right


def _is_crc(words: NDArray[np.uint16], first: Bytes | None) -> Mask:
    """Return for which rows the last word is the CRC of *first*, if there is one, and the words before."""
    *inner, check = np.ascontiguousarray(words.T)
    crc = np.zeros(len(check), np.uint16) if first is None else _TABLE.take(first.astype(np.uint16) << 8)
    for word in inner:
        crc = _TABLE.take(crc ^ word)
    right: Mask = crc == check
    return right


def _without_overlaps(start: Places, stop: Places) -> Places | slice:
    """Return the indexes of the frames that do not start within an earlier one."""
    if (stop[:-1] <= start[1:]).all():
        return slice(None)
    # In order, because a frame that is dropped must not hide a third one that overlaps only with it.
    following = np.searchsorted(start, stop).tolist()
    taken = []
    at = 0
    while at < len(following):
        taken.append(at)
        at = following[at]
    return np.array(taken, np.intp)


def _outside_of_good_frames(starts: Places, good: Places, stop: Places) -> Places:
    """Return the indexes into *starts* that are outside of the good frames. *good* are the indexes of good frames."""
    rest = np.ones(len(starts), np.bool_)
    rest[good] = False
    places = np.flatnonzero(rest)
    before = np.searchsorted(good, places) - 1
    # The appended 0 is for the case without any good frame. An index of -1 selects it, or the last frame, and does no
    # harm, because the first condition is true for it.
    return places[(before < 0) | (starts[places] >= np.append(stop, 0)[before])]


def _damaged(
    view: Bytes, syncs: Places, starts: Places, stops: Places, lengths: Bytes
) -> tuple[Places, Places, NDArray[np.uint8]]:
    """Return start, end and kind of the damaged frames, for the headers that start no good frame."""
    kind = np.full(len(starts), _CRC, np.uint8)
    if not len(starts):
        return starts, stops, kind
    # Later lines overwrite earlier ones: a frame with a wrong length has no meaningful end, an unfinished one no CRC.
    kind[view[np.minimum(stops, len(view)) - 1] != END] = _END
    kind[stops > len(view)] = _UNFINISHED
    kind[lengths > MAX_DATA] = _LENGTH
    stops = np.where(kind == _LENGTH, starts + _HEADER_SIZE, np.minimum(stops, len(view)))

    # A damaged frame ends where the next frame could start: at complete sync bytes, or at the beginning of sync bytes
    # that reaches to its end. Otherwise it would swallow the next frame.
    end = stops
    for size in range(1, len(SYNC)):
        begun = np.ones(len(starts), np.bool_)
        for index, byte in enumerate(SYNC[:size]):
            begun &= view[stops - size + index] == byte
        end = np.where(begun, stops - size, end)
    following = np.append(syncs, len(view))[np.searchsorted(syncs, starts, "right")]
    end = np.where(following + len(SYNC) <= stops, np.minimum(end, following), end)
    # A header whose frame ends within its own sync bytes is not a frame: these bytes remain noise.
    whole = end - starts >= len(SYNC)
    return starts[whole], end[whole], kind[whole]


def _pieces(begin: Places, end: Places) -> tuple[Places, Places]:
    """Return the starts and ends of the noise in the gaps, in pieces of up to NOISE_PIECE bytes."""
    counts = (end - begin + NOISE_PIECE - 1) // NOISE_PIECE
    if (counts <= 1).all():
        any_noise = counts > 0
        return begin[any_noise], end[any_noise]
    first = np.repeat(np.cumsum(counts) - counts, counts)
    begin = np.repeat(begin, counts) + NOISE_PIECE * (np.arange(len(first)) - first)
    return begin, np.minimum(begin + NOISE_PIECE, np.repeat(end, counts))


def _merged(some: Places, others: Places) -> Places:
    return np.sort(np.concatenate([some, others])) if len(others) else some
