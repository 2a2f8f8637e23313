"""Documents that clients sent: one file each, which says itself what it is. It is the truth; the catalogue follows.

DIRECTORY/DOCUMENT_ID    a line of JSON, then the bytes as they came
DIRECTORY/.aside-*       being received; left over after a crash, it is removed at the next start
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from parkway.core.errors import BodyTooLarge, IndexUnavailable, InvalidRequest, Unreadable
from parkway.retrieval.catalogue import Partition, document_id
from parkway.retrieval.config import UPLOADS
from parkway.retrieval.document import Value
from parkway.retrieval.ingest.source import MAX_URI, Content, Entry, Missing, SourceUnavailable, Unknown
from parkway.retrieval.parsing.file import read_open

_MAX_HEADER = 1 << 20
_PIECE = 1 << 20


class Header(msgspec.Struct, frozen=True):
    """What a client says of a document.

    Attributes:
        access: Who may see it; None: as the collection says.
    """

    uri: str
    title: str = ""
    media_type: str = ""
    access: tuple[str, ...] | None = None
    metadata: dict[str, Value] = {}


class Uploads:
    """A `Source`: of a collection, or of a partition of it."""

    name = UPLOADS

    def __init__(self, directory: Path, collection: str, partition: Partition | None = None) -> None:
        self._directory = directory
        self._collection = collection
        self._partition = partition or Partition()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, header: Header, pieces: Iterable[bytes], most: int) -> Entry:
        """Keeps a document, in the place of the one with this uri. It is on disk when this returns.

        Raises:
            BodyTooLarge: It has more than `most` bytes; nothing is kept.
            InvalidRequest: What is said of it is too long or not text.
            IndexUnavailable: The disk does not take it.
        """
        path = self._path(header.uri)
        try:
            first = msgspec.json.encode(header)
        except (UnicodeEncodeError, ValueError) as error:
            raise InvalidRequest(f"what is said of the document is not text: {error}") from error
        if len(first) > _MAX_HEADER:
            raise InvalidRequest(f"what is said of the document is larger than {_MAX_HEADER:,} bytes")
        descriptor, aside = tempfile.mkstemp(prefix=".aside-", dir=self._directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(first + b"\n")
                length = 0
                for piece in pieces:
                    length += len(piece)
                    if length > most:
                        raise BodyTooLarge(
                            f"the document is larger than {most:,} bytes; `parsing.max_bytes` sets the limit"
                        )
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
                about = os.fstat(file.fileno())
            Path(aside).rename(path)
        except BaseException as error:
            Path(aside).unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise IndexUnavailable(f"the document cannot be kept: {error.strerror}; nothing was changed") from error
            raise
        self._sync()
        return _entry(header, about, len(first) + 1)

    def discard(self, uri: str) -> bool:
        """Removes a document's bytes; whether there were any. They are off the disk when this returns."""
        try:
            self._path(uri).unlink()
        except FileNotFoundError:
            return False
        self._sync()
        return True

    def entry(self, uri: str) -> Entry | None:
        """What lies there now under this uri; None: nothing."""
        path = self._path(uri)
        try:
            header, start = _header(path)
            return _entry(header, path.stat(), start)
        except FileNotFoundError:
            return None

    def tidy(self) -> None:
        """Removes what was being received when the process ended. Before anything is received."""
        for left in self._directory.glob(".aside-*"):
            left.unlink(missing_ok=True)

    def entries(self) -> Iterator[Entry | Unknown]:
        try:
            with os.scandir(self._directory) as found:
                names = sorted(one.name for one in found if not one.name.startswith("."))
        except OSError as error:
            raise SourceUnavailable(f"{self._directory}: {error.strerror}") from error
        for name in names:
            path = self._directory / name
            with suppress(FileNotFoundError):
                about = path.stat()
                try:
                    header, start = _header(path)
                except ValueError as error:
                    yield Unknown("", f"{path} is damaged: {error}; remove it, and send its document again")
                    continue
                if self._path(header.uri) == path and self._partition.has(name):
                    yield _entry(header, about, start)

    def read(self, uri: str, most: int) -> Content:
        path = self._path(uri)
        try:
            data = read_open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), most + _MAX_HEADER)
        except FileNotFoundError as error:
            raise Missing(uri) from error
        except OSError as error:
            raise SourceUnavailable(f"{path}: {error.strerror}") from error
        header, start = _read(data[: data.find(b"\n") + 1])
        if len(data) - start > most:
            raise Unreadable(f"is larger than {most:,} bytes; `parsing.max_bytes` sets the limit")
        entry = Entry(uri, "", access=header.access, metadata=header.metadata)
        return Content(data[start:], uri.rsplit("/", 1)[-1], header.media_type, header.title, entry)

    def _path(self, uri: str) -> Path:
        if not uri or len(uri) > MAX_URI:
            raise InvalidRequest(f"the name of a document has from 1 to {MAX_URI:,} characters; this one {len(uri):,}")
        if "\0" in uri or not uri.isprintable():
            raise InvalidRequest("the name of a document has a character that cannot be printed")
        return self._directory / document_id(self._collection, UPLOADS, uri)

    def _sync(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _header(path: Path) -> tuple[Header, int]:
    """What a file says of itself, and where its document begins."""
    with path.open("rb") as file:
        return _read(file.readline(_MAX_HEADER + 1))


def _read(line: bytes) -> tuple[Header, int]:
    return msgspec.json.decode(line, type=Header), len(line)


def _entry(header: Header, about: os.stat_result, start: int) -> Entry:
    return Entry(
        uri=header.uri,
        fingerprint=f"{about.st_size}-{about.st_mtime_ns}-{about.st_ino}",
        title=header.title,
        media_type=header.media_type,
        bytes=about.st_size - start,
        access=header.access,
        metadata=header.metadata,
    )
