"""JSON that arrives in pieces, as characters and how they are written, so that it can be changed and stays JSON."""

from __future__ import annotations

import re

STRING, SCALAR, STRUCTURE = "S", "N", "X"
"""Where a character stands: inside of a string, in a number or a literal, or between values."""

_PLAIN = re.compile(r'[^"\\]+')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_HEX = re.compile(r"[0-9a-fA-F]{4}")


class JsonUnits:
    """Reads JSON text piece by piece. What is no JSON is taken as it comes."""

    def __init__(self) -> None:
        self._in_string = False
        self._cut = ""
        """The beginning of an escape sequence whose rest has not come yet."""

    def feed(self, piece: str, *, final: bool = False) -> tuple[str, list[str], str]:
        """The characters that are complete now, how each is written, and where each stands."""
        text, self._cut = self._cut + piece, ""
        chars: list[str] = []
        written: list[str] = []
        places: list[str] = []
        at = 0
        while at < len(text):
            if self._in_string and (plain := _PLAIN.match(text, at)) is not None:
                run, at = plain[0], plain.end()
                chars.append(run)
                written.extend(run)
                places.append(STRING * len(run))
                continue
            length = self._length(text, at)
            if at + length > len(text):
                if not final:
                    self._cut = text[at:]
                    break
                length = len(text) - at
            unit = text[at : at + length]
            at += length
            chars.append(_decoded(unit))
            written.append(unit)
            places.append(self._place(unit))
        return "".join(chars), written, "".join(places)

    def _length(self, text: str, at: int) -> int:
        if not self._in_string or text[at] != "\\":
            return 1
        return 6 if text[at + 1 : at + 2] == "u" else 2

    def _place(self, unit: str) -> str:
        if unit == '"':
            self._in_string = not self._in_string
            return STRUCTURE
        if self._in_string:
            return STRING
        return STRUCTURE if unit in "{}[]:," or unit.isspace() else SCALAR


def _decoded(unit: str) -> str:
    """The one character that `unit` writes."""
    if len(unit) == 1:
        return unit
    if len(unit) == 6 and _HEX.fullmatch(unit, 2):
        char = chr(int(unit[2:], 16))
        return "\ufffd" if "\ud800" <= char <= "\udfff" else char
    return _ESCAPES.get(unit[1:], unit[1:2]) or "\ufffd"
