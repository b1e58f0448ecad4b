"""Hypothesis strategies: frames, damage, noise, and ways to cut a stream."""

from hypothesis import strategies as st

from tracer_async.protocol import MAX_DATA, SYNC, Frame

byte = st.integers(0, 255)
command = st.sampled_from([0xA0, 0xAA, 0xAD]) | byte
frames = st.builds(Frame, byte, command, st.binary(max_size=MAX_DATA) | st.binary(max_size=24))

# Bytes that look like the beginning of something, next to bytes that do not.
pieces = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\xeb", b"\x90", b"\xeb\x90", SYNC, SYNC + b"\x00\xa0\x18", SYNC + b"\x00\xa0\xc9", b"\x7f"]),
    st.builds(lambda frame, keep: frame.encode()[:keep], frames, st.integers(0, 60)),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A frame with one byte changed."""
    raw = bytearray(draw(frames).encode(start_up=draw(st.booleans())))
    raw[draw(st.integers(0, len(raw) - 1))] ^= draw(st.integers(1, 255))
    return bytes(raw)


noise = st.lists(pieces | damaged(), max_size=6).map(b"".join)
whole = frames.map(lambda frame: frame.encode(start_up=False))
streams = st.lists(pieces | damaged() | whole, max_size=10).map(b"".join)


@st.composite
def cut(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """*stream* in chunks: byte by byte, or cut anywhere, empty chunks included."""
    if draw(st.booleans()):
        return [stream[at : at + 1] for at in range(len(stream))]
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
