from __future__ import annotations

import socket
import threading

import pytest

from agentd.backends.frames import MOST_BYTES, BrokenWire, FrameReader, send


def test_frames_come_whole_however_the_bytes_are_cut() -> None:
    left, right = socket.socketpair()
    with left, right:
        reader = FrameReader(right)
        send(left, {"text": "ä \n", "n": 1})
        send(left, {"n": 2})
        assert reader.receive(1.0) == {"text": "ä \n", "n": 1}
        assert reader.receive(1.0) == {"n": 2}
        for byte in b"\0\0\0\x0b" + b'{"cut": "1"}'[:5]:
            left.send(bytes([byte]))
        assert reader.receive(0.01) is None
        left.send(b'": 10}')
        assert reader.receive(1.0) == {"cut": 10}


def test_a_lone_surrogate_and_a_megabyte_pass() -> None:
    left, right = socket.socketpair()
    with left, right:
        frame = {"text": "\ud800", "big": "x" * 1_000_000}
        sender = threading.Thread(target=send, args=(left, frame))
        sender.start()
        assert FrameReader(right).receive(5.0) == frame
        sender.join()


@pytest.mark.parametrize(
    "garbage", [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x03abc", b"\0\0\0\x01\xff", b"\0\0\0\x09{"]
)
def test_garbage_breaks_the_wire(garbage: bytes) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(garbage)
        left.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenWire):
            FrameReader(right).receive(1.0)


def test_a_frame_that_is_too_long_is_not_sent() -> None:
    left, right = socket.socketpair()
    with left, right:
        with pytest.raises(ValueError, match="longer than"):
            send(left, {"text": "x" * MOST_BYTES})
        assert FrameReader(right).receive(0.01) is None


def test_nobody_at_the_other_end() -> None:
    left, right = socket.socketpair()
    right.close()
    with left, pytest.raises(BrokenWire):
        send(left, {})
    with pytest.raises(BrokenWire):
        send(left, {})
    with pytest.raises(BrokenWire):
        FrameReader(left).receive(1.0)
