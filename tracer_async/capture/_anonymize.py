"""Removes from a recording what tells where it was made."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tracer_async.capture._json_lines import Burst, LinkChange, Record, RecordingHeader
from tracer_async.capture._recording import CONTROLLER, Recording
from tracer_async.protocol import Frame, FrameDecoder

__all__ = ["anonymized"]

# A bridge may send its name or address as text. Four letters in a row are rare in other noise.
_TEXT = re.compile(rb"[\x20-\x7e]{4,}")

_SENDERS = ("client", CONTROLLER, "display", "meter")


def anonymized(recording: Recording) -> Recording:
    """Return the recording without host names and addresses.

    The address of the controller, the causes of lost connections and unknown names of senders are removed. In what was
    received outside of good frames, each text of four or more characters is replaced by as many ``x``. Times, frames
    and all other bytes stay: they are what a test needs.
    """
    records = [_without_names(record) for record in recording.records]
    for sender in {burst.sender for burst in recording.bursts}:
        for places in _parts(records, sender):
            _mask(records, places)
    header = next((record for record in records if isinstance(record, RecordingHeader)), None)
    return Recording(header, tuple(records))


def _without_names(record: Record) -> Record:
    if isinstance(record, RecordingHeader):
        return record._replace(recorded="removed", kind=record.kind if record.kind == "listener" else "client")
    if isinstance(record, LinkChange):
        return record._replace(cause="")
    if isinstance(record, Burst) and record.sender not in _SENDERS:
        return record._replace(sender="client")
    return record


def _parts(records: list[Record], sender: str) -> Iterator[list[int]]:
    """Yield the indexes of the bursts of *sender* on each connection."""
    name = sender if sender in _SENDERS else "client"
    places: list[int] = []
    for index, record in enumerate(records):
        if isinstance(record, Burst):
            if record.sender == name:
                places.append(index)
        elif places:
            yield places
            places = []
    yield places


def _mask(records: list[Record], places: list[int]) -> None:
    """Replace the text in the bursts at *places*, which follow each other."""
    bursts = [record for index in places if isinstance(record := records[index], Burst)]
    decoder = FrameDecoder()
    events = decoder.feed(b"".join(burst.data for burst in bursts)) + decoder.flush()
    # Every byte is in exactly one event, so the events in a row are the bytes again.
    masked = b"".join(
        event.encode(start_up=False)
        if isinstance(event, Frame)
        else _TEXT.sub(lambda text: b"x" * len(text[0]), event.raw)
        for event in events
    )
    at = 0
    for index, burst in zip(places, bursts, strict=True):
        records[index] = burst._replace(data=masked[at : at + len(burst.data)])
        at += len(burst.data)
