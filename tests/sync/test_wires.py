"""Bytes that a wire could not send belong to a command that may have failed. They must not be sent later."""

from __future__ import annotations

import socket

from tracer_async.sync._wires import SocketWire


def test_a_unix_socket_with_unsent_bytes_has_to_be_closed() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = SocketWire(ours)
        assert not wire.discard_output()
        while not wire.unsent:
            wire.write(bytes(4096))
        assert wire.discard_output()
        assert wire.close(discard=True) is None  # there is no port to connect from again
