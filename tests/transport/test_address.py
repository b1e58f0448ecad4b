import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_async import AddressError
from tracer_async.protocol._numbers import RANGES
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
        ("tcp://[FE80::1%enP3p49s0]:8088", TcpAddress("fe80::1%enP3p49s0", 8088)),
        ("bridge.local:8088", TcpAddress("bridge.local", 8088)),
        ("tls://bridge.example:8899", TcpAddress("bridge.example", 8899, tls=True)),
        ("unix:/run/tracer.sock", UnixAddress("/run/tracer.sock")),
        ("unix:///run/tracer.sock", UnixAddress("/run/tracer.sock")),
        ("sim:", SimAddress()),
        ("sim://", SimAddress()),
        ("sim:?seed=7&time_scale=60&start_hour=4.5", SimAddress(7, 60.0, 4.5)),
        ("sim:?replay=day%201/line.0&speed=0.5", SimAddress(replay="day 1/line.0", speed=0.5)),
        ("  tcp://host:1 ", TcpAddress("host", 1)),
    ],
)
def test_a_url_is_parsed_into_its_address(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is empty"),
        ("localhost", "localhost:8088"),
        ("127.0.0.1", "127.0.0.1:8088"),
        ("controller", "controller:8088"),
        ("ttyUSB0", "/dev/ttyUSB0"),
        ("cu.usbserial-A1", "/dev/cu.usbserial-A1"),
        ("dev/ttyUSB0", "begins with /"),
        ("http://host:80", "'http'; the schemes are serial, tcp, tls, unix and sim"),
        ("host:http", "port must be a whole number from 1 to 65535, not 'http'"),
        ("tcp:host:23", "write tcp://HOST:PORT"),
        ("tcp://host", "the port is missing; write tcp://HOST:PORT"),
        ("tcp://host:", "the port is missing; write tcp://HOST:PORT"),
        ("tls://host", "the port is missing; write tls://HOST:PORT"),
        ("tcp://host:0", "from 1 to 65535, not '0'"),
        ("tcp://host:99999", "from 1 to 65535, not '99999'"),
        ("127.0.0.1:99999", "from 1 to 65535, not '99999'"),
        ("tcp://host:port", "from 1 to 65535, not 'port'"),
        ("tcp://host:\u0663", "from 1 to 65535"),
        ("tcp://:23", "the host is missing"),
        ("tcp://", "the host is missing"),
        ("tcp://host:23/path", "more than a host and a port"),
        ("tcp://user@host:23", "more than a host and a port"),
        ("tcp://my host:23", "a space"),
        ("tcp://host:23?x=1", "option 'x'; this kind of address has no options"),
        ("tcp://host:23#top", "#top"),
        ("tcp://[::1:23", "in brackets"),
        ("[::1:8088", "in brackets"),
        ("::1", "in brackets"),
        ("tcp://[controller]:23", "'controller'"),
        ("tcp://ho\nst:23", "control character '\\n'"),
        ("/dev/tty\nUSB0", "control character '\\n'"),
        ("serial:///dev/tty%0AUSB0", "control character"),
        ("unix:", "the path is missing; write unix:/run/tracer.sock"),
        ("unix:/x?y=1", "option 'y'"),
        ("serial:", "the path is missing; write serial:///dev/ttyUSB0"),
        ("serial:///dev/x?baud=9600", "option 'baud'; the options are baudrate"),
        ("serial:///dev/x?baudrate=fast", "baudrate must be a whole number"),
        ("serial:///dev/x?baudrate=0", "baudrate must be 1 to 10000000 baud, not 0"),
        ("serial:///dev/x?parity=X", "parity must be N, E or O"),
        ("serial:///dev/x?backend=twisted", "backend must be"),
        ("sim:80", "no host or path"),
        ("sim:?time_scale=nan", "time_scale must be"),
        ("sim:?seed=-1", "seed must be 0 to"),
        ("sim:?seed=1_0", "seed must be a whole number"),
        ("sim:?speed=-1", "speed must be"),
        ("sim:?seed=1&seed=2", "seed is given twice"),
        ("sim:?start_hour=24", "start_hour must be at least 0 and below 24 h"),
        ("sim:?seed", "NAME=VALUE"),
    ],
)
def test_a_wrong_url_is_refused_with_the_reason(url: str, words: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(url)
    assert isinstance(caught.value, ValueError)
    assert words in str(caught.value)


@pytest.mark.parametrize("url", ["ttyUSB0", "localhost", "127.0.0.1", "controller"])
def test_the_url_that_an_error_proposes_is_valid(url: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(url)
    proposals = re.findall(r"\S*(?:/dev/|:8088)\S*", str(caught.value))
    assert proposals
    for proposal in proposals:
        parse_address(proposal)


@pytest.mark.parametrize("url", ["", "localhost", "ttyUSB0", "http://host:80", "tcp://host:99999", "sim:?seed=x"])
def test_an_error_is_one_short_sentence(url: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(url)
    assert len(str(caught.value)) < 170 + len(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["seed", "time_scale", "start_hour"])
def test_the_ranges_of_a_simulated_controller_are_those_of_the_simulator(name: str) -> None:
    low, high = RANGES[name].low, RANGES[name].high
    for number in (low, high, high - 1, high + 1, -1):
        text = f"sim:?{name}={number}"
        if number in RANGES[name]:
            assert getattr(parse_address(text), name) == number
        else:
            with pytest.raises(AddressError, match=re.escape(str(RANGES[name]))):
                parse_address(text)


def test_a_url_that_is_not_a_str_raises_type_error() -> None:
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
        st.floats(0, 1e6),
        st.floats(0, 24, exclude_max=True),
    ),
)


@given(addresses)
def test_parsing_the_text_of_an_address_returns_the_same_address(address: Address) -> None:
    assert parse_address(str(address)) == address
