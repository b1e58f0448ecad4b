import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.strategies import frames
from tracer_async.protocol import END, MAX_DATA, OVERHEAD, START_UP, SYNC, CommandCode, Frame, crc16
from tracer_async.protocol.frame import _crc_table

# The protocol's checked examples: controller ID, command and data; CRC.
EXAMPLES = [
    ("16a000", 0xB1A7),
    ("16a018ce04a4060000e8035604a00501000050000000" + "0037e80300", 0x9A38),
    ("01a00103", 0xBDBB),
    ("00a018dc04500d000000005904980500000029000000" + "013a760100", 0xD969),
    ("00a018e4041406000000004c04b305000000290000" + "00012b030000", 0x7F91),
    ("00aa0100", 0x5DDB),
]


@pytest.mark.parametrize(("body", "crc"), EXAMPLES)
def test_crc_of_checked_examples(body: str, crc: int) -> None:
    assert crc16(bytes.fromhex(body)) == crc


def test_the_crc_of_the_damaged_example_differs_from_its_crc_field() -> None:
    body, carried = "00a018d204d30400000e005304a5050100001f00000000330a0000", 0x995B
    assert crc16(bytes.fromhex(body)) == 0x3F3E
    assert crc16(bytes.fromhex(body)) != carried


def bitwise_crc(data: bytes) -> int:
    """The definition: long division by x^16 + x^12 + x^6 + 1, a bit at a time."""
    crc = 0
    for byte in data:
        for bit in range(7, -1, -1):
            carry = (crc >> 15 ^ byte >> bit) & 1
            crc = crc << 1 & 0xFFFF ^ carry * 0x1041
    return crc


@pytest.mark.parametrize("size", range(204))
def test_crc_of_each_length(size: int) -> None:
    data = bytes(at * 37 + size & 0xFF for at in range(size))
    assert crc16(data) == bitwise_crc(data)


def test_the_table_has_a_different_crc_for_each_word() -> None:
    table = _crc_table()
    assert len(table) == len(set(table)) == 0x10000
    for word in (0, *(1 << bit for bit in range(16)), *range(0, 0x10000, 257)):
        assert table[word] == bitwise_crc(word.to_bytes(2, "big"))


@given(st.binary(max_size=203))
def test_crc_is_the_remainder_of_the_long_division(data: bytes) -> None:
    assert crc16(data) == bitwise_crc(data)


@given(frames)
def test_layout_of_a_frame(frame: Frame) -> None:
    raw = frame.encode(start_up=False)
    assert frame.encode() == START_UP + raw
    assert raw.startswith(SYNC + bytes([frame.controller_id, frame.command, len(frame.data)]) + frame.data)
    assert len(raw) == OVERHEAD + len(frame.data)
    assert raw[-1] == END


def test_a_frame_carries_up_to_200_bytes() -> None:
    data = bytes(range(200))
    assert len(data) == MAX_DATA
    assert Frame(0xFF, 0xFF, data).encode(start_up=False)[9:-3] == data


def test_request_of_the_document() -> None:
    request = Frame(0x16, CommandCode.READ_REALTIME, b"").encode()
    assert request == bytes.fromhex("aa55aa55aa55 eb90eb90eb90 16 a0 00 b1a7 7f")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (Frame(256, 0xA0, b""), "^controller_id must be .* not 256$"),
        (Frame(-1, 0xA0, b""), "^controller_id must be .* not -1$"),
        (Frame(0, 256, b""), "^command must be .* not 256$"),
        (Frame(0, -1, b""), "^command must be .* not -1$"),
        (Frame(0, 0xA0, bytes(201)), "at most 200 .* not 201$"),
    ],
)
def test_a_frame_that_the_protocol_does_not_have_is_not_encoded(frame: Frame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frame.encode()


def test_data_that_is_not_bytes_is_not_encoded() -> None:
    with pytest.raises(TypeError, match="data must be bytes, not str"):
        Frame(0, 0xA0, "?").encode()  # type: ignore[arg-type]


def test_repr_can_be_evaluated() -> None:
    frame = Frame(0x16, 0xAA, b"\x01")
    assert eval(repr(frame)) == frame
