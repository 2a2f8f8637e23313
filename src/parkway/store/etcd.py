"""etcd 3.4 and newer, through the HTTP gateway that each of its members has.

Keys are text and values are bytes; both travel in base64. Calls go to one member until it fails, then to the next.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from parkway.core.errors import ConfigurationError, StoreUnavailable
from parkway.store.config import EtcdConfig

_MOST_BYTES = 16 << 20  # of one message
_PAGE = 1000  # keys of one answer
_MOST_OPERATIONS = 100  # of one transaction; etcd takes 128

_NOT_FOUND = 5  # codes of gRPC
_UNAUTHENTICATED = 16
_ELSEWHERE = frozenset({1, 4, 8, 13, 14})
"""Codes after which another member is asked: cancelled, too late, overloaded, internal, unavailable."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All keys under a prefix at one moment.

    Attributes:
        revision: That moment; a watch goes on from the one after it.
        cluster: Which cluster answered; another one where the data was lost.
    """

    revision: int
    cluster: str
    values: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Event:
    """A key that has changed; `value` is None where it was deleted."""

    key: str
    value: bytes | None


class _Refused(Exception):
    """etcd understood and said no."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Etcd:
    """A client. Belongs to the event loop in which it is used first.

    Every method raises `StoreUnavailable` when no member answers in time, or when all refuse.
    """

    def __init__(self, config: EtcdConfig) -> None:
        self._config = config
        self._members = [url.rstrip("/") for url in config.etcd]
        self._current = 0
        self._token: str | None = None
        self._session: aiohttp.ClientSession | None = None
        self._ssl = _tls(config) if any(url.startswith("https:") for url in self._members) else None

    @property
    def member(self) -> str:
        """The address of the member that is asked now."""
        return self._members[self._current]

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def list(self, prefix: str) -> Listing:
        """Everything under `prefix`, as of one revision."""
        values: dict[str, bytes] = {}
        revision, cluster, start = 0, "", prefix.encode()
        while True:
            body: dict[str, Any] = {"key": _b64(start), "range_end": _b64(_end(prefix)), "limit": _PAGE}
            if revision:
                body["revision"] = revision
            answer = await self._call("/v3/kv/range", body)
            revision = revision or int(answer["header"]["revision"])
            cluster = str(answer["header"].get("cluster_id", ""))
            found = answer.get("kvs", [])
            for each in found:
                values[_text(each["key"])] = base64.b64decode(each.get("value", ""))
            if not answer.get("more") or not found:
                return Listing(revision, cluster, values)
            start = base64.b64decode(found[-1]["key"]) + b"\0"

    async def revision(self, prefix: str) -> tuple[str, int]:
        """The cluster and its revision now. A majority of the members has agreed on it."""
        body = {"key": _b64(prefix.encode()), "range_end": _b64(_end(prefix)), "count_only": True}
        header = (await self._call("/v3/kv/range", body))["header"]
        return str(header.get("cluster_id", "")), int(header["revision"])

    async def grant(self, seconds: float) -> str:
        """A new lease: what is written under it goes away unless it is kept alive."""
        return str((await self._call("/v3/lease/grant", {"TTL": max(1, round(seconds))}))["ID"])

    async def keep_alive(self, lease: str) -> bool:
        """Begins the lease's time anew; False where there is no such lease any more."""
        answer = await self._call("/v3/lease/keepalive", {"ID": lease})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    async def revoke(self, lease: str) -> None:
        """Ends a lease and deletes what was written under it."""
        try:
            await self._call("/v3/lease/revoke", {"ID": lease}, lease=True)
        except _Refused:
            return  # it has ended by itself

    async def write(self, puts: Mapping[str, bytes], deletes: Iterable[str] = (), lease: str | None = None) -> bool:
        """Puts and deletes, up to a hundred in one step; False where `lease` has ended.

        Keys that are put belong to `lease` from then on.
        """
        owned = {} if lease is None else {"lease": lease}
        operations: list[dict[str, Any]] = [
            *({"request_delete_range": {"key": _b64(key.encode())}} for key in deletes),
            *(
                {"request_put": {"key": _b64(key.encode()), "value": _b64(value), **owned}}
                for key, value in puts.items()
            ),
        ]
        try:
            for start in range(0, len(operations), _MOST_OPERATIONS):
                body = {"success": operations[start : start + _MOST_OPERATIONS]}
                await self._call("/v3/kv/txn", body, lease=lease is not None)
        except _Refused:
            return False
        return True

    async def watch(self, prefix: str, revision: int, *, quiet_s: float) -> AsyncGenerator[list[Event], None]:
        """What changes under `prefix` from `revision` on, as it changes; an empty list after each `quiet_s` of silence.

        Ends when the member closes the stream, or when a part of what happened is compacted away: list again then.
        """
        request = {"key": _b64(prefix.encode()), "range_end": _b64(_end(prefix)), "start_revision": revision}
        try:
            async with asyncio.timeout(self._config.timeout_s):
                response = await self._http().post(
                    f"{self.member}/v3/watch",
                    data=msgspec.json.encode({"create_request": request}),
                    headers=self._headers(),
                    timeout=aiohttp.ClientTimeout(total=None),
                    allow_redirects=False,
                )
            async with response:
                if response.status != 200:
                    return
                buffer = b""
                while True:
                    try:
                        async with asyncio.timeout(quiet_s):
                            data = await response.content.readany()
                    except TimeoutError:
                        yield []
                        continue
                    if not data:
                        return
                    *lines, buffer = (buffer + data).split(b"\n")
                    if len(buffer) > _MOST_BYTES:
                        return
                    for line in lines:
                        events = _events(line)
                        if events is None:
                            return
                        if events:
                            yield events
        except (aiohttp.ClientError, OSError):
            return

    async def _call(self, path: str, body: object, *, lease: bool = False) -> dict[str, Any]:
        """Asks the members in turn, from the one that answered last.

        Raises:
            _Refused: There is no such lease, where `lease` says that it may be so.
        """
        faults: list[str] = []
        for _ in self._members:
            try:
                return await self._ask(path, body)
            except _Refused as error:
                if lease and error.code == _NOT_FOUND:
                    raise
                faults.append(f"{self.member}: {error}")
                if error.code not in _ELSEWHERE:
                    break
            except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
                faults.append(f"{self.member}: {str(error) or type(error).__name__}")
            self._current = (self._current + 1) % len(self._members)
        raise StoreUnavailable(f"etcd does not answer: {'; '.join(faults)}", retry_after_s=1.0)

    async def _ask(self, path: str, body: object) -> dict[str, Any]:
        if self._config.user is not None and self._token is None:
            await self._log_in()
        try:
            return await self._post(path, body)
        except _Refused as error:
            if self._token is None or not (error.code == _UNAUTHENTICATED or "auth token" in str(error)):
                raise
        await self._log_in()  # tokens expire
        return await self._post(path, body)

    async def _log_in(self) -> None:
        self._token = None
        password = os.environ.get(self._config.password_env or "", "")
        answer = await self._post("/v3/auth/authenticate", {"name": self._config.user, "password": password})
        self._token = str(answer["token"])

    async def _post(self, path: str, body: object) -> dict[str, Any]:
        async with asyncio.timeout(self._config.timeout_s):
            async with self._http().post(
                self.member + path, data=msgspec.json.encode(body), headers=self._headers(), allow_redirects=False
            ) as response:
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > _MOST_BYTES:
                        raise aiohttp.ClientPayloadError(f"an answer of over {_MOST_BYTES} bytes")
                if response.status in (502, 503, 504) and not content.startswith(b"{"):
                    raise aiohttp.ClientPayloadError(f"status {response.status}")
                # The stream of keep-alives has one answer a line, and we ask one question.
                answer = msgspec.json.decode(bytes(content).split(b"\n", 1)[0])
        if not isinstance(answer, dict):
            raise aiohttp.ClientPayloadError("the answer is no object")
        if response.status != 200 or "error" in answer:
            fault = answer.get("error", "")
            told = fault if isinstance(fault, dict) else answer
            code = told.get("code", told.get("grpc_code", 2))
            raise _Refused(int(code), str(told.get("message", fault))[:200])
        if not isinstance(answer.get("result", answer).get("header"), dict):
            raise aiohttp.ClientPayloadError("the answer is not etcd's")
        return answer

    def _headers(self) -> dict[str, str]:
        return {"content-type": "application/json", **({"authorization": self._token} if self._token else {})}

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._ssl if self._ssl is not None else True, limit=16)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session


def _tls(config: EtcdConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file is not None:
            context.load_cert_chain(config.cert_file, config.key_file)
    except OSError as error:
        raise ConfigurationError(
            f"registry.ca_file, cert_file or key_file cannot be used: {error}; give paths of PEM files"
        ) from error
    return context


def _events(line: bytes) -> list[Event] | None:
    """What one message of a watch tells; None where the watch has ended."""
    if not line.strip():
        return []
    try:
        message = msgspec.json.decode(line)
        result = message.get("result")
        if result is None or result.get("canceled") or int(result.get("compact_revision", 0)):
            return None
        return [
            Event(
                _text(event["kv"]["key"]),
                None if event.get("type") == "DELETE" else base64.b64decode(event["kv"].get("value", "")),
            )
            for event in result.get("events", [])
        ]
    except (msgspec.DecodeError, AttributeError, KeyError, ValueError):
        return None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _text(data: str) -> str:
    return base64.b64decode(data).decode(errors="replace")


def _end(prefix: str) -> bytes:
    """The first key after all those that begin with `prefix`."""
    data = prefix.encode()
    return data[:-1] + bytes([data[-1] + 1])
