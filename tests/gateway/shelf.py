"""A library in memory and a search by words, for the tests of what stands around the real ones."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from parkway.core.errors import CollectionNotFound, DocumentNotFound, InvalidRequest
from parkway.core.knowledge import (
    CollectionStatus,
    DocumentPage,
    DocumentStatus,
    Found,
    Hit,
    NewCollection,
    NewDocument,
    Scores,
    Search,
    Value,
)
from parkway.core.tasks import Tasks
from parkway.launch.library import Owned
from parkway.launch.owner_server import create_app
from tests.gateway.conftest import PromptServer

TOKEN = "the-token-of-the-owner"


@dataclass
class Kept:
    text: str
    media_type: str
    access: tuple[str, ...]
    metadata: dict[str, Value] = field(default_factory=dict)


@dataclass
class Shelf:
    """Both a `Library` and a `Searching`: a document is one passage."""

    kept: dict[str, dict[str, Kept]] = field(default_factory=dict)
    access: dict[str, list[str]] = field(default_factory=dict)
    asked: list[tuple[str, Search, frozenset[str]]] = field(default_factory=list)
    error: Exception | None = None

    async def collections(self, principals: frozenset[str] | None = None) -> list[CollectionStatus]:
        return [await self.status(name, principals) for name in sorted(self.kept)]

    async def status(self, collection: str, principals: frozenset[str] | None = None) -> CollectionStatus:
        count = sum(_sees(principals, each) for each in self._of(collection).values())
        return CollectionStatus(
            name=collection, documents=count, waiting=0, indexed=count, set_aside=0, passages=count,
            sources=["/srv/secret"], trouble=["/srv/secret: is not there"],
        )  # fmt: skip

    async def add(self, collection: str, new: NewCollection) -> CollectionStatus:
        kept = self.kept.setdefault(collection, {})
        if new.access is not None:
            self.access[collection] = new.access
        for path in map(Path, new.paths):
            if not path.exists():
                raise InvalidRequest(f"there is nothing at {path}", param="paths")
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    kept[str(file)] = Kept(file.read_text(), "text/plain", ("*",))
        return await self.status(collection)

    async def remove(self, collection: str) -> None:
        self._of(collection)
        del self.kept[collection]

    async def documents(
        self, collection: str, after: str, limit: int, principals: frozenset[str] | None
    ) -> DocumentPage:
        kept = self._of(collection)
        seen = [_status(collection, uri, each) for uri, each in kept.items() if _sees(principals, each)]
        data = sorted((each for each in seen if each.document_id > after), key=lambda each: each.document_id)
        return DocumentPage(data=data[:limit], has_more=len(data) > limit)

    async def add_document(self, collection: str, new: NewDocument, content: AsyncIterator[bytes]) -> DocumentStatus:
        kept = self._of(collection)
        data = b"".join([piece async for piece in content])
        access = tuple(new.access or self.access.get(collection, ["*"]))
        kept[new.uri] = Kept(data.decode(), new.media_type, access, new.metadata)
        return _status(collection, new.uri, kept[new.uri])

    async def remove_document(self, collection: str, uri: str) -> None:
        if self._of(collection).pop(uri, None) is None:
            raise DocumentNotFound(f"no document {uri!r}")

    async def search(self, collection: str, search: Search, principals: frozenset[str]) -> Found:
        self.asked.append((collection, search, principals))
        if self.error is not None:
            raise self.error
        words = search.query.lower().split()
        hits = [
            Hit(
                passage_id=uri, document_id=uri, collection=collection, uri=uri, text=kept.text,
                start=0, end=len(kept.text), scores=Scores(keyword=1.0),
            )
            for uri, kept in sorted(self._of(collection).items())
            if _sees(principals, kept) and any(word in kept.text.lower() for word in words)
        ]  # fmt: skip
        return Found(hits=hits[: search.limit], confidence=0.5, took_ms={"total": 1.0})

    def _of(self, collection: str) -> dict[str, Kept]:
        if collection not in self.kept:
            raise CollectionNotFound(f'collection "{collection}" does not exist')
        return self.kept[collection]


def _sees(principals: frozenset[str] | None, kept: Kept) -> bool:
    return principals is None or not {"*", *principals}.isdisjoint(kept.access)


def _status(collection: str, uri: str, kept: Kept) -> DocumentStatus:
    identity = hashlib.sha256(f"{collection}\n{uri}".encode()).hexdigest()[:32]
    size = {"bytes": len(kept.text.encode()), "characters": len(kept.text), "passages": 1}
    state, reason = ("waiting", "/srv/secret is not there") if collection == "legal" else ("indexed", "")
    return DocumentStatus(document_id=identity, uri=uri, state=state, reason=reason, media_type=kept.media_type, **size)


@asynccontextmanager
async def owner(shelf: Shelf, max_document_bytes: int = 1 << 20, *, replica: bool = False) -> AsyncIterator[str]:
    """An owner of what is on the shelf, or a replica; its URL."""
    app = create_app(Owned(None if replica else shelf, shelf), TOKEN, max_document_bytes)
    listener = socket.create_server(("127.0.0.1", 0))
    async with Tasks("owner") as tasks:
        server = PromptServer(uvicorn.Config(app, lifespan="off", log_config=None))
        serving = tasks.start(server._serve(sockets=[listener]), name="uvicorn")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.stop.set()
        await serving
