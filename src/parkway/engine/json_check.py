"""Whether a finished answer is valid JSON for a schema: the last word, by a validator that is no grammar engine."""

import json
import math
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from fractions import Fraction
from functools import lru_cache
from typing import Any

from jsonschema import FormatChecker
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend
from llguidance import LLMatcher, LLTokenizer
from referencing import Registry

from parkway.engine.number_format import INTEGERS


class JsonCheck:
    """Validates texts against one schema.

    Args:
        schema: its patterns are `portable`, its references point inside.
        dialect: jsonschema's validator class for it.
    """

    def __init__(self, schema: dict[str, Any], dialect: Any) -> None:
        # The empty registry keeps the validator from fetching anything.
        self._validator = extend(dialect, _KEYWORDS)(schema, registry=Registry(), format_checker=_FORMATS)

    def __call__(self, text: str) -> str | None:
        """Why `text` is not valid; None if it is."""
        try:
            value = json.loads(text, parse_constant=_reject_constant)
            error = best_match(self._validator.iter_errors(value))
        except RecursionError:
            return "it is nested too deeply to be validated"
        except ValueError as failure:
            return f"it is not JSON: {failure}"
        return None if error is None else f"{error.json_path}: {error.message[:300]}"


@lru_cache(maxsize=1)
def byte_tokenizer() -> LLTokenizer:
    """One token a byte: for matching text without a model."""
    return LLTokenizer("byte")


def matches(source: str, text: str) -> bool:
    """The whole of `text` follows a grammar of llguidance, byte by byte."""
    tokens = list(text.encode())
    matcher = LLMatcher(byte_tokenizer(), source, log_level=0)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def found_in(pattern: str, text: str) -> bool:
    """`pattern` matches in `text`. In linear time: Python's `re` could be made to take for ever."""
    schema = {"type": "string", "pattern": pattern}
    return matches(json.dumps({"grammars": [{"json_schema": schema}]}), json.dumps(text, ensure_ascii=False))


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not found_in(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: dict[str, Any], instance: Any, _schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, schema in patterns.items():
        for name, value in instance.items():
            if found_in(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, additional: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    patterns = schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in schema.get("properties", {}) or any(found_in(pattern, name) for pattern in patterns):
            continue
        if additional is False:
            yield ValidationError(f"the property {name!r} is not allowed")
        else:
            yield from validator.descend(value, additional, path=name)


def _multiple_of(_validator: Any, step: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """Exact: by floats, 0.07 would be no multiple of 0.01."""
    if isinstance(instance, bool) or not isinstance(instance, int | float):
        return
    if not math.isfinite(instance) or Fraction(str(instance)) % Fraction(str(step)):
        yield ValidationError(f"{instance!r} is not a multiple of {step}")


_KEYWORDS = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "multipleOf": _multiple_of,
}


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _reads(parse: Callable[[str], object]) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return not isinstance(value, str) or parse(value) is not None

    return check


def _is_between(low: int, high: int) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return low <= value <= high and value == int(value)

    return check


def _format_checker() -> FormatChecker:
    """What the standard library can tell; a URI and a duration rest on the grammar alone."""
    checker = FormatChecker(formats=("email", "ipv4", "ipv6", "uuid"))
    checker.checks("date", raises=ValueError)(_reads(date.fromisoformat))
    checker.checks("time", raises=ValueError)(_reads(time.fromisoformat))
    checker.checks("date-time", raises=ValueError)(_reads(datetime.fromisoformat))
    checker.checks("hostname")(lambda value: not isinstance(value, str) or len(value) <= 253)
    for name, (low, high) in INTEGERS.items():
        checker.checks(name)(_is_between(low, high))
    return checker


_FORMATS = _format_checker()
