"""What was changed since an index was last on disk as a whole. Written and synced before a change is acknowledged.

The embedded store could keep such a log itself, but that one holds removed texts until it happens to be overwritten,
and is synced only together with everything else, while nobody can search.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from parkway.core.errors import IndexDamaged
from parkway.retrieval.document import Passage

_HEAD = struct.Struct("<II")  # length of the body, CRC-32 of it
MAX_RECORD_BYTES = 1 << 30
_PIECE = 1 << 20


class Upsert(msgspec.Struct, frozen=True, tag="upsert"):
    """Attributes:
    vectors: float32 [passages, dimensions], as bytes.
    """

    passages: list[Passage]
    vectors: bytes


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    document_id: str
    but: str | None


Record = Upsert | Remove

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Journal:
    """Numbered files of records in a directory; only the last one grows. One process writes, another may read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        numbers = self.numbers()
        self.number = numbers[-1] if numbers else 1
        self._file = _path(self.directory, self.number).open("ab", buffering=0)
        sync_directory(directory)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(_path(self.directory, number).stat().st_size for number in self.numbers())

    def numbers(self) -> list[int]:
        """Of the files that are there, ascending."""
        return sorted(int(path.stem) for path in self.directory.glob("*.log") if path.stem.isdigit())

    def append(self, record: Record) -> None:
        """Writes a record; it is on disk when this returns.

        Raises:
            OSError: It is not, and as good as never written.
        """
        body = _encode(record)
        if len(body) > MAX_RECORD_BYTES:
            raise ValueError(f"{len(body)} bytes are too many to be written at once; at most {MAX_RECORD_BYTES}")
        length = os.fstat(self._file.fileno()).st_size
        data = memoryview(_HEAD.pack(len(body), zlib.crc32(body)) + body)
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fdatasync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), length)
            raise

    def rotate(self) -> int:
        """Begins a new file; its number. What was written before lies in files with lower numbers."""
        following = _path(self.directory, self.number + 1).open("ab", buffering=0)
        self._file.close()
        self._file = following
        self.number += 1
        sync_directory(self.directory)
        return self.number

    def forget(self, before: int) -> None:
        """Removes the files with lower numbers: what they say is on disk elsewhere, and was read by who reads along."""
        for number in self.numbers():
            if number < before:
                _path(self.directory, number).unlink()
        sync_directory(self.directory)

    def cut_off(self, end: Position) -> None:
        """Removes what follows the last record that could be read."""
        os.ftruncate(self._file.fileno(), end[1] if end[0] == self.number else 0)

    def close(self) -> None:
        self._file.close()


Position = tuple[int, int]
"""In a journal: number of the file, byte in it."""


def read(directory: Path, start: Position) -> Iterator[tuple[Record, Position]]:
    """The records from `start` on, each with the position behind it.

    The last record of the last file may be torn: it was never acknowledged, and reading ends before it.

    Raises:
        IndexDamaged: Something else cannot be read.
    """
    paths = sorted(path for path in directory.glob("*.log") if path.stem.isdigit() and int(path.stem) >= start[0])
    for path in paths:
        number = int(path.stem)
        with path.open("rb") as file:
            place = start[1] if number == start[0] else 0
            file.seek(place)
            while head := file.read(_HEAD.size):
                length, checksum = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
                body = file.read(min(length, MAX_RECORD_BYTES))
                if body and len(body) == length and zlib.crc32(body) == checksum:
                    place = file.tell()
                    yield _read(body, path), (number, place)
                elif path == paths[-1] and torn(head, body, length, file):
                    return
                else:
                    raise IndexDamaged(f"{path}: what stands at byte {place} cannot be read")


def torn(head: bytes, body: bytes, length: int, file: BinaryIO) -> bool:
    """Whether nothing can follow the record: it is being written just now, or never was to its end.

    A record that is cut off is the last one by that; another may have come behind it since. A file may have got its new
    length and not its content: zeros.
    """
    if len(head) < _HEAD.size or len(body) < min(length, MAX_RECORD_BYTES):
        return True
    rest = file.read(_PIECE)
    if length == 0:
        while rest and not rest.strip(b"\0"):
            rest = file.read(_PIECE)
    return not rest


def _read(body: bytes, path: Path) -> Record:
    try:
        return _decode(body)
    except msgspec.MsgspecError as error:
        raise IndexDamaged(f"{path}: a record is not of this version: {error}") from error


def grown(directory: Path, end: Position) -> bool:
    """Whether there may be more behind `end`. A look at two names: many who read along ask often."""
    number, place = end
    try:
        return _path(directory, number).stat().st_size != place or _path(directory, number + 1).exists()
    except FileNotFoundError:
        return True


def sync_directory(directory: Path) -> None:
    """Which files a directory has is on disk after this."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _path(directory: Path, number: int) -> Path:
    return directory / f"{number:08}.log"
