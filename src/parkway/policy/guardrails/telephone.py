"""Telephone numbers, by the numbering plans of all countries (Google's libphonenumber, as `phonenumbers`)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated

import phonenumbers
from pydantic import AfterValidator

_CONTEXT = re.compile(
    r"\b(?:phone|telephone|tel|call|mobile|cell|fax|whatsapp|signal|sms|text|dial|reach|telefon|handy|mobil|ruf\w*|"
    r"téléphone|portable|appel\w*|teléfono|móvil|llam\w*)\b",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(?:19|20)\d\d[-./ ]\d{1,2}[-./ ]\d{1,2}(?:\D.*)?|\d{1,2}[-./]\d{1,2}[-./](?:19|20)\d\d(?:\D.*)?|"
    r"(?:19|20)\d\d ?[-/] ?(?:19|20)\d\d"
)
_PARTS = re.compile(r"\d+")


def _known(region: str) -> str:
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("not a country code of two capital letters, such as DE")
    return region


Region = Annotated[str, AfterValidator(_known)]


class Telephones:
    """Knows numbers with `+` or `00` and a country code, and those of `regions` as people write them at home."""

    def __init__(self, regions: tuple[str, ...]) -> None:
        self._regions = regions

    def is_one(self, number: str, digits: str, text: str, start: int, *, alone: bool) -> bool:
        """Whether `number`, of these digits, which stands at `start` in `text`, is a telephone number.

        Args:
            alone: No other digits stand beside it. If some do, groups alone say too little.
        """
        if not 7 <= len(digits) <= 15 or number.count("(") > 1 or number.count(")") != number.count("("):
            return False
        if number.lstrip("(").startswith("+"):
            return _is_valid(number, None)
        if number.startswith("00"):
            return _is_valid("+" + digits[2:], None)
        if _DATE.fullmatch(number):
            return False
        called = _CONTEXT.search(text, max(0, start - 40), start) is not None
        if not called and not (_looks_like_one(number) and (alone or number.startswith("("))):
            return False
        return any(_is_valid(number, region) for region in self._regions if called or _written_as_in(region, number))


def _looks_like_one(number: str) -> bool:
    """Without a word that says so, only what is written in the groups of telephone numbers counts."""
    groups = [len(part) for part in _PARTS.findall(number)]
    if number.startswith("(") or groups == [3, 3, 4]:
        return True
    return number.startswith("0") and len(groups) >= 2 and "." not in number[:3]


def _written_as_in(region: str, number: str) -> bool:
    home = not number.lstrip("(").startswith("0")
    return home if region in ("US", "CA") else not home


@lru_cache(maxsize=4096)  # a conversation says the same numbers again and again; to parse one takes 0.1 ms
def _is_valid(number: str, region: str | None) -> bool:
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    if region is None:
        return phonenumbers.is_valid_number(parsed)
    return phonenumbers.is_valid_number_for_region(parsed, region)
