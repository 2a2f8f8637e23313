"""Which encoding bytes are in: said by a mark or by the sender, or guessed."""

from __future__ import annotations

import codecs
import unicodedata
from functools import cache
from itertools import pairwise
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
_RIGHT_OF_UTF8 = 4  # so many times as many characters as what cannot be read: damaged UTF-8 rather than something else
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
    known = _known(said)
    if (switched := _switching(data, known)) is not None:
        return switched
    try:
        return Decoded(data.decode("utf-8"), "utf-8", False)
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.start > len(data) // 2:  # cut off within a character
            return Decoded(data.decode("utf-8", "replace"), "utf-8", True)
    if known is not None:
        text = data.decode(known, "replace")
        if text.count("�") <= len(text) * _BINARY_SHARE:
            return Decoded(text, known, False)
    return _damaged_utf8(data) or _guessed(data)


def _switching(data: bytes, known: str | None) -> Decoded | None:
    """Text in an encoding that is ASCII with signs after which it means something else: such text is UTF-8, too."""
    said = known is not None and (known.startswith("iso2022") or known in ("hz", "utf-7"))
    encoding = known if said else "iso2022_jp" if b"\x1b$B" in data or b"\x1b$@" in data else None
    if encoding is None:
        return None
    try:
        return Decoded(data.decode(encoding), encoding, not said)
    except UnicodeDecodeError:
        return None


def _damaged_utf8(data: bytes) -> Decoded | None:
    """UTF-8 in which a few bytes are wrong, as where files of several encodings were joined; None if it is none."""
    text = data.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    right = sum(character >= "\x80" for character in text) - wrong
    return Decoded(text, "utf-8", True) if right >= _RIGHT_OF_UTF8 * wrong else None


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
        # In other scripts few are zero. Read in pairs, English would be Chinese.
        few = zeros.count(0) > 0 and others == 0 and not _utf8_with_zeros(sample)
        if few and _all_text(sample.decode(encoding, "replace")):
            return encoding
    return None


def _utf8_with_zeros(sample: bytes) -> bool:
    try:
        text = sample.replace(b"\0", b"").decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return not _BINARY.intersection(text.encode())


def _all_text(text: str) -> bool:
    """Whether there are nothing but characters that texts have, and hardly any scripts that texts do not mix."""
    kinds = [unicodedata.category(character) for character in text]
    if any(
        kind in ("Cn", "Co", "Cs") or (kind == "Cc" and ord(at) not in b"\t\n\r\f")
        for kind, at in zip(kinds, text, strict=True)
    ):
        return False
    letters = [_script(character) for character in text if character.isalpha()]
    return sum(a != b for a, b in pairwise(letters)) <= len(letters) // 4


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
    if high > max(20, latin) and sum(byte in _HEBREW for byte in sample) > 0.95 * high:
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
            wrong += before.isalpha() and _script(before) != _script(character)
        elif unicodedata.category(character) == "Mn":  # a vowel of Thai, Arabic or Hebrew
            wrong += not before.isalpha() and unicodedata.category(before) != "Mn"
        else:
            wrong += before.isalpha() and after.isalpha()
    return 1 - wrong / max(1, total)


@cache
def _script(character: str) -> str:
    """Of a letter, by the first word of its name; Chinese characters and Japanese letters stand side by side."""
    script = unicodedata.name(character, "").partition(" ")[0]
    return "CJK" if script in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "HALFWIDTH") else script


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
