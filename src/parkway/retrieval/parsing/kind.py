"""What kind of file it is: by its first bytes, its media type and its name, in this order."""

from __future__ import annotations

import io
import zipfile
from itertools import pairwise
from pathlib import PurePath

from parkway.core.errors import Unreadable
from parkway.retrieval.parsing.extraction import PDF

_OFFICE = "application/vnd.openxmlformats-officedocument"
_DOCX = f"{_OFFICE}.wordprocessingml.document"
_XLSX = f"{_OFFICE}.spreadsheetml.sheet"
_PPTX = f"{_OFFICE}.presentationml.presentation"
_ODF = "application/vnd.oasis.opendocument"
_EPUB = "application/epub+zip"
_RTF = "application/rtf"

TEXT, MARKDOWN, HTML, CSV, JSON, JSON_LINES, SOURCE = "text", "markdown", "html", "csv", "json", "jsonl", "source"
"""Kinds that are read here; of all others the media type is their kind, and kreuzberg reads them."""

_BY_SUFFIX = {
    ".txt": TEXT, ".text": TEXT, ".log": TEXT, ".rst": TEXT, ".adoc": TEXT, ".tex": TEXT, ".srt": TEXT, ".vtt": TEXT,
    ".md": MARKDOWN, ".markdown": MARKDOWN, ".mdx": MARKDOWN, ".html": HTML, ".htm": HTML, ".xhtml": HTML,
    ".csv": CSV, ".tsv": CSV, ".json": JSON, ".geojson": JSON, ".ipynb": JSON, ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".pdf": PDF, ".docx": _DOCX, ".xlsx": _XLSX, ".pptx": _PPTX, ".epub": _EPUB, ".rtf": _RTF,
    ".odt": f"{_ODF}.text", ".ods": f"{_ODF}.spreadsheet",
}  # fmt: skip
_BY_MEDIA_TYPE = {
    "text/plain": TEXT, "text/markdown": MARKDOWN, "text/x-markdown": MARKDOWN, "text/html": HTML,
    "application/xhtml+xml": HTML, "text/csv": CSV, "text/tab-separated-values": CSV, "application/json": JSON,
    "application/x-ndjson": JSON_LINES, "application/jsonl": JSON_LINES, "application/x-jsonlines": JSON_LINES,
    "text/rtf": _RTF,
}  # fmt: skip
_EXTRACTED = frozenset((PDF, _DOCX, _XLSX, _PPTX, _EPUB, _RTF, f"{_ODF}.text", f"{_ODF}.spreadsheet"))
_ZIPPED = _EXTRACTED - {PDF, _RTF}
_FOREIGN = (
    (b"\x89PNG", "a picture"), (b"\xff\xd8\xff", "a picture"), (b"GIF8", "a picture"), (b"\x1f\x8b", "an archive"),
    (b"7z\xbc\xaf", "an archive"), (b"Rar!", "an archive"), (b"BZh", "an archive"), (b"\xfd7zXZ", "an archive"),
    (b"\x7fELF", "a program"), (b"SQLite format 3\0", "a database"), (b"ID3", "sound"), (b"OggS", "sound"),
    (b"\0asm", "a program"), (b"PAR1", "a table in Parquet"),
    (b"\xd0\xcf\x11\xe0", "an Office file of before 2007, or locked with a password; save it as .docx, .xlsx or .pptx"),
)  # fmt: skip


def kind_of(data: bytes, name: str, media_type: str, most: int) -> str:
    """One of the kinds above, or a media type that kreuzberg reads.

    Args:
        most: Bytes that a packed file may have when it is unpacked.

    Raises:
        Unreadable: It is of no kind that is read, or is a bomb.
    """
    named = _named(name, media_type)
    head = data[:1024]
    if head.startswith(b"PK\x03\x04") or (head.startswith(b"PK") and named in _ZIPPED):
        return _zipped(data, most)
    if head.lstrip()[:5] == b"%PDF-" or (named == PDF and b"%PDF-" in head):
        return PDF
    if head.startswith(b"{\\rtf"):
        return _RTF
    for mark, what in _FOREIGN:
        if head.startswith(mark) and (b"\0" in head or not mark.isascii()):  # a text, too, may begin with "ID3"
            raise Unreadable(f"is {what}; there is no text in it that can be read")
    if named in _EXTRACTED:
        raise Unreadable(f"is called {_suffix(name) or media_type} and is none, or is damaged at its beginning")
    if named is not None:
        return named
    start = head.lstrip().lower()
    return HTML if start.startswith((b"<!doctype html", b"<html")) else TEXT


def _suffix(name: str) -> str:
    return PurePath(name).suffix.lower()


def _named(name: str, media_type: str) -> str | None:
    from parkway.retrieval.parsing.source import language_of

    media_type = media_type.split(";")[0].strip().lower()
    if (kind := _BY_SUFFIX.get(_suffix(name))) is not None:
        return kind
    if language_of(name) is not None:
        return SOURCE
    return _BY_MEDIA_TYPE.get(media_type) or (media_type if media_type in _EXTRACTED else None)


def _zipped(data: bytes, most: int) -> str:
    """Which of the formats it is that are zip archives. Nothing is unpacked for it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _refuse_bomb(entries, most)
            names = {entry.filename for entry in entries}
            mimetype = (
                archive.open("mimetype").read(200).decode("ascii", "replace").strip() if "mimetype" in names else ""
            )
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise Unreadable(f"is damaged or cut off: {error}") from error
    if mimetype in _EXTRACTED:
        return mimetype
    for part, kind in (("word/document.xml", _DOCX), ("xl/workbook.xml", _XLSX), ("ppt/presentation.xml", _PPTX)):
        if part in names:
            return kind
    if "xl/workbook.bin" in names:
        raise Unreadable("is a binary workbook (.xlsb); save it as .xlsx")
    raise Unreadable("is an archive; unpack it and add what is in it")


def _refuse_bomb(entries: list[zipfile.ZipInfo], most: int) -> None:
    if len(entries) > 50_000:
        raise Unreadable(f"has {len(entries):,} parts; at most 50,000 are read")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > most:
        raise Unreadable(f"would take {unpacked:,} bytes unpacked; at most {most:,} are read")
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    if any(one.header_offset + one.compress_size >= two.header_offset for one, two in pairwise(ordered)):
        raise Unreadable("has parts that lie over one another, as only a bomb has")
    if any(entry.flag_bits & 1 for entry in entries):
        raise Unreadable("needs a password")
