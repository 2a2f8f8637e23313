"""Where something stands in a document, for people: `docs/keys.md:12`, `paper.pdf, page 3`."""

from __future__ import annotations

from pathlib import Path

_MOST_BYTES = 8 << 20
_SOUGHT_CHARS = 60


def place_of(uri: str, *, title: str = "", page: int | None = None, quote: str = "", headings: list[str]) -> str:
    """The document with the line where `quote` begins, where it is a file below where we are; else page or headings.

    Args:
        quote: Word for word, as it stands in the text.
    """
    shown = uri or title
    if page is not None:
        return f"{shown}, page {page}"
    if uri and (line := _line(Path(uri), quote)) is not None:
        return f"{shown}:{line}"
    return f"{shown} › {' › '.join(headings)}" if headings else shown


def _line(file: Path, quote: str) -> int | None:
    """Where a quotation begins, from 1; None where the file is not text, or has changed."""
    sought = quote.lstrip().split("\n", 1)[0][:_SOUGHT_CHARS].strip()
    if not sought or not file.is_file():
        return None
    try:
        with file.open("rb") as content:
            data = content.read(_MOST_BYTES)
    except OSError:
        return None
    at = data.find(sought.encode("utf-8", "replace"))
    return None if at < 0 else data.count(b"\n", 0, at) + 1
