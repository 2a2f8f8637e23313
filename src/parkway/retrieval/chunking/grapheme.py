"""Where a text may be cut without tearing apart what people see as one character."""

from __future__ import annotations

import unicodedata

_JOINER = "\u200d"
_VIRAMAS = frozenset("\u094d\u09cd\u0a4d\u0acd\u0b4d\u0c4d\u0ccd\u0d4d\u0dca\u1039\u17d2")
"""Between two consonants they make one letter of them: in Devanagari and its relatives."""
_MOST_REGIONALS = 256
"""Flags are two letters each. In a longer row of them a pair may be torn: from each to the first is its square."""
_PREPENDED = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd\U000110cd")


def boundary(text: str, index: int) -> bool:
    """Whether a grapheme cluster begins at `index`.

    The rules of Unicode's UAX 29 with general categories in place of its own property; where they differ, this one
    keeps more together.
    """
    if index <= 0 or index >= len(text):
        return True
    before, after = text[index - 1], text[index]
    if before < "\u0300" and after < "\u0300":
        return (before, after) != ("\r", "\n") and after != "\u00ad"
    if before in "\r\n":
        return True
    return not (
        _extends(after)
        or before == _JOINER
        or before in _PREPENDED
        or before in _VIRAMAS
        or _one_syllable(before, after)
        or (_regional(before) and _regional(after) and _regionals_before(text, index) % 2 == 1)
    )


def boundary_before(text: str, index: int, start: int) -> int:
    """The last boundary in `start` < it <= `index`; `index` where there is none."""
    for candidate in range(index, start, -1):
        if boundary(text, candidate):
            return candidate
    return index


def _extends(character: str) -> bool:
    code = ord(character)
    return (
        unicodedata.category(character) in ("Mn", "Me", "Mc", "Cf")
        or 0x1F3FB <= code <= 0x1F3FF  # the skin of an emoji
        or code in (0xFF9E, 0xFF9F, 0x0E33, 0x0EB3)  # half-width voicing marks; Thai and Lao AM
    )


def _regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _regionals_before(text: str, index: int) -> int:
    count = 0
    while count < min(index, _MOST_REGIONALS) and _regional(text[index - 1 - count]):
        count += 1
    return count


def _one_syllable(before: str, after: str) -> bool:
    """Whether they are parts of one syllable of Hangul."""
    first, second = ord(before), ord(after)
    if 0x1100 <= first <= 0x115F or 0xA960 <= first <= 0xA97C:
        return 0x1100 <= second <= 0x11A7 or 0xA960 <= second <= 0xA97C or 0xAC00 <= second <= 0xD7A3
    vowel = 0x1160 <= first <= 0x11A7 or 0xD7B0 <= first <= 0xD7C6
    syllable = 0xAC00 <= first <= 0xD7A3
    final = 0x11A8 <= second <= 0x11FF or 0xD7CB <= second <= 0xD7FB
    if vowel or (syllable and (first - 0xAC00) % 28 == 0):
        return final or 0x1160 <= second <= 0x11A7 or 0xD7B0 <= second <= 0xD7C6
    return final and (syllable or 0x11A8 <= first <= 0x11FF or 0xD7CB <= first <= 0xD7FB)
