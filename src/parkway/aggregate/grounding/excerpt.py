"""What of a passage can be quoted by itself: sentences and items of lists, and tables and code as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from parkway.aggregate.grounding.sentence import sentences

MAX_CHARS = 600
"""Longer sentences are quoted in pieces."""

MAX_BLOCK_CHARS = 1000
"""Longer tables and code are not quoted."""

_FENCE = re.compile(r"\s*(?:(?:[-*+]|\d{1,3}[.)])\s+)?(`{3,}(?=[^`]*$)|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+•‣◦▪–]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s+(?=\S)")
_COLUMNS = re.compile(r"\S\s*(?:\||\t)\s*\S")
_HEADING = re.compile(r" {0,3}#{1,6}\s|\s{0,3}((?:= ){1,5}=|={1,6})\s+\S.*\s\1\s*$")
_UNDERLINE = re.compile(r"\s{0,3}([=\-~^*])\1{2,}\s*")
_TERMINATED = re.compile(r"[.!?:;…。！？｡．؟।॥][\"'”’»)\]」』）】*_`]*\s*$")
_INDENTED = ("    ", "\t")
_TITLE_CHARS, _TITLE_WORDS = 90, 12
_SEEN_CHARS = 1000
"""Of a line, this much of either end says what it is."""

_Kind = Literal["nothing", "block", "item", "paragraph"]


class Excerpt(NamedTuple):
    """A part of a text, without white space around; but code keeps that in front of it.

    Attributes:
        block: It is a table or code, or has some in it: it has to stand in lines of its own.
        mark: Characters of the mark of an item, with the space behind it; 0: it is none.
    """

    start: int
    end: int
    block: bool = False
    mark: int = 0


class _Line(NamedTuple):
    """With the beginning of its text, and whether it ends as sentences do."""

    start: int
    end: int
    text: str
    terminated: bool


def excerpts(text: str) -> Iterator[Excerpt]:
    """In order, none within another. Headings are none, and neither is what is too long, or code that is cut."""
    reader = _Reader(text)
    for kind, first, after in reader.parts():
        start, end = reader.lines[first].start, reader.lines[after - 1].end
        if kind == "item":
            yield from _item(text, reader.lines[first:after])
        elif kind == "paragraph":
            yield from _sentences(text, reader.lines[first:after])
        elif kind == "block" and end - start <= MAX_BLOCK_CHARS:
            yield Excerpt(start, start + len(text[start:end].rstrip()), block=True)


def _item(text: str, lines: list[_Line]) -> Iterator[Excerpt]:
    """An item as a whole, or the sentences of a long one."""
    start, end = lines[0].start, lines[-1].end
    start, end = end - len(text[start:end].lstrip()), start + len(text[start:end].rstrip())
    fences = sum(_FENCE.match(line.text) is not None for line in lines)
    if not fences:
        found = _ITEM.match(text, start, end)
        mark = found.end() - start if found is not None else 0
        parts = _sentences(text, lines) if end - start > MAX_CHARS else [Excerpt(start, end)]
        yield from (part._replace(mark=mark) if part.start == start else part for part in parts)
    elif fences % 2 == 0 and end - start <= MAX_BLOCK_CHARS:
        yield Excerpt(start, end, block=True)


def _sentences(text: str, lines: list[_Line]) -> Iterator[Excerpt]:
    """Those of a paragraph. A line ends one only where it ends as sentences do: somebody may have wrapped it."""
    first = lines[0].start
    flat = "".join(text[line.start : line.end] + ("\n" if line.terminated else " ") for line in lines)
    for start, end in sentences(flat):
        while end - start > MAX_CHARS:  # nobody has said where it ends
            cut = flat.rfind(" ", start + 1, start + MAX_CHARS + 1)
            after = cut + 1 if cut > 0 else start + MAX_CHARS
            yield Excerpt(first + start, first + start + len(flat[start:after].rstrip()))
            start = after + len(flat[after:end]) - len(flat[after:end].lstrip())
        yield Excerpt(first + start, first + end)


class _Reader:
    """Goes through the lines once."""

    def __init__(self, text: str) -> None:
        self.lines: list[_Line] = []
        start = 0
        for line in text.split("\n"):
            terminated = _TERMINATED.search(line[-_SEEN_CHARS:]) is not None
            self.lines.append(_Line(start, start + len(line), line[:_SEEN_CHARS], terminated))
            start += len(line) + 1

    def parts(self) -> Iterator[tuple[_Kind, int, int]]:
        """What there is, with its first line and the one behind it."""
        at = self._after_cut_code()
        while at < len(self.lines):
            kind, after = self._part(at)
            yield kind, at, after
            at = after

    def _part(self, at: int) -> tuple[_Kind, int]:
        line = self.lines[at].text
        if self._is_blank(at):
            return "nothing", at + 1
        if (after := self._after_fence(at)) > at:
            return ("block", after) if after <= len(self.lines) else ("nothing", len(self.lines))
        if self._is_table(at):
            return "block", self._while(at, lambda line: _COLUMNS.search(line) is not None)
        if line.startswith(_INDENTED) and self._is_blank(at - 1):
            after = self._while(at, lambda line: line.startswith(_INDENTED))
            if not self.lines[after - 1].terminated:
                return "block", after
        if (after := self._after_heading(at)) > at:
            return "nothing", after
        if _ITEM.match(line):
            return "item", self._after_item(at)
        return "paragraph", self._while(at + 1, lambda line: not _FENCE.match(line), within=True)

    def _while(self, at: int, goes_on: Callable[[str], bool], *, within: bool = False) -> int:
        """Behind the lines from `at` on that go on; an empty one does not, nor `within` one that begins something."""
        while not self._is_blank(at) and goes_on(self.lines[at].text) and not (within and self._begins(at)):
            at += 1
        return at

    def _is_blank(self, at: int) -> bool:
        """Whether a line has nothing in it, or is none."""
        return not 0 <= at < len(self.lines) or not self.lines[at].text.strip()

    def _begins(self, at: int) -> bool:
        """Whether something else begins with a line."""
        line = self.lines[at].text
        return bool(_ITEM.match(line) or _HEADING.match(line) or _UNDERLINE.fullmatch(line)) or self._is_table(at)

    def _is_table(self, at: int) -> bool:
        """Whether there are columns in it and in the next one."""
        return at + 1 < len(self.lines) and all(_COLUMNS.search(line.text) for line in self.lines[at : at + 2])

    def _after_heading(self, at: int) -> int:
        """Behind a heading that is marked or underlined, or a line alone that is like a title; else `at`."""
        line = self.lines[at]
        if _HEADING.match(line.text) or _UNDERLINE.fullmatch(line.text):
            return at + 1
        if not self._is_blank(at - 1) or line.terminated or line.end - line.start > _TITLE_CHARS:
            return at
        if not self._is_blank(at + 1):
            return at + 2 if _UNDERLINE.fullmatch(self.lines[at + 1].text) else at
        is_title = len(line.text.split()) <= _TITLE_WORDS and not _ITEM.match(line.text)
        goes_on = any(not self._is_blank(later) for later in range(at + 1, min(at + 4, len(self.lines))))
        return at + 1 if is_title and goes_on else at

    def _after_fence(self, at: int) -> int:
        """Behind code between fences; behind the last line and one more where the second is missing; else `at`."""
        if (fence := _FENCE.match(self.lines[at].text)) is None:
            return at
        closing = re.compile(rf"\s*{re.escape(fence.group(1))}{fence.group(1)[0]}*\s*")
        ends = (each for each in range(at + 1, len(self.lines)) if closing.fullmatch(self.lines[each].text))
        return next(ends, len(self.lines)) + 1

    def _after_item(self, at: int) -> int:
        """Behind an item, with lines that go on and code in it."""
        at += 1
        while not self._is_blank(at) and not self._begins(at):
            at = max(at + 1, self._after_fence(at))
        return min(at, len(self.lines))

    def _after_cut_code(self) -> int:
        """Behind code whose beginning is not there: a fence without a second one, under a line and above none."""
        fences = [at for at, line in enumerate(self.lines) if _FENCE.match(line.text)]
        if len(fences) % 2 == 0:
            return 0
        first = fences[0]
        closes = not self.lines[first].text.strip(" `~") and not self._is_blank(first - 1) and self._is_blank(first + 1)
        return first + 1 if closes else 0
