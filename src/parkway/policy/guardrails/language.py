"""Language: by the script of the letters, and among those who share the Latin script by their commonest words.

A recogniser of a few lines, not a model: it says something only about texts that are long enough, and nothing where two
languages are close. The words are each language's most frequent function words that few others share.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from parkway.core.configuration import Section
from parkway.policy.guardrails.finding import Finding
from parkway.policy.guardrails.whole import GrowingText

_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "cs": "je jsem jsou není bylo který která když jako také nebo pro podle než však jejich ještě být",
        "da": "og det er ikke jeg der til på med af har den vil kan hvad også blev efter hvor fra mig dig",
        "de": "und der die das ist nicht ich ein eine mit für auf den dem zu auch wie wir sie sind wird oder aber bei",
        "en": "the and is of to in that it you for with are this was have not what how can be my your from which do",
        "es": "el los las que y en un una por con para es no se del al lo como más pero sus este cómo qué está son",
        "fi": "ja on ei se että hän mutta ovat olen oli myös kuin niin mitä tämä kun voi joka minä sinä",
        "fr": "le les des et est un une que qui dans pour pas sur avec ce il je vous nous plus au mais sont être",
        "hu": "a az és nem hogy is egy van ez de meg csak már mint volt lesz vagy kell azt mert",
        "it": "il che di è non un una per con del della sono gli anche più come ma questo nel alla ho ci cosa si",
        "nl": "de het een en van is niet ik dat op te zijn met voor er maar ook aan door naar wat hoe je wordt heeft",
        "no": "og det er ikke jeg til på med som av har den vil kan hva også ble etter hvor fra meg deg fordi noen",
        "pl": "nie się jest na że to do jak ale czy są przez dla tak być od już oraz który może po co",
        "pt": "que não uma um para com os as do da em por mais como mas ao são foi está você isso seu sua eu também",
        "ro": "și este nu că pe cu la din pentru sunt mai ce care fi dar sau acest cum fost prin",
        "sv": "och det är att en som inte jag på med av för har den till om kan vad också var efter hur från mig dig",
        "tr": "ve bir bu için ile de da çok ne var değil daha olarak gibi ama kadar sonra nasıl olan ben",
    }.items()
}

# A letter of each script, and the languages that are written in it. Blocks: Unicode 15.
_SCRIPTS: dict[str, tuple[str, str]] = {
    "ja": ("\u3040-\u30ff", "Hiragana and Katakana"),
    "ko": ("\uac00-\ud7af\u1100-\u11ff", "Hangul"),
    "zh": ("\u4e00-\u9fff\u3400-\u4dbf", "Han"),
    "ru": ("\u0400-\u04ff", "Cyrillic, whichever language"),
    "ar": ("\u0600-\u06ff\u0750-\u077f", "Arabic, whichever language"),
    "he": ("\u0590-\u05ff", "Hebrew"),
    "el": ("\u0370-\u03ff", "Greek"),
    "hi": ("\u0900-\u097f", "Devanagari, whichever language"),
    "th": ("\u0e00-\u0e7f", "Thai"),
}
_IN_SCRIPT = {language: re.compile(f"[{letters}]") for language, (letters, _) in _SCRIPTS.items()}
_LETTERS = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")

LANGUAGES = tuple(sorted({*_WORDS, *_SCRIPTS}))

Language = Annotated[
    Literal[
        "ar", "cs", "da", "de", "el", "en", "es", "fi", "fr", "he", "hi", "hu", "it", "ja", "ko", "nl", "no", "pl",
        "pt", "ro", "ru", "sv", "th", "tr", "zh",
    ],
    BeforeValidator(lambda value: "no" if value is False else value),
]  # fmt: skip
"""A language by its code. (YAML reads a bare `no` as false.)"""


class LanguageOptions(Section):
    """Which languages may be spoken.

    Attributes:
        allow: Their codes.
        min_letters: Shorter texts pass: nobody can tell.
        unknown: What happens to a text whose language is none of those that are known.
    """

    allow: Annotated[list[Language], Field(min_length=1)]
    min_letters: PositiveInt = 40
    unknown: Literal["allow", "refuse"] = "allow"


_CHARS = 20_000
_MIN_SHARE, _LEAD = 0.08, 1.25


class Languages:
    """Finds texts in a language that is not allowed. The kind is `language`."""

    cost_ns = 120

    def __init__(self, options: LanguageOptions) -> None:
        self._options = options
        self._allow: frozenset[Any] = frozenset(options.allow)

    def find(self, text: str) -> list[Finding]:
        start = text[:_CHARS]
        if sum(len(word) for word in _LETTERS.findall(start)) < self._options.min_letters:
            return []
        language = language_of(start, likely=self._allow)
        refused = self._options.unknown == "refuse" if language is None else language not in self._allow
        return [Finding(0, len(text), "language")] if refused else []

    def meter(self) -> GrowingText:
        return GrowingText(self.find)


def language_of(text: str, likely: frozenset[str] = frozenset()) -> str | None:
    """The language that most of `text` is in, as far as that can be told; among near ones, one of `likely`."""
    letters = sum(len(word) for word in _LETTERS.findall(text))
    latin = len(_LATIN.findall(text))
    if not text.isascii():
        counts = {language: len(pattern.findall(text)) for language, pattern in _IN_SCRIPT.items()}
        if counts["ja"] * 8 > counts["zh"] > 0:  # Japanese is written in Han letters, too, Chinese never in Kana
            counts["ja"] += counts.pop("zh")
        most = max(counts, key=lambda language: counts[language])
        # Signs that stand for a word or a syllable weigh more than letters.
        if counts[most] * (2 if most in ("zh", "ja", "ko") else 1) > latin and counts[most] * 3 > letters - latin:
            return most
    if latin * 2 < letters:
        return None
    words = [word.lower() for word in _LETTERS.findall(text)]
    scores = sorted(
        ((sum(word in known for word in words), language in likely, language) for language, known in _WORDS.items()),
        reverse=True,
    )
    best, _, language = scores[0]
    if best < max(3, _MIN_SHARE * len(words)):
        return None
    near = [other for score, _, other in scores if score * _LEAD >= best]
    return next((other for other in near if other in likely), language)
