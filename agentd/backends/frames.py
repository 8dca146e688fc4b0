"""The wire between a model's process and its parent: four bytes of length, big-endian, then JSON."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

MOST_BYTES = 64 * 1024 * 1024
"""A longer frame is taken for garbage."""

_LENGTH = struct.Struct(">I")


class BrokenWire(Exception):
    """The other side is gone, or what it sends is no frame."""


def send(wire: socket.socket, frame: dict[str, Any], timeout: float | None = None) -> None:
    """Send one frame; `ValueError` when it is too long (nothing was sent), `BrokenWire` when nobody takes it.

    `timeout` in seconds.
    """
    body = json.dumps(frame, separators=(",", ":")).encode()
    if len(body) > MOST_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes is longer than {MOST_BYTES}")
    try:
        wire.settimeout(timeout)
        wire.sendall(_LENGTH.pack(len(body)) + body)
    except OSError as error:
        raise BrokenWire(f"the other side is gone ({error})") from None


class FrameReader:
    """Takes frames out of a stream of bytes, however it is cut."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._bytes = bytearray()

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next frame; None when none is whole after `timeout` seconds. Raises `BrokenWire`."""
        while (frame := self._cut()) is None:
            try:
                self._wire.settimeout(timeout)
                chunk = self._wire.recv(262_144)
            except TimeoutError:
                return None
            except OSError as error:
                raise BrokenWire(f"the other side is gone ({error})") from None
            if not chunk:
                raise BrokenWire("the other side is gone")
            self._bytes += chunk
        return frame

    def _cut(self) -> dict[str, Any] | None:
        if len(self._bytes) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._bytes)
        if length > MOST_BYTES:
            raise BrokenWire(f"a frame says that it has {length} bytes")
        end = _LENGTH.size + length
        if len(self._bytes) < end:
            return None
        body = bytes(self._bytes[_LENGTH.size : end])
        del self._bytes[:end]
        try:
            frame = json.loads(body)
        except ValueError:
            frame = None
        if not isinstance(frame, dict):
            raise BrokenWire(f"a frame holds no JSON object: {body[:60]!r}")
        return frame
