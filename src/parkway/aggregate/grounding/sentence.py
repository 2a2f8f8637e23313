"""Sentences of an answer while it arrives, with the citations behind each, and those of a passage."""

from __future__ import annotations

import re
from collections.abc import Iterator

from parkway.core.abbreviations import ABBREVIATIONS

Span = tuple[int, int]

# Possessive: from each of a run of marks it would otherwise take the square of its length.
_END = re.compile(r"(?<![.!?…؟।۔။។])[.!?…؟।۔။។]++[\"'”’»)\]*_]*+(?=\s|\[|【|$)|[。！？｡．]++[”’」』）】]*+|\n++")
_ORDINAL = re.compile(r"(?<![\w.,])\d{1,2}$")
_GOES_ON = re.compile(
    r"\s+(?:[a-zß-ɏа-я]|(?:Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember"
    r"|Jahrhundert)(?!\w))"
)
"""Behind an ordinal number of the languages that write a full stop behind it: 3. Mai, 3. maj, am 3. und 4. Mai."""
_BEGUN_WORD = re.compile(r"\s+[^\W\d_]*")
_MONTH_CHARS = 16
_MARKERS = re.compile(r"(?<!\s)\s*+[\[【]\s*\d{1,3}(?:\s*[,;]\s*\d{1,3})*\s*[\]】]")
_CODE = re.compile(r"`[^`\n]*`")
_MAYBE_MARKER = re.compile(r"\s*(?:[\[【][\d\s,;]*)?$")
MAX_CHARS = 4000
"""What has no end by then is taken as a sentence all the same."""


def next_end(text: str, *, final: bool) -> int:
    """Where the first sentence of `text` ends, behind the citations that belong to it; 0 while that cannot be told.

    Args:
        final: Nothing comes behind `text`.
    """
    for match in _END.finditer(text):
        mark = match.group()
        if not text[: match.start()].strip() or (mark[0] == "." and _is_abbreviation(text, match)):
            continue
        end = match.end()
        if mark == "." and _ORDINAL.search(text, max(0, match.start() - 3), match.start()):
            after = text[end : end + _MONTH_CHARS]
            if not final and len(after) < _MONTH_CHARS and _BEGUN_WORD.fullmatch(after):
                return 0
            if _GOES_ON.match(after):
                continue
        if mark[0] == "\n":
            if not final and end == len(text):
                return 0  # there may be more of them
        else:
            while (more := _MARKERS.match(text, end)) is not None:
                end = more.end()
            if not final and _MAYBE_MARKER.fullmatch(text, end):
                return 0
        return end
    if final:
        return len(text)
    if len(text) < MAX_CHARS:
        return 0
    return text.rfind(" ", 0, MAX_CHARS) + 1 or MAX_CHARS


def sentences(text: str) -> Iterator[Span]:
    """Spans of the sentences of a whole text, without white space around."""
    begin = 0
    while begin < len(text):
        end = begin + next_end(text[begin : begin + MAX_CHARS], final=True)
        first, last = begin, end
        while first < last and text[first].isspace():
            first += 1
        while last > first and text[last - 1].isspace():
            last -= 1
        if first < last:
            yield first, last
        begin = end


def cited_in(sentence: str) -> list[int]:
    """The numbers in its citations, each once, in order."""
    numbers = (int(number) for marker in citations(sentence) for number in re.findall(r"\d+", marker.group()))
    return list(dict.fromkeys(numbers))


def without_citations(sentence: str) -> str:
    """The same without them."""
    for match in reversed(list(citations(sentence))):
        sentence = sentence[: match.start()] + sentence[match.end() :]
    return sentence


def citations(text: str) -> Iterator[re.Match[str]]:
    """Every marker in a text; in code, brackets are part of it."""
    code = [match.span() for match in _CODE.finditer(text)]
    return (match for match in _MARKERS.finditer(text) if not any(start < match.start() < end for start, end in code))


def _is_abbreviation(text: str, match: re.Match[str]) -> bool:
    if match.group() != ".":
        return False
    last = text[max(0, match.start() - 12) : match.start()].rsplit(None, 1)
    word = last[-1].strip("(\"'[“‘*_").lower() if last else ""
    # A number alone at the beginning of a line is that of a list.
    numbered = word.isdigit() and not text[: match.start() - len(word)].strip()
    return word in ABBREVIATIONS or (len(word) == 1 and word.isalpha()) or numbered
