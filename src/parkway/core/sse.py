"""Server-sent events: writing them, and splitting a byte stream at their boundaries.

Source: WHATWG HTML, "Server-sent events", 9.2.5 and 9.2.6.
"""

from parkway.core.errors import EndpointFailed

DONE = b"data: [DONE]\n\n"
CONTENT_TYPE = "text/event-stream"


def event(data: bytes) -> bytes:
    """One event with one line of data (JSON never contains a raw newline)."""
    return b"data: " + data + b"\n\n"


def data_of(block: bytes) -> bytes | None:
    """The data of one event block, lines joined by newlines; None for comments and other fields."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    lines = [line[5:].removeprefix(b" ") for line in block.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


class EventSplitter:
    """Collects bytes and gives back whole event blocks, without the blank line that ends each.

    Args:
        max_event_bytes: An event that grows over this raises `EndpointFailed`; memory stays bounded.
    """

    def __init__(self, max_event_bytes: int = 1 << 20) -> None:
        self._pending = b""
        self._max_event_bytes = max_event_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """Adds `data`; returns the event blocks that are now complete, in order."""
        pending = self._pending + data if self._pending else data
        if b"\r" in pending:
            # A lone \r at the end may be half of \r\n: leave it for the next round.
            held = b"\r" if pending.endswith(b"\r") else b""
            pending = pending.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *blocks, self._pending = pending.split(b"\n\n")
        if len(self._pending) > self._max_event_bytes:
            raise EndpointFailed(f"the endpoint sent an event of over {self._max_event_bytes} bytes")
        return [stripped for block in blocks if (stripped := block.strip(b"\n"))]

    @property
    def pending(self) -> bytes:
        """What came after the last whole event; not empty at the end of a stream means that it was cut."""
        return self._pending
