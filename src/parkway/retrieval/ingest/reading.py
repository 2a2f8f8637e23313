"""From a claimed document to passages: read, compared, parsed in the sandbox, cut."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec

from parkway.core.errors import Unreadable
from parkway.retrieval.catalogue import Document
from parkway.retrieval.chunking.chunker import Chunker
from parkway.retrieval.config import CollectionConfig
from parkway.retrieval.document import Parsed, Passage, Value, content_hash, passage_id, searched_text
from parkway.retrieval.ingest.scan import Checkpoint
from parkway.retrieval.ingest.source import Content, Missing, Source, SourceUnavailable
from parkway.retrieval.parsing.file import Unsettled
from parkway.retrieval.parsing.parser import page_ranges
from parkway.retrieval.parsing.sandbox import Sandbox

_MAX_FACTS = 64
_MAX_FACT = 1000  # characters of what a document says of itself
_MAX_TITLE = 500


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The index has it as it is."""

    document: Document
    content: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be read, for this reason, until it changes."""

    document: Document
    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """It shall not be in the index, or is not where it came from any more."""

    document: Document


@dataclass(slots=True)
class Prepared:
    """A document, cut.

    Attributes:
        characters: Of its text.
        remark: What should be known of it though it is indexed.
        passages: Until they are on their way; `count` is how many those were.
    """

    document: Document
    version: str
    content: str
    bytes: int
    characters: int
    title: str
    remark: str
    passages: list[Passage]
    count: int


Read = Unchanged | Refused | Gone | Prepared


@dataclass(frozen=True)
class Reading:
    """How documents of a collection are read. For several threads, each with a sandbox of its own."""

    config: CollectionConfig
    embedder: str
    chunker: Chunker
    sources: Callable[[str], Source | None]
    checkpoint: Checkpoint = lambda _: None

    @property
    def recipe(self) -> str:
        return self.config.recipe(self.embedder)

    def read(self, document: Document, sandbox: Sandbox) -> Read:
        """What becomes of a document.

        Raises:
            SourceUnavailable, or anything else: It is to be tried again.
        """
        source = self.sources(document.source)
        if document.state == "removing" or source is None:
            return Gone(document)
        if document.fingerprint.startswith("refused: "):
            return Refused(document, document.fingerprint.removeprefix("refused: "))
        try:
            content = source.read(document.uri, self.config.parsing.max_bytes)
            self.checkpoint("read")
            if (entry := content.entry) is not None:
                access = None if entry.access is None else tuple(sorted(set(entry.access)))  # as the catalogue has it
                document = replace(document, access=access, metadata=dict(entry.metadata))
            digest = hashlib.sha256(content.data).hexdigest()[:32]
            version = self._version(document, content, digest)
            if version == document.version:
                return Unchanged(document, digest, len(content.data))
            parsed = sandbox.parse(content.data, content.name, content.media_type or document.media_type)
            self.checkpoint("parsed")
            return self._prepared(document, content, parsed, digest, version)
        except Missing:
            return Gone(document)
        except Unsettled as error:
            raise SourceUnavailable(error.message) from error
        except Unreadable as error:
            return Refused(document, error.message)

    def _version(self, document: Document, content: Content, digest: str) -> str:
        """Of all that passages carry: equal versions are equal passages."""
        said = [digest, self.recipe, content.name, content.media_type, content.title, document.access]
        said.append(document.metadata)
        return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()[:32]

    def _prepared(self, document: Document, content: Content, parsed: Parsed, digest: str, version: str) -> Prepared:
        chunks = self.chunker(parsed)
        if not chunks:
            raise Unreadable("has no text")
        title = _clean(content.title or parsed.title or content.name)[:_MAX_TITLE]
        metadata = self._metadata(document, parsed.metadata)
        access = document.access if document.access is not None else tuple(self.config.access)
        passages: list[Passage] = []
        for ordinal, chunk in enumerate(chunks):
            text = parsed.text[chunk.start : chunk.end]
            passages.append(
                Passage(
                    passage_id=passage_id(document.document_id, version, ordinal),
                    document_id=document.document_id,
                    version=version,
                    ordinal=ordinal,
                    text=text,
                    start=chunk.start,
                    end=chunk.end,
                    title=title,
                    uri=document.uri,
                    headings=chunk.headings,
                    page=chunk.page,
                    content=content_hash(self.embedder, searched_text(chunk.headings, text)),
                    access=access,
                    metadata=metadata,
                )
            )
        pages = parsed.scanned_pages
        remark = f"{page_ranges(pages)} scanned: what stands there is not found" if pages else ""
        return Prepared(
            document, version, digest, len(content.data), len(parsed.text), title, remark, passages, len(passages)
        )

    def _metadata(self, document: Document, of_itself: Mapping[str, str]) -> dict[str, Value]:
        """What a document says of itself counts least: it cannot pass for what somebody else says of it."""
        facts: dict[str, Value] = {
            _clean(name)[:128]: _clean(value)[:_MAX_FACT] for name, value in list(of_itself.items())[:_MAX_FACTS]
        }
        return {**facts, **self.config.metadata, **document.metadata}


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "")
