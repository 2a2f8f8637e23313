"""Personal data: e-mail addresses, telephone numbers, cards, bank accounts, national numbers, IP addresses.

What has check digits or a numbering plan is held against them (python-stdnum, phonenumbers), so that an order number is
not taken for a card. Everything begins with a look for signs that no such thing can do without.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Literal

from pydantic import Field
from stdnum import iban, luhn

from parkway.core.configuration import Section
from parkway.policy.guardrails.check import last_word, rest_of_word
from parkway.policy.guardrails.finding import Finding
from parkway.policy.guardrails.national_number import COUNTRIES, Country, is_national_number
from parkway.policy.guardrails.telephone import Region, Telephones

Kind = Literal["email", "phone", "card", "iban", "national_id", "ip"]
KINDS: tuple[Kind, ...] = ("email", "phone", "card", "iban", "national_id", "ip")


class PersonalDataOptions(Section):
    """Which kinds are looked for.

    Attributes:
        kinds: By default all of them.
        regions: Countries whose telephone numbers are known also without `+` and country code.
        countries: Countries whose national numbers are known; all that there are rules for.
    """

    kinds: Annotated[list[Kind], Field(min_length=1)] = list(KINDS)
    regions: Annotated[list[Region], Field(max_length=16)] = ["US", "GB", "DE", "FR"]
    countries: list[Country] = list(COUNTRIES)


_LOCAL = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-"
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?:xn--[a-z0-9-]{2,20}|[^\W\d_]{2,24})(?![\w@])")
_DIGIT = re.compile(r"[0-9]")
# The first look: what none of the numbers below can do without. Patterns begin with a class, by which `re` skips what
# cannot be one; that nothing stands in front is looked at afterwards, because a look behind would take that away.
_SIGN = re.compile(
    r"[0-9](?:(?:[ \t().\-/\u00a0\u2011]{0,2}[0-9]){4}|[0-9]{0,2}\.[0-9]{1,3}\.[0-9]|[0-9][A-Z][0-9][0-9][A-Z])"
)
# Digits with at most two separators between two of them. Every step is forced, so that no text makes it slow.
_NUMBER = re.compile(r"[0-9](?:[ \t().\-/\u00a0\u2011]{0,2}[0-9]){6,24}(?!\w)")
# Shapes with letters in them: national numbers of some countries.
_MIXED = re.compile(r"[0-9][0-9]{5,16}[-+]?[0-9A-Z]{1,4}(?!\w)")
_CODICE = re.compile(r"[A-Z][A-Z]{5}[0-9]{2}[A-Z][0-9]{2}[A-Z][0-9]{3}[A-Z](?!\w)")
_IBAN = re.compile(r"[A-Z][A-Z][0-9][0-9](?:[ \u00a0]?[A-Z0-9]){11,30}(?!\w)")
_IPV4 = re.compile(r"[0-9][0-9]{0,2}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?!\w|\.[0-9])")
_IPV6 = re.compile(r"[0-9a-fA-F:][0-9a-fA-F:.]{2,45}(?![\w:])")
# Full-width letters and signs, and the digits of other scripts: one for one, so that places stay what they are.
_PLAIN = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},
    **{code: 0x30 + unicodedata.decimal(chr(code)) for code in range(0x80, 0x1FFFF) if chr(code).isdecimal()},
}
_VERSION = re.compile(r"(?:\bv|version|release|firmware|build|kernel|driver|section|chapter)\.?:? ?$", re.IGNORECASE)
_GROUP = re.compile(r"[0-9]+")
_CARD_START = re.compile(r"[0-9][0-9]{3,18}")
_ISSUER = re.compile(r"4|5[1-5]|2[2-7]|3[04-9]|6(?:011|5|4[4-9]|2)")  # ISO/IEC 7812
_CARD_SHAPES = (
    re.compile(r"[0-9]{13,19}(?!\w)"),
    re.compile(r"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}\1[0-9]{3}(?!\w)"),
    re.compile(r"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?!\w)"),
    re.compile(r"[0-9]{4}([ -])[0-9]{6}\1[0-9]{4,5}(?!\w)"),
)


class PersonalData:
    """Finds personal data, as `PersonalDataOptions` says."""

    cost_ns = 60

    def __init__(self, options: PersonalDataOptions) -> None:
        self._kinds = frozenset(options.kinds)
        self._countries = tuple(options.countries)
        self._telephones = Telephones(tuple(options.regions))

    def find(self, text: str) -> list[Finding]:
        found: list[Finding] = []
        if not text.isascii():
            text = text.translate(_PLAIN)
        if "@" in text and "email" in self._kinds:
            found.extend(_emails(text))
        if "ip" in self._kinds and ("::" in text or text.count(":") >= 7):
            found.extend(_ipv6(text))
        if _SIGN.search(text) is None:
            return found
        if "ip" in self._kinds and "." in text:
            found.extend(_ipv4(text))
        if "iban" in self._kinds:
            found.extend(_ibans(text))
        if "national_id" in self._kinds:
            for match in (*_MIXED.finditer(text), *_CODICE.finditer(text)):
                if _begins(text, match.start()) and is_national_number(match[0], text, match.start(), self._countries):
                    found.append(Finding(*match.span(), "national_id"))
        if "card" in self._kinds:
            found.extend(_cards(text))
        taken = [(each.start, each.end) for each in found]
        for match in _NUMBER.finditer(text):
            if not _begins(text, match.start()):
                continue
            for reading, (start, end) in enumerate(_readings(text, *match.span())):
                if any(start < there[1] and there[0] < end for there in taken):
                    continue
                kind = self._kind_of(text[start:end], text, start, alone=reading == 0)
                if kind is not None:
                    found.append(Finding(start, end, kind))
                    break
        return found

    def _kind_of(self, number: str, text: str, start: int, *, alone: bool) -> Kind | None:
        if "national_id" in self._kinds and is_national_number(number, text, start, self._countries):
            return "national_id"
        digits = "".join(char for char in number if char.isdigit())
        if "phone" in self._kinds and self._telephones.is_one(number, digits, text, start, alone=alone):
            return "phone"
        return None

    def unsettled(self, text: str) -> int:
        """The last word; in front of it words that may be groups of one number with it."""
        place = last_word(text, _LONGEST)
        lowest = max(0, len(text) - _LONGEST)
        while place > lowest:
            gap = place
            while gap > lowest and place - gap < 2 and text[gap - 1] in _GAPS:
                gap -= 1
            if gap == place or gap <= lowest:
                break
            word = last_word(text[lowest:gap], _LONGEST) + lowest
            if word == gap or not _may_be_group(text[word:gap]):
                break
            place = word
        return place

    def rest(self, kind: str, text: str) -> tuple[int, bool]:  # noqa: ARG002 - all kinds go on in the same way
        return rest_of_word(text)


_LONGEST = 128  # an e-mail address; a number in groups is shorter
_GAPS = " \t\u00a0"


def _may_be_group(word: str) -> bool:
    return _DIGIT.search(word) is not None or (len(word) <= 4 and (word.isupper() or word in "()/-.+"))


def _begins(text: str, start: int) -> bool:
    """Whether what is at `start` is not the rest of something longer."""
    before = text[start - 1] if start else " "
    return not (before.isalnum() or before in "_.")


def _emails(text: str) -> Iterator[Finding]:
    at = text.find("@")
    while at >= 0:
        before = text[max(0, at - 64) : at]
        local = before[len(before.rstrip(_LOCAL)) :].lstrip(".-")
        domain = _DOMAIN.match(text, at + 1)
        if local and domain is not None and not _in_url(before[: len(before) - len(local)]):
            yield Finding(at - len(local), domain.end(), "email")
        at = text.find("@", at + 1)


def _in_url(before: str) -> bool:
    """Whether what follows is the user of a URL, and no address."""
    scheme = before.rfind("://")
    return scheme >= 0 and not any(char.isspace() or char == "?" for char in before[scheme:])


def _ipv4(text: str) -> Iterator[Finding]:
    for match in _IPV4.finditer(text):
        if (
            _begins(text, match.start())
            and _is_address(match[0])
            and _VERSION.search(text, max(0, match.start() - 12), match.start()) is None
        ):
            yield Finding(*match.span(), "ip")


def _ipv6(text: str) -> Iterator[Finding]:
    for match in _IPV6.finditer(text):
        address = match[0].rstrip(".")
        if address.count(":") >= 2 and _begins(text, match.start()) and _DIGIT.search(address) and _is_address(address):
            yield Finding(match.start(), match.start() + len(address), "ip")


def _is_address(text: str) -> bool:
    """Whether it is an address that may be somebody's: not one that every machine has."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast or text.startswith("255."))


def _ibans(text: str) -> Iterator[Finding]:
    for match in _IBAN.finditer(text):
        if not _begins(text, match.start()):
            continue
        length = iban_length(match[0][:2])
        end, count = match.start(), 0
        while count < length and end < match.end():
            count += text[end] not in _GAPS
            end += 1
        if (
            count == length
            and (end == len(text) or not text[end].isalnum())
            and iban.is_valid(text[match.start() : end])
        ):
            yield Finding(match.start(), end, "iban")


@cache
def iban_length(country: str) -> int:
    """How many characters an account number of `country` has; 0 where there are none."""
    structure = iban._ibandb.info(country + "00")[0][1].get("bban", "")
    return sum(int(part) for part in re.findall(r"(\d+)!", structure)) + 4 if structure else 0


def _cards(text: str) -> Iterator[Finding]:
    """Payment cards: issuer, length, grouping and check digit are right. Other numbers may stand beside them."""
    last = 0
    for match in _CARD_START.finditer(text):
        start = match.start()
        if start < last or not _begins(text, start) or _ISSUER.match(text, start) is None:
            continue
        for shape in _CARD_SHAPES:
            card = shape.match(text, start)
            if card is None:
                continue
            digits = card[0].replace(" ", "").replace("-", "")
            if len(set(digits)) > 1 and luhn.is_valid(digits):
                yield Finding(start, card.end(), "card")
                last = card.end()
                break


def _readings(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A run of digits in groups: the whole of it, or without the first or last groups, which may be other numbers."""
    groups = [(start + each.start(), start + each.end()) for each in _GROUP.finditer(text[start:end])]
    for first, last in ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0)):
        if first + last < len(groups):
            begin = groups[first][0]
            if first == 0 or text[begin - 1] == "(":
                while begin > 0 and groups[first][0] - begin < 2 and text[begin - 1] in "+(":
                    begin -= 1
            yield begin, groups[len(groups) - 1 - last][1]
