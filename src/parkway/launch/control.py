"""How processes on this home speak to their supervisor: a Unix socket in it, one line of JSON each way.

Only the owner of the home can open it. A question is answered once; who hangs up first takes it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from parkway.core.errors import KnowledgeUnavailable, NoEndpoint, ParkwayError, StartupError
from parkway.core.knowledge import NewCollection, Value
from parkway.core.tasks import Tasks
from parkway.store.home import Home

_MOST_BYTES = 1 << 20
_QUESTION_S = 5.0
_MOST_CLIENTS = 256
_LONGEST_PATH = 100  # bytes; the kernel takes 107, and macOS 103
_NOT_THERE_S = 1.0


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """A model of this machine, or an owner of documents, as `parkway ps` shows it.

    Attributes:
        memory_bytes: What its processes use; None where they do not run.
        needs_bytes: What it may use at most; None where its files cannot be read.
        since_s: For how long it has been in this state.
        requests: Answers that run or wait; None of an owner of documents.
        unloads_in_s: When it will be unloaded if nobody uses it until then; None where that is not planned.
        reason: Why it was given up.
    """

    name: str
    state: Literal["asleep", "waiting", "loading", "ready", "unloading", "down", "given up"]
    load: Literal["start", "on_demand"]
    memory_bytes: int | None = None
    needs_bytes: int | None = None
    since_s: float = 0.0
    requests: int | None = 0
    unloads_in_s: float | None = None
    reason: str | None = None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All models and owners of documents of this machine, and what they may use together."""

    limit_bytes: int
    used_bytes: int
    models: list[ModelState]


class Question(msgspec.Struct, frozen=True):
    """`wake` loads `model` and is answered when it is ready, `list` asks for all models, `reload` for new gateways,
    `knowledge` for the owners of the documents, and for `new` to become part of `collection` where there is one."""

    ask: Literal["wake", "list", "reload", "knowledge"]
    model: str = ""
    collection: str = ""
    new: NewCollection = NewCollection()


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of it; `error` says why nothing did."""

    error: str | None = None
    retry_after_s: float | None = None
    overview: Overview | None = None


class Owning(Protocol):
    """The owners of the documents; both raise ParkwayError."""

    async def ready(self) -> None: ...

    async def add(self, collection: str, new: NewCollection) -> None: ...


class Control:
    """The supervisor's end.

    Args:
        wake: Returns once a model is ready.
        overview: What there is now.
        reload: Returns once new gateways serve.
        owners: The owners of the documents.
    """

    def __init__(
        self,
        home: Home,
        wake: Callable[[str], Awaitable[None]],
        overview: Callable[[], Awaitable[Overview]],
        reload: Callable[[], Coroutine[Any, Any, None]] | None = None,
        owners: Owning | None = None,
    ) -> None:
        self._path = _path_of(home)
        self._wake = wake
        self._overview = overview
        self._reload = reload
        self._owners = owners
        self._clients = 0
        self._tasks = Tasks("control")
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens.

        Raises:
            OSError: The socket cannot be made.
        """
        self._path.unlink(missing_ok=True)  # whoever left it is gone: we hold the home's lock
        with _short(self._path) as short:
            self._server = await asyncio.start_unix_server(self._serve, short, limit=_MOST_BYTES)
        self._path.chmod(0o600)  # the home, which is the owner's alone, has kept others out until here

    async def close(self) -> None:
        """Hangs up on everybody."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        await self._tasks.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= _MOST_CLIENTS:
                await self._converse(reader, writer)
        except (OSError, ValueError, TimeoutError, msgspec.MsgspecError):
            pass  # who sends what is no question, or leaves, gets no answer
        finally:
            self._clients -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_QUESTION_S):
            question = msgspec.json.decode(await reader.readline(), type=Question)
        answer = self._tasks.start(self._answer(question), name=f"{question.ask} {question.model}")
        left = self._tasks.start(reader.read(1), name="until it leaves")
        try:
            await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done() and not answer.cancelled():
                writer.write(msgspec.json.encode(answer.result()) + b"\n")
                await writer.drain()
        finally:
            answer.cancel()
            left.cancel()

    async def _answer(self, question: Question) -> Answer:
        if question.ask == "list":
            return Answer(overview=await self._overview())
        try:
            if question.ask == "wake":
                await self._wake(question.model)
            elif question.ask == "knowledge":
                await self._own(question.collection, question.new)
            elif self._reload is not None:
                # Whoever asked may leave; what has begun goes on.
                await asyncio.shield(self._tasks.start(self._reload(), name="replace the gateways"))
        except ParkwayError as error:
            return Answer(error=error.message, retry_after_s=error.retry_after_s)
        return Answer()

    async def _own(self, collection: str, new: NewCollection) -> None:
        if self._owners is not None and collection:
            await self._owners.add(collection, new)
        elif self._owners is not None:
            await self._owners.ready()


async def wake(home: Home, model: str) -> None:
    """Asks the supervisor on `home` to load `model`, and waits until it has. Cancelling takes the wish back.

    Raises:
        NoEndpoint: It cannot be loaded, or no supervisor is there.
    """
    answer = await _ask(home, Question("wake", model))
    if answer is None:
        raise NoEndpoint(
            f"model {model!r} is not loaded and nobody is there who could load it; start Parkway again: parkway up",
            retry_after_s=_NOT_THERE_S,
        )
    if answer.error is not None:
        raise NoEndpoint(answer.error, retry_after_s=answer.retry_after_s)


async def own(home: Home) -> None:
    """Asks the supervisor on `home` for the owners of the documents, and waits until they serve.

    Raises:
        KnowledgeUnavailable: They cannot be started, or no supervisor is there.
    """
    answer = await _ask(home, Question("knowledge"))
    if answer is None:
        raise KnowledgeUnavailable("nobody is there who could start the owner of the documents; start it: parkway up")
    if answer.error is not None:
        raise KnowledgeUnavailable(answer.error)


def add_paths(home: Home, collection: str, paths: Sequence[Path], metadata: Mapping[str, Value]) -> None:
    """Has folders and files become part of a collection of the Parkway on `home`. For commands.

    Not over HTTP: who may administer a Parkway from elsewhere may not read this machine's files for that.

    Raises:
        StartupError: No Parkway runs there, or it cannot; the message says why.
    """
    new = NewCollection([str(path) for path in paths], metadata=dict(metadata))
    question = Question("knowledge", collection=collection, new=new)
    if len(msgspec.json.encode(question)) >= _MOST_BYTES:
        raise StartupError(f"{len(paths)} paths are too many for one call; add the folder that they are in")
    answer = asyncio.run(_ask(home, question))
    if answer is None:
        raise StartupError(f"no Parkway runs on this home ({home.path}); start it with: parkway up")
    if answer.error is not None:
        raise StartupError(answer.error)


def overview(home: Home, timeout_s: float = 5.0) -> Overview | None:
    """What the supervisor on `home` says of its models; None if there is none. For commands, not for event loops."""

    async def ask() -> Overview | None:
        async with asyncio.timeout(timeout_s):
            answer = await _ask(home, Question("list"))
            return None if answer is None else answer.overview

    try:
        return asyncio.run(ask())
    except TimeoutError:
        return None


def reload(home: Home) -> None:
    """Has the supervisor on `home` replace its gateways; returns when new ones serve. For commands.

    Raises:
        StartupError: The new ones cannot start, or no supervisor is there.
    """
    answer = asyncio.run(_ask(home, Question("reload")))
    if answer is None:
        raise StartupError(f"no Parkway runs on this home ({home.path}); start it with: parkway up")
    if answer.error is not None:
        raise StartupError(answer.error)


async def _ask(home: Home, question: Question) -> Answer | None:
    """The answer; None where nobody gives one."""
    try:
        with _short(_path_of(home)) as short:
            reader, writer = await asyncio.open_unix_connection(short, limit=_MOST_BYTES)
        try:
            writer.write(msgspec.json.encode(question) + b"\n")
            return msgspec.json.decode(await reader.readline(), type=Answer)
        finally:
            writer.close()
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def _path_of(home: Home) -> Path:
    return home.path / "control.sock"


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A path of the socket that is short enough for the kernel, whatever the home is called."""
    if len(os.fsencode(path)) <= _LONGEST_PATH or not Path("/proc/self/fd").is_dir():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
