"""Which encoding bytes are in: said by a mark or by the sender, or guessed."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from parkway.core.errors import Unreadable

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LATIN_SCRIPT = ("cp1252", "cp1250", "cp1254", "cp1257")
_OTHER_SCRIPTS = ("cp1251", "koi8_r", "cp866", "cp1253", "cp1255", "cp1256", "cp874")
_WELL_SPELT = 0.6
_HEBREW = range(0xE0, 0xFB)  # the letters alone; in other alphabets there are capitals and more beside these
_LATIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_SAMPLE = 64 * 1024
_EAST_ASIAN = (
    ("shift_jis", "cp932"),
    ("gb18030", "gb18030"),
    ("euc_jp", "euc_jp"),
    ("euc_kr", "cp949"),
    ("big5", "big5"),
)
_BINARY = frozenset(range(32)) - set(b"\t\n\r\f\x1b\x08")
_BINARY_SHARE = 0.01
_COMMON_HAN = frozenset("的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生")
"""The characters that Chinese text has most of, in mainland spelling."""
_COMMON_TRADITIONAL = frozenset("的一是不了人我在有他這為之大來以個中上們到說國和地也子時道出而要於就下得可你年生")


class Decoded(NamedTuple):
    """Text, and how it was found.

    Attributes:
        encoding: Python's name of it.
        guessed: Whether nothing but the bytes themselves speak for it.
    """

    text: str
    encoding: str
    guessed: bool


def decode(data: bytes, *, said: str = "") -> Decoded:
    """The text of bytes.

    Args:
        said: The encoding that the sender or the document itself names.

    Raises:
        Unreadable: They are no text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return Decoded(_decoded(data, encoding), encoding.removesuffix("-sig"), False)
    if (encoding := _utf16_without_mark(data)) is not None:
        return Decoded(_decoded(data, encoding), encoding, True)
    _refuse_binary(data)
    try:
        return Decoded(data.decode("utf-8"), "utf-8", False)
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.start > len(data) // 2:  # cut off within a character
            return Decoded(data.decode("utf-8", "replace"), "utf-8", True)
    known = _known(said)
    if known is not None:
        text = data.decode(known, "replace")
        if text.count("�") <= len(text) * _BINARY_SHARE:
            return Decoded(text, known, False)
    return _guessed(data)


def _known(name: str) -> str | None:
    """Python's name of an encoding of text; None if it has none by that name."""
    try:
        found = codecs.lookup(name.strip()).name
    except (LookupError, ValueError):
        return None
    is_text = getattr(codecs.lookup(found), "_is_text_encoding", True)
    return {"iso8859-1": "cp1252", "ascii": "cp1252", "shift_jis": "cp932"}.get(found, found) if is_text else None


def _decoded(data: bytes, encoding: str) -> str:
    text = data.decode(encoding, "replace")
    if text.count("�") > max(2, len(text) // 20):
        raise Unreadable(f"begins like {encoding} and goes on as something else")
    return text


def _utf16_without_mark(data: bytes) -> str | None:
    """UTF-16 gives itself away by zeros in every other byte, wherever there is Latin text, a space or a line end."""
    sample = data[: _SAMPLE & ~1]
    if len(sample) < 4 or b"\0" not in sample:
        return None
    for encoding, zeros in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[0::2])):
        others = sample.count(0) - zeros.count(0)
        if zeros.count(0) > len(zeros) * 0.2 and others == 0:
            return encoding
    return None


def _refuse_binary(data: bytes) -> None:
    sample = data[:_SAMPLE]
    if not sample:
        raise Unreadable("is empty")
    odd = sum(sample.count(byte) for byte in _BINARY)
    if odd > len(sample) * _BINARY_SHARE or (sample.count(0) > 0 and odd > 8):
        raise Unreadable("is not text and of no format that can be read")


def _guessed(data: bytes) -> Decoded:
    """Each East Asian encoding is tried for what its text would look like; what fits none is Western European.

    Guessers that go by statistics of bytes alone mistake short texts; here the characters themselves are judged.
    """
    best, name = 0.5, ""
    sample = _whole_lines(data[:_SAMPLE]) if len(data) > _SAMPLE else data
    for label, encoding in _EAST_ASIAN:
        try:
            text = sample.decode(encoding)
        except UnicodeDecodeError as error:
            if error.start < len(sample) - 4:
                continue
            text = sample[: error.start].decode(encoding)
        if (score := _plausible(text, label)) > best:
            best, name = score, encoding
    if name:
        return Decoded(data.decode(name, "replace"), name, True)
    return _guessed_single_byte(data, sample)


def _guessed_single_byte(data: bytes, sample: bytes) -> Decoded:
    high = sum(byte >= 0x80 for byte in sample)
    latin = sum(byte in _LATIN for byte in sample)
    candidates = _LATIN_SCRIPT if high <= latin else _OTHER_SCRIPTS
    if high > 20 and sum(byte in _HEBREW for byte in sample) > 0.95 * high:
        candidates = ("cp1255",)
    scores = {encoding: _well_spelt(sample.decode(encoding, "replace")) for encoding in candidates}
    encoding = max(scores, key=lambda name: scores[name])  # of equals the first
    if scores[encoding] < _WELL_SPELT:
        raise Unreadable("is not text, or in an encoding that is not recognised; save it as UTF-8")
    return Decoded(data.decode(encoding, "replace"), encoding, True)


def _well_spelt(text: str) -> float:
    """How much of what is not ASCII stands where it may in a word: letters, capitals only where words begin."""
    total = wrong = 0
    for before, character, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if character < "\x80":
            continue
        total += 1
        if character == "\ufffd" or character < "\xa0":
            wrong += 2
        elif character.isalpha():
            wrong += character.isupper() and before.islower()
        else:
            wrong += before.isalpha() and after.isalpha()
    return 1 - wrong / max(1, total)


def _plausible(text: str, label: str) -> float:
    """How much of what is not ASCII is what people write in the encoding's language; from 0 to 1, and a little more."""
    foreign = [character for character in text if character >= "\x80"]
    if not foreign:
        return 0.0
    kana = sum("ぁ" <= character <= "ヿ" for character in foreign)
    half = sum("｡" <= character <= "ﾟ" for character in foreign)
    hangul = sum("가" <= character <= "힣" for character in foreign)
    han = sum("一" <= character <= "鿿" for character in foreign)
    marks = sum(character in "、。，！？「」『』（）《》：；・ー　“”" for character in foreign)
    odd = len(foreign) - kana - half - hangul - han - marks
    if label in ("shift_jis", "euc_jp"):
        return (kana * 1.3 + min(han, 3 * kana) + marks - half * 0.5 - odd) / len(foreign) if kana else 0.0
    if label == "euc_kr":
        return (hangul * 1.2 + marks - odd - kana) / len(foreign) if hangul > han else 0.0
    common = _COMMON_HAN if label == "gb18030" else _COMMON_TRADITIONAL
    familiar = sum(character in common for character in foreign)
    return (min(han, 12 * familiar) + familiar + marks - odd - kana - hangul) / len(foreign)


def _whole_lines(sample: bytes) -> bytes:
    return sample[: sample.rfind(b"\n") + 1] or sample
