"""Numbers that states give to people, held against their check digits and dates (python-stdnum)."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Literal, get_args

Country = Literal[
    "AT", "BE", "BR", "CH", "CN", "DE", "DK", "ES", "FI", "FR", "GB", "IN", "IT", "NL", "NO", "PL", "SE", "US"
]
COUNTRIES: tuple[Country, ...] = get_args(Country)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a number is written.

    Attributes:
        module: Of python-stdnum; knows the check digits.
        strict: What it looks like where nothing around it says what it is: so seldom anything else that no word is
            needed. None: it needs the word.
        loose: What it may look like behind one of `words`.
    """

    module: str
    loose: str
    words: str
    strict: str | None = None


_FORMS: dict[Country, _Form] = {
    "AT": _Form("at.vnr", r"\d{4} ?\d{6}", r"svnr|sozialversicherung\w*|sv-nummer"),
    "BE": _Form(
        "be.nn", r"\d{11}", r"rijksregister\w*|registre national|national number|niss",
        r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d",
    ),
    "BR": _Form("br.cpf", r"\d{11}", r"cpf", r"\d{3}\.\d{3}\.\d{3}-\d\d"),
    "CH": _Form("ch.ssn", r"756\d{10}", r"ahv\w*|avs|ssn", r"756\.\d{4}\.\d{4}\.\d\d"),
    "CN": _Form("cn.ric", r"\d{17}[\dX]", r"id", r"\d{17}[\dX]"),
    "DE": _Form(
        "de.idnr", r"\d{11}|\d\d \d{3} \d{3} \d{3}", r"steuer-?id\w*|idnr|identifikationsnummer|tax id\w*|tin",
    ),
    "DK": _Form("dk.cpr", r"\d{6}-?\d{4}", r"cpr\w*|personnummer"),
    "ES": _Form("es.dni", r"\d{8}-?[A-Z]", r"dni|nif", r"\d{8}-?[A-Z]"),
    "FI": _Form("fi.hetu", r"\d{6}[-+A]\d{3}[0-9A-Y]", r"hetu|henkilötunnus", r"\d{6}[-+A]\d{3}[0-9A-Y]"),
    "FR": _Form(
        "fr.nir", r"[12]\d{14}", r"nir|sécurité sociale|insee|social security",
        r"[12] \d\d \d\d \d\d \d{3} \d{3} \d\d",
    ),
    "GB": _Form("gb.nhs", r"\d{10}|\d{3}[ -]\d{3}[ -]\d{4}", r"nhs\w*"),
    "IN": _Form("in_.aadhaar", r"\d{12}|\d{4}[ -]\d{4}[ -]\d{4}", r"aadhaa?r|uidai|uid"),
    "IT": _Form(
        "it.codicefiscale", r"[A-Z]{6}\d\d[A-Z]\d\d[A-Z]\d{3}[A-Z]", r"codice fiscale|cf",
        r"[A-Z]{6}\d\d[A-Z]\d\d[A-Z]\d{3}[A-Z]",
    ),
    "NL": _Form("nl.bsn", r"\d{9}|\d{4}\.\d\d\.\d{3}", r"bsn|burgerservicenummer|sofi\w*"),
    "NO": _Form("no.fodselsnummer", r"\d{6} ?\d{5}", r"fødselsnummer|fodselsnummer|personnummer"),
    "PL": _Form("pl.pesel", r"\d{11}", r"pesel"),
    "SE": _Form("se.personnummer", r"(?:\d\d)?\d{6}[-+]?\d{4}", r"personnummer|pnr"),
    "US": _Form(
        "us.ssn", r"\d{9}|\d{3}[- ]\d\d[- ]\d{4}", r"ssn|social security|social", r"\d{3}-\d\d-\d{4}",
    ),
}  # fmt: skip

_WORD_REACH = 40


def is_national_number(number: str, text: str, start: int, countries: tuple[Country, ...]) -> bool:
    """Whether `number`, which stands at `start` in `text`, is one of a person of one of the countries."""
    if _any_form(countries).fullmatch(number) is None:
        return False
    for country in countries:
        loose, strict, words = _compiled(country)
        if loose.fullmatch(number) is None and (strict is None or strict.fullmatch(number) is None):
            continue
        sure = strict is not None and strict.fullmatch(number) is not None
        if (sure or words.search(text, max(0, start - _WORD_REACH), start)) and _module(country).is_valid(number):
            return True
    return False


@cache
def _any_form(countries: tuple[Country, ...]) -> re.Pattern[str]:
    forms = [form for country in countries for form in (_FORMS[country].loose, _FORMS[country].strict) if form]
    return re.compile("|".join(forms))


@cache
def _compiled(country: Country) -> tuple[re.Pattern[str], re.Pattern[str] | None, re.Pattern[str]]:
    form = _FORMS[country]
    strict = re.compile(form.strict) if form.strict else None
    return re.compile(form.loose), strict, re.compile(rf"\b(?:{form.words})\b", re.IGNORECASE)


@cache
def _module(country: Country) -> ModuleType:
    return importlib.import_module(f"stdnum.{_FORMS[country].module}")
