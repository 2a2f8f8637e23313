"""Sentences and words of a text, by rules that hold in many languages; neither is ever inside a grapheme cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator

from parkway.core.abbreviations import ABBREVIATIONS
from parkway.retrieval.chunking.grapheme import boundary, boundary_before

Span = tuple[int, int]

LONGEST_WORD = 64
"""In characters. What is longer without a space (Chinese, Japanese, Thai, base64) is taken in pieces of so many.

Below the 100 characters from which on BERT's tokenizers see nothing but one unknown word.
"""

# Every run of marks is looked at from its first one alone: from each of them it would take the square of its length.
_END = re.compile(r"(?<![.!?…؟۔।॥])[.!?…؟۔।॥]++[\"'”’»)\]]*+\s++|[。！？｡．]++[”’」』）】]*+\s*+|\n++\s*+")
_WORD = re.compile(r"\S+")
_TERMINATED = re.compile(r"[.!?:;…。！？｡．؟۔।॥][\"'”’»)\]」』）】]*$")


def sentences(text: str, start: int, end: int, *, lines: bool) -> Iterator[Span]:
    """Spans of the sentences between `start` and `end`, without white space around.

    Args:
        lines: Whether each line ends one, too; otherwise only lines that end as sentences do.
    """
    begin = start
    for match in _END.finditer(text, start, end):
        stop = match.end()
        if stop <= begin or not _ends(text, begin, match, lines) or not boundary(text, stop):
            continue
        yield from stripped(text, begin, stop)
        begin = stop
    yield from stripped(text, begin, end)


def words(text: str, start: int, end: int) -> Iterator[Span]:
    """Spans of the words between `start` and `end`: what stands between white space, at most `LONGEST_WORD` long."""
    for match in _WORD.finditer(text, start, end):
        begin, stop = match.span()
        while stop - begin > LONGEST_WORD:
            cut = boundary_before(text, begin + LONGEST_WORD, begin)
            yield begin, cut
            begin = cut
        if stop > begin:
            yield begin, stop


def terminated(text: str) -> bool:
    """Whether it ends as a sentence does."""
    return _TERMINATED.search(text[-8:].rstrip()) is not None


def _ends(text: str, begin: int, match: re.Match[str], lines: bool) -> bool:
    """Whether what was matched is the end of a sentence that began at `begin`."""
    mark = match.group()
    if mark[0] == "\n":
        return lines or "\n" in mark[1:] or terminated(text[max(begin, match.start() - 8) : match.start()])
    if mark[0] != "." or mark[:2] == "..":
        return True
    last = text[max(begin, match.start() - 12) : match.start()].rsplit(None, 1)
    word = last[-1].strip("(\"'[“‘").lower() if last else ""
    if not word:
        return False
    return not (word in ABBREVIATIONS or (len(word) == 1 and word.isalpha()))


def stripped(text: str, start: int, end: int) -> Iterator[Span]:
    """The span without white space around; nothing if it has nothing else."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield start, end
