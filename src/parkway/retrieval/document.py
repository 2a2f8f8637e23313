"""A document on its way into the index: what was read of it, its chunks, the passages that are kept."""

from __future__ import annotations

import hashlib
import uuid
from typing import Literal

import msgspec

BlockKind = Literal["heading", "paragraph", "list", "code", "table"]

EVERYONE = "*"
"""In `access`: whoever may search the collection."""

_PASSAGES = uuid.UUID("6f0f9f1c-6a3e-5f0e-9b59-5d0c6a5a7c11")  # the name space of passage ids; never to be changed

Value = str | int | float | bool | list[str]
"""Of metadata; what filters compare."""


class Block(msgspec.Struct, frozen=True, gc=False):
    """A part of a document's text that means something by itself.

    Attributes:
        start, end: Its span, in characters of the text.
        level: Of a heading, 1 is the highest.
        page: On which it begins, from 1; None where there are none.
    """

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    page: int | None = None


class Parsed(msgspec.Struct, frozen=True):
    """What a parser read.

    Attributes:
        text: All of it; spans and quotations are of this string.
        blocks: In order, without overlap; together they hold everything but white space.
        scanned_pages: Pages without text but with a picture: nobody can find what stands there.
    """

    text: str
    blocks: tuple[Block, ...]
    title: str = ""
    metadata: dict[str, str] = {}
    scanned_pages: tuple[int, ...] = ()


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A part of a document that is found as a whole.

    Attributes:
        start, end: Its span, in characters of the document's text.
        headings: Those that it stands under, the highest first.
        page: On which it begins, from 1.
        tokens: As the encoder counts them, headings included.
    """

    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None
    tokens: int = 0


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk as the index keeps it, with all that a citation needs.

    Attributes:
        passage_id: A UUID, the same whenever the same chunk of the same version of a document is indexed.
        version: Of the document: a hash of its content and of how it was cut. A document has passages of one version.
        text: As it stands in the document; `headings` are searched, too.
        content: A hash of what is embedded: equal texts have equal vectors.
        access: Who may see it: `*`, or principals such as `team:legal`, `user:ann`, `key:ci`.
        metadata: Of the document.
    """

    passage_id: str
    document_id: str
    version: str
    ordinal: int
    text: str
    start: int
    end: int
    title: str = ""
    uri: str = ""
    headings: tuple[str, ...] = ()
    page: int | None = None
    content: str = ""
    access: tuple[str, ...] = (EVERYONE,)
    metadata: dict[str, Value] = {}

    @property
    def searched(self) -> str:
        """What is embedded and searched for words: the headings, then the text."""
        return searched_text(self.headings, self.text)


def searched_text(headings: tuple[str, ...], text: str) -> str:
    """What is embedded and searched for words of a chunk."""
    return f"{' > '.join(headings)}\n{text}" if headings else text


def content_hash(embedder: str, searched: str) -> str:
    """The key of a vector: what was embedded, and by which model."""
    return hashlib.sha256(f"{embedder}\n{searched}".encode("utf-8", "replace")).hexdigest()[:32]


def passage_id(document_id: str, version: str, ordinal: int) -> str:
    """Of the chunk with this number: writing it twice is writing it once."""
    return str(uuid.uuid5(_PASSAGES, f"{document_id}\n{version}\n{ordinal}"))
