"""The text of a document as it is kept: normalised once, and put together block by block."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from parkway.core.errors import Unreadable
from parkway.retrieval.document import Block, BlockKind, Parsed

_DROPPED = (*range(9), 11, *range(14, 32), *range(127, 160), 0xFEFF, 0xFFFE, 0xFFFF)
_CONTROLS: dict[int, str | None] = {**dict.fromkeys(_DROPPED), 0x0C: "\n", 0x85: "\n"}
_LINE_ENDS = re.compile(r"\r\n?|[\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def normalised(text: str) -> str:
    """The text as it is kept: lines end with one newline, letters are composed (NFC), there are no control characters.

    What is quoted is quoted from this.
    """
    text = _LINE_ENDS.sub("\n", text).translate(_CONTROLS)
    if _SURROGATES.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return unicodedata.normalize("NFC", text)


class Writer:
    """Puts a text together from blocks.

    Args:
        most: Characters.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0

    def add(self, kind: BlockKind, text: str, *, level: int = 0, page: int | None = None) -> None:
        """A block, with an empty line before it. One without words is left out.

        Raises:
            Unreadable: The text has become too long.
        """
        text = normalised(text).strip("\n").rstrip()
        text = text if kind == "code" else text.lstrip()
        if not text:
            return
        if self._pieces:
            self._pieces.append("\n\n")
            self._length += 2
        start = self._length
        self._length += len(text)
        check_length(self._length, self._most)
        self._pieces.append(text)
        self._blocks.append(Block(kind, start, self._length, level, page))

    def add_table(self, rows: Iterable[Sequence[str]], *, page: int | None = None) -> None:
        """A table: a line for each row that has words, cells apart by ` | `."""
        lines: list[str] = []
        length = 0
        for row in rows:
            cells = [" ".join(cell.split()) for cell in row]
            if any(cells):
                lines.append(" | ".join(cells).rstrip(" |") if cells[0] else " | ".join(cells).rstrip())
                length += len(lines[-1]) + 1
                check_length(self._length + length, self._most)
        self.add("table", "\n".join(lines), page=page)

    def parsed(
        self, *, title: str = "", metadata: dict[str, str] | None = None, scanned_pages: tuple[int, ...] = ()
    ) -> Parsed:
        """All of it. Where no title is known, the first heading is."""
        text = "".join(self._pieces)
        if not title.strip():
            title = next((text[block.start : block.end] for block in self._blocks if block.kind == "heading"), "")[:500]
        return Parsed(text, tuple(self._blocks), " ".join(normalised(title).split()), metadata or {}, scanned_pages)


def check_length(length: int, most: int) -> None:
    """Raises `Unreadable` if a text is too long."""
    if length > most:
        raise Unreadable(f"has more than {most:,} characters of text; `parsing.max_characters` sets the limit")
