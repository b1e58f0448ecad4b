import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_async import AddressError
from tracer_async.transport.address import (
    Address,
    SerialAddress,
    SimAddress,
    TcpAddress,
    UnixAddress,
    parse_address,
)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("/dev/ttyUSB0", SerialAddress("/dev/ttyUSB0")),
        ("/dev/serial/by-id/usb-FTDI_A#1?x-if00", SerialAddress("/dev/serial/by-id/usb-FTDI_A#1?x-if00")),
        ("COM3", SerialAddress("COM3")),
        ("com12", SerialAddress("com12")),
        (r"\\.\COM12", SerialAddress(r"\\.\COM12")),
        ("serial:///dev/ttyUSB0", SerialAddress("/dev/ttyUSB0")),
        ("serial:/dev/ttyUSB0", SerialAddress("/dev/ttyUSB0")),
        ("serial://COM3", SerialAddress("COM3")),
        (
            "serial:///dev/ttyS0?baudrate=19200&bytesize=7&parity=E&stopbits=2&backend=serialx",
            SerialAddress("/dev/ttyS0", 19200, 7, "E", 2, "serialx"),
        ),
        ("tcp://192.168.1.20:8088", TcpAddress("192.168.1.20", 8088)),
        ("TCP://Bridge:8088/", TcpAddress("bridge", 8088)),
        ("tcp://[fe80::1]:23", TcpAddress("fe80::1", 23)),
        ("[::1]:23", TcpAddress("::1", 23)),
        ("bridge.local:8088", TcpAddress("bridge.local", 8088)),
        ("tls://bridge.example:8899", TcpAddress("bridge.example", 8899, tls=True)),
        ("unix:/run/tracer.sock", UnixAddress("/run/tracer.sock")),
        ("unix:///run/tracer.sock", UnixAddress("/run/tracer.sock")),
        ("sim:", SimAddress()),
        ("sim://", SimAddress()),
        ("sim:?seed=7&time_scale=60&start_hour=4.5", SimAddress(7, 60.0, 4.5)),
        ("  tcp://host:1 ", TcpAddress("host", 1)),
    ],
)
def test_what_a_url_names(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "no scheme"),
        ("localhost", "no scheme"),
        ("ttyUSB0", "no scheme"),
        ("http://host:80", "'http'"),
        ("tcp://host", "no port"),
        ("tcp://host:0", "no port"),
        ("tcp://host:99999", "range"),
        ("tcp://:23", "no host"),
        ("tcp://host:23/path", "more in it"),
        ("tcp://user@host:23", "more in it"),
        ("tcp://host:23?x=1", "option 'x'"),
        ("tcp://host:23#top", "#top"),
        ("tcp://[::1:23", "Invalid IPv6"),
        ("unix:", "no socket"),
        ("unix:/x?y=1", "option 'y'"),
        ("serial:", "no serial port"),
        ("serial:///dev/x?baud=9600", "option 'baud', the options are baudrate"),
        ("serial:///dev/x?baudrate=fast", "baudrate must be a whole number"),
        ("serial:///dev/x?baudrate=0", "baudrate must be"),
        ("serial:///dev/x?parity=X", "parity must be N, E or O"),
        ("serial:///dev/x?backend=twisted", "backend must be"),
        ("sim:80", "no host or path"),
        ("sim:?time_scale=nan", "time_scale must be"),
        ("sim:?seed=-1", "seed must be"),
        ("sim:?start_hour=24", "start_hour must be"),
        ("sim:?seed", "bad query"),
    ],
)
def test_a_url_that_names_nothing_is_refused_with_the_reason_and_right_ones(url: str, words: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(url)
    assert isinstance(caught.value, ValueError)
    assert words in str(caught.value)
    assert "tcp://192.168.1.20:8088" in str(caught.value)
    assert "/dev/ttyUSB0" in str(caught.value)


def test_a_url_is_text() -> None:
    with pytest.raises(TypeError):
        parse_address(b"/dev/ttyUSB0")  # type: ignore[arg-type]


letters = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"])
paths = st.text(letters | st.sampled_from("/?#%&=:;+@[]"), min_size=1).map("/".__add__)
addresses = st.one_of(
    st.builds(
        SerialAddress,
        paths,
        st.integers(1, 10_000_000),
        st.sampled_from([5, 6, 7, 8]),
        st.sampled_from(["N", "E", "O"]),
        st.sampled_from([1, 2]),
        st.sampled_from(["auto", "pyserial", "serialx"]),
    ),
    st.builds(TcpAddress, st.sampled_from(["host", "10.0.0.1", "::1"]), st.integers(1, 65535), st.booleans()),
    st.builds(UnixAddress, paths),
    st.builds(
        SimAddress,
        st.integers(0, 2**63),
        st.floats(0.001, 1e6, exclude_max=True),
        st.floats(0, 24, exclude_max=True),
    ),
)


@given(addresses)
def test_an_address_is_written_as_it_is_read(address: Address) -> None:
    assert parse_address(str(address)) == address
