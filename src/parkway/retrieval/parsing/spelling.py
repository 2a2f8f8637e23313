"""The XML inside Office files, spelled so that kreuzberg 4.10 loses and adds nothing.

As it is spelled by Office, kreuzberg drops every `&amp;`, `&lt;` and other reference from a Word document, and the tabs
and hyphens that are elements there; it leaves the marks of bold type in the text of slides, and joins the paragraphs
of a cell of OpenDocument without a space.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable

_DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError, EOFError, ValueError)
_MOST = 100 << 20  # bytes of a part: kreuzberg refuses longer ones
_STAND_INS = {"amp": "\ufdd0", "lt": "\ufdd1", "gt": "\ufdd2", "quot": "\ufdd3", "apos": "\ufdd4"}
"""Characters that Unicode has for such purposes, and that no text contains."""
_END = "\ufdd5"  # of a paragraph: white space would not be kept there
_READ = str.maketrans({**dict(zip(_STAND_INS.values(), "&<>\"'", strict=True)), _END: " "})
_OF_MARKUP = {ord(character): _STAND_INS[name] for name, character in zip(_STAND_INS, "&<>\"'", strict=True)}

_REFERENCE = re.compile(r"&(?:#(\d{1,7})|#x([0-9A-Fa-f]{1,6})|(amp|lt|gt|quot|apos));")
_TAB = re.compile(r"<w:(?:tab\s*/|ptab\b[^>]*/)>")  # one of a paragraph's tab stops has attributes
_RETURN = re.compile(r"<w:cr\s*/>")
_HYPHEN = re.compile(r"<w:noBreakHyphen\s*/>")
_RUN = re.compile(r"<a:rPr\b[^>]*>")
_STYLE = re.compile(r"\s(?:b|i|u|strike)=(?:\"[^\"]*\"|'[^']*')")
_SPACES = re.compile(r"<text:s\b[^>]*/>")


def spelled(data: bytes, media_type: str) -> bytes:
    """The same file for kreuzberg; what it makes of that goes through `read_back`."""
    chosen = next((each for kind, each in _KINDS.items() if kind in media_type), None)
    if chosen is None:
        return data
    parts, spell = chosen
    changed: dict[str, str] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if not parts.fullmatch(entry.filename):
                continue
            if entry.file_size > _MOST:
                return data
            try:
                said = archive.read(entry).decode("utf-8")
            except _DAMAGED:
                return data  # kreuzberg says what is wrong with it
            if (told := spell(said)) != said:
                changed[entry.filename] = told
        return _packed(archive, changed) if changed else data


def read_back(text: str) -> str:
    """What kreuzberg tells, with the characters that others stood in for."""
    return text.translate(_READ)


def _packed(archive: zipfile.ZipFile, changed: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as target:
        for entry in archive.infolist():
            with contextlib.suppress(*_DAMAGED):  # a picture that is damaged does not matter
                content = changed.get(entry.filename)
                target.writestr(entry.filename, archive.read(entry) if content is None else content)
    return packed.getvalue()


def _word(xml: str) -> str:
    xml = _RETURN.sub("<w:br/>", _REFERENCE.sub(_character, xml))
    return _HYPHEN.sub("<w:t>\u2011</w:t>", _TAB.sub('<w:t xml:space="preserve">\t</w:t>', xml))


def _character(reference: re.Match[str]) -> str:
    decimal, hexadecimal, name = reference.groups()
    if name:
        return _STAND_INS[name]
    code = int(decimal or hexadecimal, 10 if decimal else 16)
    if code < 32 or 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        return "\n" if code in (10, 13) else " "
    return _OF_MARKUP.get(code, chr(code))


def _slide(xml: str) -> str:
    return _RUN.sub(lambda run: _STYLE.sub("", run.group()), xml)


def _open_document(xml: str) -> str:
    return _SPACES.sub(" ", xml).replace("</text:p>", f"{_END}</text:p>")


_KINDS: dict[str, tuple[re.Pattern[str], Callable[[str], str]]] = {
    "wordprocessingml": (re.compile(r"word/[^/]+\.xml|docProps/core\.xml"), _word),
    "presentationml": (re.compile(r"ppt/slides/[^/]+\.xml"), _slide),
    "opendocument": (re.compile(r"content\.xml"), _open_document),
}
