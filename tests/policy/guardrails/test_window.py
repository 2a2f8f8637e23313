"""Texts that come in pieces: what leaves is what would have left of the whole, and never too late."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.policy.guardrails.config import GuardrailConfig
from parkway.policy.guardrails.guard import Guard
from parkway.policy.guardrails.guardrails import Guardrails
from parkway.policy.guardrails.window import SLICE, Window, apply

HOLD = 64  # tokens, and so at least as many characters: more than any of the samples has


def guard(*entries: dict[str, Any]) -> Guard:
    config = [GuardrailConfig.model_validate({"name": str(rank), **entry}) for rank, entry in enumerate(entries)]
    found = Guardrails(config).guard("output", "m", None)
    assert found is not None
    return found


PERSONAL = {"check": "personal_data", "action": "redact"}
SECRETS = {"check": "secrets", "action": "redact"}
TICKET = {"check": "pattern", "action": "redact", "options": {"patterns": {"TICKET": r"\bTCK-[0-9]{2,5}\b"}}}
ALL = guard(PERSONAL, SECRETS, TICKET)
BLOCKING = guard({**PERSONAL, "action": "block"})

SAMPLES = (
    "jane.doe@example.com", "a@b.example", "+49 30 901820", "(212) 555-0123", "4111 1111 1111 1111",
    "5500005555555559", "DE89 3704 0044 0532 0130 00", "GB29 NWBK 6016 1331 9268 19", "8.8.8.8", "2001:db8::8a2e:370",
    "536-22-1234", "TCK-123", "TCK-1", "password=Tr0ub4dor99x", "ghp_" + "a1B2" * 9, "call 2125550123",
    "AKIAIOSFODNN7EXAMPLE", "sk-ant-api03-abcdefgh12345678",
)  # fmt: skip
FILLERS = (
    "word", "in 2024", "3.14", "Anna", "x@y", "1,234", "10:30", "(see", "page 7)", "ümlaut", "日本語", "+1", "a-b",
    "DE12", "e.g.", "{}", "TCK-", "12", "1234", "the key is", "😀", "@", "::", "--", "NWBK",
)  # fmt: skip
SEPARATORS = (" ", "\n", ", ", ". ", "  ", "; ", "/", '"', "\t")


@st.composite
def texts(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.tuples(st.sampled_from(SAMPLES + FILLERS), st.sampled_from(SEPARATORS)), max_size=12))
    return "".join(word + separator for word, separator in parts)


@st.composite
def pieces(draw: st.DrawFn) -> list[str]:
    text = draw(texts())
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=len(text))))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def whole(rules: Guard, text: str) -> str:
    """The text as if it had come at once, by the plainest of means."""
    out, place = [], 0
    for start, end in merged(rules, text):
        out += [text[place:start], "#"]
        place = end
    return "".join([*out, text[place:]])


def merged(rules: Guard, text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for start, end in sorted((finding.start, finding.end) for _, finding in rules.find(text)):
        if spans and start < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


@settings(max_examples=100, deadline=None)
@given(texts(), st.sampled_from((ALL, BLOCKING)))
def test_what_passes_is_what_nothing_is_found_in(text: str, rules: Guard) -> None:
    result = apply(rules, text)
    assert rules.passes(text) is (not result.found and result.block is None)


@settings(max_examples=60, deadline=None)
@given(texts(), st.integers(1, 40))
def test_a_text_judged_as_a_whole_passes_only_if_it_is_let_go(text: str, max_words: int) -> None:
    rules = guard(SECRETS, {"check": "size", "action": "block", "options": {"max_words": max_words}})
    result = apply(rules, text)
    assert rules.passes(text) is (not result.found and result.block is None)


def unmarked(text: str) -> str:
    for kind in ("EMAIL", "PHONE", "CARD", "IBAN", "IP", "NATIONAL_ID", "TICKET", "SECRET", "GITHUB_TOKEN",
                 "AWS_ACCESS_KEY", "ANTHROPIC_KEY"):  # fmt: skip
        text = text.replace(f"[{kind}]", "#")
    return text


@given(pieces())
@settings(max_examples=120, deadline=None)
def test_what_leaves_is_what_would_have_left_of_the_whole(parts: list[str]) -> None:
    window = Window(ALL, Counter(), hold_tokens=HOLD)
    out = ""
    for part in parts:
        out += window.feed(part)
        assert window.held_tokens <= HOLD
    out += window.finish()
    text = "".join(parts)
    assert unmarked(out) == whole(ALL, text)
    assert apply(ALL, text).text == out


@given(pieces())
@settings(max_examples=120, deadline=None)
def test_what_is_blocked_ends_before_it(parts: list[str]) -> None:
    window = Window(BLOCKING, Counter(), hold_tokens=HOLD)
    out = "".join(window.feed(part) for part in parts) + window.finish()
    text = "".join(parts)
    spans = merged(BLOCKING, text)
    assert out == (text[: spans[0][0]] if spans else text)
    assert (window.block is not None) == bool(spans)
    assert (apply(BLOCKING, text).block is not None) == bool(spans)


@given(pieces(), st.integers(1, 40))
@settings(max_examples=120, deadline=None)
def test_the_hold_never_exceeds_its_bound_and_nothing_is_lost(parts: list[str], hold: int) -> None:
    text = "".join(parts)
    window = Window(guard({**TICKET, "options": {"patterns": {"NEVER": "\x00"}}}), Counter(), hold_tokens=hold)
    tight = Window(ALL, Counter(), hold_tokens=hold)
    out = ""
    for part in parts:
        out += window.feed(part)
        tight.feed(part)
        assert window.held_tokens <= hold
        assert tight.held_tokens <= hold
    tight.finish()
    assert tight.held_tokens == 0
    assert out + window.finish() == text


@st.composite
def documents(draw: st.DrawFn) -> Any:
    leaf = st.one_of(
        st.none(), st.booleans(), st.integers(-(10**18), 10**18), st.floats(allow_nan=False, allow_infinity=False),
        texts(), st.sampled_from([4111111111111111, 5500005555555559]),
    )  # fmt: skip
    return draw(st.recursive(leaf, more_of, max_leaves=6))


def more_of(some: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(some, max_size=4), st.dictionaries(texts(), some, max_size=4))


@given(documents(), st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_json_stays_json_and_keeps_its_shape(document: Any, ascii_only: bool, data: st.DataObject) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only)
    size = data.draw(st.integers(1, 9))
    window = Window(ALL, Counter(), json=True, hold_tokens=HOLD)
    out = "".join(window.feed(text[at : at + size]) for at in range(0, len(text), size)) + window.finish()
    read = json.loads(out)
    assert shape(read) == shape(document) or "[" in out


def shape(value: Any) -> Any:
    if isinstance(value, list):
        return [shape(each) for each in value]
    if isinstance(value, dict):
        return [shape(each) for each in value.values()]
    return None


@pytest.mark.parametrize("at", range(SLICE - 30, SLICE + 10, 3))
def test_a_long_text_is_looked_at_in_slices_and_nothing_falls_between(at: int) -> None:
    text = "x " * (at // 2) + "jane.doe@example.com and DE89 3704 0044 0532 0130 00 end" + " y" * 3000
    assert unmarked(apply(ALL, text).text) == whole(ALL, text)


def test_a_finding_longer_than_the_hold_is_left_out_to_its_end() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\n" + ("MIIE" * 16 + "\n") * 20 + "-----END RSA PRIVATE KEY-----"
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0" + "a1b2" * 200 + ".sig"
    for secret, mark in ((key, "[PRIVATE_KEY]"), (token, "[JWT]")):
        text = f"here: {secret} and more"
        for size in (1, 3, 7, 50, 4000):
            window = Window(ALL, Counter(), hold_tokens=40)
            out = "".join(window.feed(text[at : at + size]) for at in range(0, len(text), size)) + window.finish()
            assert out.endswith(f"{mark} and more"), (size, out[-80:])
            assert len(out) < 120
        assert apply(ALL, text).text == f"here: {mark} and more"
        as_json = json.dumps({"key": secret, "n": 1})
        window = Window(ALL, Counter(), json=True, hold_tokens=40)
        out = "".join(window.feed(char) for char in as_json) + window.finish()
        assert json.loads(out)["n"] == 1
        assert secret[60:] not in out


def test_findings_that_overlap_are_one_and_named_by_the_first() -> None:
    both = guard(
        {"check": "pattern", "action": "redact", "options": {"patterns": {"HOST": r"example\.com/x"}}}, PERSONAL
    )
    assert apply(both, "to jane@example.com/x now").text == "to [HOST] now"


def test_each_finding_is_counted_once() -> None:
    text = "a@b.example, c@d.example and 8.8.8.8 " * 3
    for size in (1, 4, 200):
        found: Counter[Any] = Counter()
        window = Window(ALL, found, hold_tokens=HOLD)
        for at in range(0, len(text), size):
            window.feed(text[at : at + size])
        window.finish()
        assert {kind: count for (_, kind), count in found.items()} == {"email": 6, "ip": 3}


@pytest.mark.parametrize(
    ("options", "text", "released"),
    [
        ({"max_chars": 7}, "one two three", "one two"),
        ({"max_words": 2}, "one two three", "one two "),
        ({"max_lines": 2}, "a\nb\nc\nd", "a\nb"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_size_ends_a_text_at_its_limit(options: dict[str, int], text: str, released: str, size: int) -> None:
    window = Window(guard({"check": "size", "action": "block", "options": options}), Counter())
    out = "".join(window.feed(text[at : at + size]) for at in range(0, len(text), size)) + window.finish()
    assert out == released
    assert window.block is not None


def test_a_language_that_is_not_allowed_ends_a_stream() -> None:
    window = Window(guard({"check": "language", "action": "block", "options": {"allow": ["en"]}}), Counter())
    german = "Das ist ein Satz, der nicht auf Englisch ist, und es wird noch mehr davon. " * 10
    out = "".join(window.feed(word + " ") for word in german.split())
    assert window.block is not None
    assert len(out) < len(german) / 2
