"""A client of the gateway for the terminal: blocking, and quick to import."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Generator
from contextlib import closing, suppress
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from parkway.core.errors import (
    ConfigurationError,
    EndpointFailed,
    RateLimited,
    RelayedError,
    StreamInterrupted,
)
from parkway.core.models import ModelList
from parkway.core.sse import EventSplitter, data_of

T = TypeVar("T")

_MOST_BYTES = 16 << 20
_LONGEST_WAIT_S = 5
"""For a turn within a limit of requests a second; limits of a day are told."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Error(msgspec.Struct):
    message: str = "no reason given"
    type: str = "server_error"
    code: str | None = None
    param: str | None = None


class _Event(msgspec.Struct):
    """What is needed of a chunk of a streamed answer, or of an error object, in or out of a stream."""

    choices: list[_Choice] = []
    error: _Error | None = None


class Client:
    """Speaks to one gateway with one key.

    Args:
        url: `http://host:port`; a `/v1` at its end is allowed.
        timeout_s: The longest silence of the gateway.
    """

    def __init__(self, url: str, key: str, *, timeout_s: float = 600.0) -> None:
        if not _is_address(url):
            raise ConfigurationError(f"--url {url!r} is not an address; one is http://127.0.0.1:8000")
        if not (key.isascii() and key.isprintable()):
            raise ConfigurationError("the key has characters that no key has; it is read from $PARKWAY_API_KEY")
        self.url = url.rstrip("/").removesuffix("/v1")
        self._parts = urlsplit(self.url)
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._timeout_s = timeout_s
        self.last_request_id: str | None = None
        """Of the latest answer; what feedback refers to."""

    def models(self) -> list[str]:
        """The names of all models.

        Raises:
            EndpointFailed: Nobody answers at the address.
            RelayedError: The gateway refuses.
        """
        with closing(self._connect()) as connection:
            body = self._answer(connection, "GET", "/v1/models").read(_MOST_BYTES)
        try:
            return [model.id for model in msgspec.json.decode(body, type=ModelList).data]
        except msgspec.MsgspecError as error:
            raise EndpointFailed(f"what answers at {self.url} is no OpenAI-compatible server: {error}") from error

    def chat(self, model: str, message: str, conversation: str) -> Generator[str]:
        """Streams the answer to `message`, piece by piece. Closing the generator stops the answer at the gateway.

        Raises:
            EndpointFailed: Nobody answers at the address.
            RelayedError: The gateway refuses, or the model fails in the middle of the answer.
            StreamInterrupted: The connection broke in the middle of the answer.
        """
        body = {
            "model": model,
            "messages": [{"role": "user", "content": message}],
            "conversation": conversation,
            "stream": True,
        }
        with closing(self._connect()) as connection:
            response = self._answer(connection, "POST", "/v1/chat/completions", body)
            self.last_request_id = response.getheader("x-request-id")
            splitter = EventSplitter()
            while True:
                for block in splitter.feed(self._read_some(response)):
                    data = data_of(block)
                    if data == b"[DONE]":
                        # To the very end: the gateway takes a stream that is left earlier for a cancelled one.
                        with suppress(OSError, http.client.HTTPException):
                            response.read(_MOST_BYTES)
                        return
                    if data is not None and (text := self._text(data)):
                        yield text

    def ask(self, method: str, path: str, cls: type[T], body: Any = None, content: IO[bytes] | None = None) -> T:
        """A question with one answer.

        Args:
            path: Quoted where that is needed.
            content: What is sent as it is, in place of `body`.

        Raises:
            EndpointFailed, RelayedError: As for `models`; EndpointFailed also where the answer is no `cls`.
        """
        with closing(self._connect()) as connection:
            answer = self._answer(connection, method, path, body, content).read(_MOST_BYTES)
        try:
            return msgspec.json.decode(answer, type=cls)
        except msgspec.MsgspecError as error:
            raise EndpointFailed(f"what answers at {self.url} is no Parkway, or another version: {error}") from error

    def say(self, request_id: str, thumb: str, comment: str | None) -> None:
        """Gives feedback, `up` or `down`, on an answer.

        Raises:
            EndpointFailed, RelayedError: As for `models`.
        """
        body = {"request_id": request_id, "thumb": thumb} | ({"comment": comment} if comment else {})
        with closing(self._connect()) as connection:
            self._answer(connection, "POST", "/v1/feedback", body).read(_MOST_BYTES)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = str(self._parts.hostname), self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)

    def _answer(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any = None,
        content: IO[bytes] | None = None,
    ) -> http.client.HTTPResponse:
        """Sends a request and returns the response once its headers say that it succeeded.

        One that comes too soon after others is sent again when it is its turn.
        """
        headers = self._headers if content is None else {**self._headers, "content-type": "application/octet-stream"}
        data = content if body is None else msgspec.json.encode(body)
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                connection.request(method, self._parts.path + path, data, headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise EndpointFailed(
                    f"no answer from {self.url}: {error}; is it running? Start it with: parkway up"
                ) from error
            if response.status < 400:
                return response
            refusal = _refusal(response.status, response.read(_MOST_BYTES))
            wait_s = _turn_comes_in_s(response)
            if wait_s is None or time.monotonic() + wait_s > deadline:
                raise refusal
            time.sleep(wait_s)
            if content is not None:
                content.seek(0)

    def _read_some(self, response: http.client.HTTPResponse) -> bytes:
        """What has arrived, at least one byte."""
        try:
            data = response.read1(65_536)
        except (OSError, http.client.HTTPException) as error:
            raise StreamInterrupted(f"the answer broke off: {error or type(error).__name__}") from error
        if not data:
            raise StreamInterrupted("the answer broke off: the connection was closed before its end")
        return data

    def _text(self, data: bytes) -> str | None:
        try:
            event = msgspec.json.decode(data, type=_Event)
        except msgspec.MsgspecError as error:
            raise EndpointFailed(f"{self.url} sent an event that is no part of an answer: {error}") from error
        if event.error is not None:
            raise _relayed(502, event.error)
        return event.choices[0].delta.content if event.choices else None


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or of brackets
        return False


def _turn_comes_in_s(response: http.client.HTTPResponse) -> float | None:
    """When a request would pass that came too soon after others; None where that is not what was refused."""
    after = response.getheader("retry-after") or ""
    if response.status != RateLimited.status or not after.isdigit() or int(after) > _LONGEST_WAIT_S:
        return None
    return float(after)


def _refusal(status: int, body: bytes) -> RelayedError:
    try:
        error = msgspec.json.decode(body, type=_Event).error
    except msgspec.MsgspecError:
        error = None
    return _relayed(status, error or _Error(message=f"HTTP status {status}: {body[:200].decode(errors='replace')}"))


def _relayed(status: int, error: _Error) -> RelayedError:
    return RelayedError(error.message, status=status, type=error.type, code=error.code or "unknown", param=error.param)
