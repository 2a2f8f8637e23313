"""What a text is about, in words that can be compared: its words, its numbers, its names, whether it denies."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# Scripts that do not part words, or (Korean) not from their endings: Thai, Lao, Burmese, Khmer, kana, Han, Hangul.
_UNSPACED = (
    r"\u0e00-\u0e4f\u0e5a-\u0ecf\u0eda-\u0eff\u1000-\u103f\u1050-\u108f\u109a-\u109f\u1780-\u17d3"
    r"\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
)
# Accents, and vowels of Indian scripts: to Python they are no letters, and would take words apart.
_MARKS = r"\u0300-\u036f\u0900-\u0963\u0970-\u0dff"
_LETTERS = rf"[^\W{_UNSPACED}]"
_TOKEN = re.compile(rf"\d+(?:[.,]\d+)*|[{_UNSPACED}]+|{_LETTERS}+(?:[{_MARKS}]+{_LETTERS}*)*")
_HAS_NO_WORDS = re.compile(rf"[{_UNSPACED}]")
_NOT_COMPARED = re.compile(r"[\u00ad\u0591-\u05c7\u0640\u064b-\u065f\u0670\u200b-\u200f\u2060-\u2064\ufeff]")
"""Vowels that Hebrew and Arabic may leave out; what stretches, joins or parts letters; hyphens where a line may end."""
_THOUSANDS = re.compile(r"\d{1,3}([.,]\d{3})+")

_STEM_CHARS = 6
"""What is left of a word: the rest of it is grammar more often than meaning, in many languages."""

_MIN_CHARS = 3
_NOUNS_SHARE = 0.4
"""Where more words than this begin with a capital inside of sentences, capitals are grammar (German), not names."""

# English, German, French, Spanish, Italian, Dutch.
_SAYS_NOTHING_WORDS = (
    "yes oui sí ja nein many much the and for are was were been being has have had does did will would can could "
    "should may might must shall that this these those there their they them his her its our your you she with "
    "from into onto over under about than then when where which what who whom whose why how also only just more "
    "most some any all each such but not nor der die das den dem des ein eine einen einem einer und oder ist sind "
    "war waren wird werden wurde hat haben kann mit von vom zum zur aus auf bei nach über unter auch nur wie was "
    "wer wann warum welche welcher dass sich les des une est sont était dans pour par sur avec que qui quoi dont "
    "aux ces cette cet plus elle ils nous vous los las una del por para con como qué cuál son está más sus este "
    "esta gli della delle del che per con sono come più nel alla questo questa het een van met voor zijn deze dit "
    "die naar ook wat hoe welke"
)
_SAYS_NOTHING = frozenset(_SAYS_NOTHING_WORDS.split())

_DENIES_WORDS = (
    "not no never none neither nor nothing nobody cannot cant dont doesnt didnt isnt arent wasnt werent wont "
    "without nicht kein keine keinen keiner nie niemals ne pas jamais aucun aucune sin nunca ninguno non mai "
    "nessuno niet geen"
)
_DENIES = frozenset(_DENIES_WORDS.split())

_NUMBER_WORDS = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
}  # fmt: skip
_SOMETIMES_NUMBERS = {"one": "1", "hundred": "100", "thousand": "1000"}


@dataclass(frozen=True, slots=True)
class Content:
    """What a text says.

    Attributes:
        words: Stems of the words that mean something.
        numbers: Each with all that it can be read as: 1.000 is a thousand to some.
        names: Words that name something, as they are written but for capitals.
        denies: Whether there is a "not" in it.
    """

    words: frozenset[str]
    numbers: frozenset[frozenset[str]]
    names: frozenset[str]
    denies: bool


def content_of(text: str) -> Content:
    """What `text` says. Any language; names only where capitals tell them."""
    words: set[str] = set()
    numbers: set[frozenset[str]] = set()
    names: set[str] = set()
    denies = False
    begins, inner, capitals = True, 0, set[str]()
    text = spelled(text).replace("\u2019", "'").replace("n't", "nt")
    before = 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        gap = text[before : match.start()]
        begins = begins or (gap != " " and any(mark in gap for mark in '.!?:\n"“„«*#|(['))
        before = match.end()
        if token[0].isdigit() and not any(char.isalpha() for char in token):
            numbers.add(readings(token))
            begins = False
            continue
        folded = token.casefold()
        if folded in _DENIES:
            denies = True
        if folded in _NUMBER_WORDS:
            numbers.add(frozenset({_NUMBER_WORDS[folded]}))
            begins = False
            continue
        if _HAS_NO_WORDS.match(token):
            words |= _pairs(token)
            begins = False
            continue
        if len(folded) >= _MIN_CHARS and folded not in _SAYS_NOTHING and folded not in _DENIES:
            words.add(stem(folded))
        if (not token.isalpha() and any(map(str.isdigit, token))) or (len(token) > 1 and token.isupper()):
            names.add(folded)
        elif not begins:
            inner += 1
            if token[0].isupper() and len(token) > 1 and folded not in _SAYS_NOTHING:
                capitals.add(folded)
        begins = False
    if len(capitals) <= max(1.0, _NOUNS_SHARE * inner):
        names |= capitals
    return Content(frozenset(words), frozenset(numbers), frozenset(names), denies)


def spelled(text: str) -> str:
    """`text` as it is compared: equal letters are equal, and what may be missing is."""
    return text if text.isascii() else _NOT_COMPARED.sub("", unicodedata.normalize("NFKC", text))


def stem(word: str) -> str:
    """What is compared of a word that is folded already."""
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    return word[:_STEM_CHARS]


def readings(number: str) -> frozenset[str]:
    """All that a number as it is written can mean, without what does not count: 1,000 and 1000, 3.50 and 3.5."""
    found = set[str]()
    if not number.isascii():
        number = "".join(str(unicodedata.decimal(char, char)) for char in number)
    if _THOUSANDS.fullmatch(number):
        found.add(re.sub(r"[.,]", "", number))
    whole, mark, rest = number.replace(",", ".").rpartition(".")
    found.add(f"{whole}.{rest}".rstrip("0").rstrip(".") if mark and "." not in whole else number)
    return frozenset(found)


def numbers_in(content: Content) -> frozenset[str]:
    """Every reading of every number, those that are words among them."""
    spelled = {number for word, number in _SOMETIMES_NUMBERS.items() if stem(word) in content.words}
    return frozenset(spelled.union(*content.numbers))


def _pairs(token: str) -> set[str]:
    """Pairs of neighbours, for scripts that do not part words."""
    return {token[at : at + 2] for at in range(len(token) - 1)} or {token}
