"""Asking the gateway whether it is ready."""

from __future__ import annotations

import asyncio

import msgspec

_MOST_BYTES = 65_536


class Readiness(msgspec.Struct, frozen=True):
    """The answer of `/readyz`; no `reasons` means ready."""

    status: str
    reasons: list[str] = []


async def readiness(host: str, port: int, timeout_s: float = 1.0) -> Readiness | None:
    """What `/readyz` answers; None if nobody answers within `timeout_s`, which is normal while a gateway starts."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=_MOST_BYTES)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                answer = await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    _, _, body = answer.partition(b"\r\n\r\n")
    try:
        return msgspec.json.decode(body, type=Readiness)
    except msgspec.MsgspecError:
        return None
