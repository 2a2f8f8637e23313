"""What a sandbox and its child say to each other, and how: a length, then so many bytes, over a socket."""

from __future__ import annotations

import socket
import struct
import time

import msgspec

from parkway.retrieval.document import Parsed

_LENGTH = struct.Struct("!Q")
_PIECE = 1 << 20


class Task(msgspec.Struct):
    """A document to read; its bytes follow."""

    name: str
    media_type: str


class Answer(msgspec.Struct):
    """What was read of it, or why it cannot be read."""

    parsed: Parsed | None = None
    reason: str = ""


def send(connection: socket.socket, message: bytes) -> None:
    """Sends a message, within the connection's timeout."""
    connection.sendall(_LENGTH.pack(len(message)))
    connection.sendall(message)


def receive(connection: socket.socket, most: int, deadline: float | None = None) -> bytes:
    """The next message.

    Args:
        deadline: By the monotonic clock, for all of it; None waits as long as the connection does.

    Raises:
        TimeoutError: It has not come by then.
        EOFError: The other side is gone.
        ValueError: The message is longer than `most` bytes.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline))
    if length > most:
        raise ValueError(f"a message of {length} bytes; at most {most} are taken")
    return _exactly(connection, length, deadline)


def _exactly(connection: socket.socket, length: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < length:
        if deadline is not None:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
        piece = connection.recv(min(_PIECE, length - len(data)))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
