"""Asking a server of ours over HTTP how it is."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import msgspec

_MOST_BYTES = 65_536
_METRIC = re.compile(rb"^parkway_engine_(running|waiting|steps_total)\{[^\n]*\} ([0-9.e+]+)$", re.MULTILINE)


class Readiness(msgspec.Struct, frozen=True):
    """The answer of `/readyz`; no `reasons` means ready."""

    status: str
    reasons: list[str] = []


@dataclass(frozen=True, slots=True)
class Activity:
    """What an engine is doing: answers that run or wait now, and passes of its model since it was started."""

    requests: int
    steps: int


async def readiness(host: str, port: int, timeout_s: float = 1.0) -> Readiness | None:
    """What `/readyz` answers; None if nobody answers within `timeout_s`, which is normal while a gateway starts."""
    answer = await _get(host, port, "/readyz", timeout_s)
    _, _, body = answer.partition(b"\r\n\r\n")
    try:
        return msgspec.json.decode(body, type=Readiness)
    except msgspec.MsgspecError:
        return None


async def answers(host: str, port: int, timeout_s: float) -> bool:
    """Whether `/healthz` gives any answer at all within `timeout_s`."""
    return (await _get(host, port, "/healthz", timeout_s)).startswith(b"HTTP/")


async def activity(host: str, port: int, token: str, timeout_s: float = 1.0) -> Activity | None:
    """What an engine's `/metrics` tells of its work; None if nobody answers within `timeout_s`.

    Args:
        token: What the engine asks of its clients.
    """
    answer = await _get(host, port, "/metrics", timeout_s, f"authorization: Bearer {token}\r\n")
    values = {match[1].decode(): float(match[2]) for match in _METRIC.finditer(answer)}
    if "steps_total" not in values:
        return None
    requests = int(values.get("running", 0) + values.get("waiting", 0))
    return Activity(requests=requests, steps=int(values["steps_total"]))


async def _get(host: str, port: int, path: str, timeout_s: float, headers: str = "") -> bytes:
    """The whole answer as it came; empty if there is none in time."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=_MOST_BYTES)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n".encode())
                return await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""
