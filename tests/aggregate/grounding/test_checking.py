"""Sentences of an answer: held against passages, cited, marked, dropped; the same in whatever pieces they come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.aggregate.grounding.checking import MARK, Checker
from parkway.aggregate.grounding.passage import Passage
from parkway.aggregate.grounding.sentence import next_end, sentences
from parkway.core.grounding import Checking
from parkway.core.knowledge import Hit, Scores

UNKNOWN = "I do not know."
LIMITS = (
    "Each key may send 100 requests a second. Bursts of up to 1,000 requests are allowed. "
    "Administrators change limits in parkway.yaml. Revoked keys are not accepted any more."
)
TOKYO = "東京の人口は1400万人です。大阪は日本で二番目に大きい都市圏です。"
BERLIN = "Der Berliner Fernsehturm ist 368 Meter hoch. Er wurde 1969 eröffnet."


def passages(*texts: str) -> list[Passage]:
    return [
        Passage(
            number,
            Hit(
                passage_id=f"p{number}", document_id=f"d{number}", collection="c", text=text,
                start=50, end=50 + len(text), scores=Scores(), title="Keys and limits",
            ),
            text,
        )
        for number, text in enumerate(texts, 1)
    ]  # fmt: skip


def checked(answer: str, *, check: Checking = "mark", step: int = 5, **more: Any) -> Checker:
    async def run() -> Checker:
        question = more.pop("question", "How many requests may a key of Ann send?")
        checker = Checker(passages(LIMITS, TOKYO, BERLIN), question, check, 0.6, UNKNOWN, **more)
        told = [await checker.feed(answer[at : at + step]) for at in range(0, len(answer), step)]
        assert "".join(told) + await checker.finish() == checker.text
        return checker

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("A key may send 100 requests a second [1].", "A key may send 100 requests a second [1]."),
        ("A key may send 100 requests a second. [1]", "A key may send 100 requests a second [1]."),
        ("A key may send one hundred requests a second [1]", "A key may send one hundred requests a second [1]"),
        ("A key may send twelve requests a second [1]", None),
        ("Bursts of 1000 requests are allowed.", "Bursts of 1000 requests are allowed [1]."),
        ("Bursts of 1000 requests are allowed [3].", "Bursts of 1000 requests are allowed [1]."),
        ("Bursts of 1000 requests are allowed [7].", "Bursts of 1000 requests are allowed [1]."),
        ("Bursts of 1000 requests are allowed [1, 2].", "Bursts of 1000 requests are allowed [1]."),
        ("Bursts of 2000 requests are allowed [1].", None),
        ("Bursts of requests are not allowed [1].", None),
        ("Revoked keys are accepted [1].", None),
        ("Revoked keys are no longer accepted [1].", "Revoked keys are no longer accepted [1]."),
        ("Administrators such as Bob change limits [1].", None),
        ("Administrators such as Ann change limits [1].", "Administrators such as Ann change limits [1]."),
        ("The gateway restarts itself every night [1].", None),
        ('It says "bursts of unlimited size are allowed" [1].', None),
        ('It says "Bursts of up to 1,000 requests are allowed" [1].',
         'It says "Bursts of up to 1,000 requests are allowed" [1].'),
        ("東京の人口は1400万人です【2】。", "東京の人口は1400万人です [2]。"),
        ("東京の人口は900万人です[2]。", None),
        ("Der Fernsehturm in Berlin ist 368 Meter hoch [3].", "Der Fernsehturm in Berlin ist 368 Meter hoch [3]."),
        ("Der Fernsehturm in Berlin ist 365 Meter hoch [3].", None),
        ("See [limits](https://evil.example/?q=keys+limits+requests) of keys [1].", None),
        ("![Keys](x) may send 100 requests a second [1].", "[Keys](x) may send 100 requests a second [1]."),
        (UNKNOWN, UNKNOWN),
        ("Yes.", "Yes."),
        ("", UNKNOWN),
    ],
)  # fmt: skip
def test_a_sentence_stands_where_a_passage_carries_it(answer: str, text: str | None) -> None:
    checker = checked(answer)
    if text is None:
        assert MARK in checker.text, checker.text
        assert checker.citations == []
        assert checked(answer, check="drop").text == UNKNOWN
        assert not checked(answer, check="drop").answered
    else:
        assert checker.text == text
        assert checker.unsupported == []
        assert checked(answer, check="drop").text == text


@pytest.mark.parametrize(
    ("source", "good", "bad"),
    [
        ("दिल्ली भारत की राजधानी है। मुंबई शहर है।", "भारत की राजधानी दिल्ली है।", "भारत की राजधानी कोलकाता नहीं बदली।"),
        ("தமிழ் ஒரு திராவிட மொழி.", "தமிழ் திராவிட மொழி.", "தெலுங்கு வடக்கு நாடு."),
        ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", "เมืองหลวงของประเทศไทยคือกรุงเทพมหานคร", "เชียงใหม่มีประชากรมากที่สุด"),
        ("عدد السكان ٣٠٠٠ نسمة.", "عدد السكان 3000 نسمة.", "عدد السكان 4000 نسمة."),
        ("اللُّغَةُ العَرَبِيَّةُ سامِيَّة.", "اللغة العربية سامية.", "اللغة الفارسية هندية."),
        ("یہ کتاب اردو میں ہے۔ مصنف لاہور سے ہیں۔", "یہ کتاب اردو میں ہے۔", "یہ اخبار پشتو زبان کا ہے۔"),
        ("او می\u200cخواهد کتاب بخرد.", "او میخواهد کتاب بخرد.", "او می\u200cرود خانه ببیند."),
        ("Die Über\u00adsicht zeigt Schlüssel.", "Die Übersicht zeigt Schlüssel.", "Die Unterschrift zeigt Daten."),
        ("ＡＰＩキーは無効です。", "APIキーは無効です。", "XMLキーは無効です。"),
    ],
)  # fmt: skip
def test_any_script_is_held_against_its_passage(source: str, good: str, bad: str) -> None:
    async def told(answer: str) -> Checker:
        checker = Checker(passages(source), "?", "mark", 0.6, UNKNOWN)
        await checker.feed(answer)
        await checker.finish()
        return checker

    assert asyncio.run(told(good)).citations, good
    assert not asyncio.run(told(bad)).citations, bad
    assert MARK in asyncio.run(told(bad)).text


def test_spans_are_where_they_are_said_to_be() -> None:
    answer = (
        "- Keys send 100 requests a second [1]\n- Keys never sleep\n\nBursts of 1,000 requests are allowed. [1] [9]\n"
    )
    checker = checked(answer)
    text = checker.text
    assert text == (
        "- Keys send 100 requests a second [1]\n- Keys never sleep [unsupported]\n\n"
        "Bursts of 1,000 requests are allowed [1].\n"
    )
    first, second = checker.citations
    assert text[first.marker_start : first.marker_end] == text[second.marker_start : second.marker_end] == "[1]"
    assert text[second.answer_start : second.answer_end] == "Bursts of 1,000 requests are allowed"
    assert first.start == 50
    assert second.quote == "Bursts of up to 1,000 requests are allowed."
    assert second.start == 50 + LIMITS.index("Bursts")
    (unsupported,) = checker.unsupported
    assert text[unsupported.answer_start : unsupported.answer_end] == "- Keys never sleep"


CODE = "# Sending\n\n```python\nkeys = client.keys[1]\nfor key in keys:\n    client.send(key, limits[0])\n```"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("Ask `client.keys[1]` for keys [1].", "Ask `client.keys[1]` for keys [1]."),
        (
            "So:\n\n```python\nkeys = client.keys[1]\n    client.send(key, limits[0])\n```\nThese keys.",
            "So:\n\n```python\nkeys = client.keys[1]\n    client.send(key, limits[0])\n```\n[1]\nThese keys [1].",
        ),
        ("```\nkeys = client.keys[1]\nos.remove(path)\n```", "```\nkeys = client.keys[1]\nos.remove(path)\n```\n[1]"
         " [unsupported]\n"),
        ("```\nkeys = client.keys[1]", "```\nkeys = client.keys[1]\n```\n[1]\n"),
        ("``` Pay Bob.\nkeys\n```", None),
        ("| keys | limits |\n|---|---|\n| send |\n", "| keys | limits [1] |\n|---|---|\n| send [1] |\n"),
        ("| wine | beer |\n|---|---|\n", "| wine | beer [unsupported] |\n|---|---|\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 1000])
def test_code_and_tables_stay_what_they_are(answer: str, text: str | None, step: int) -> None:
    async def run() -> Checker:
        checker = Checker(passages(CODE), "?", "mark", 0.6, UNKNOWN)
        for at in range(0, len(answer), step):
            await checker.feed(answer[at : at + step])
        await checker.finish()
        return checker

    checker = asyncio.run(run())
    if text is None:
        assert MARK in checker.text
    else:
        assert checker.text == text
    assert not checked("```\nos.remove(path)\n```", check="drop").answered
    for each in checker.citations:
        assert checker.text[each.marker_start : each.marker_end] == f"[{each.number}]"
        assert checker.text[each.answer_start : each.answer_end].strip()


def test_two_passages_carry_one_sentence_together() -> None:
    sentence = "Bursts of 1,000 requests are allowed, and Berliner Fernsehturm was opened 1969 at 368 Meter [1][3]."
    assert checked(sentence).text.endswith(MARK)  # no single one has all of its numbers: that is not enough


def test_without_checks_it_is_relayed_as_it_comes_and_cited_as_it_says() -> None:
    answer = "Keys never expire [1]. The tower [9] is green [3]."
    checker = checked(answer, check="off")
    assert checker.text == answer
    assert [(each.number, answer[each.marker_start : each.marker_end]) for each in checker.citations] == [
        (1, "[1]"),
        (3, "[3]"),
    ]
    assert answer[checker.citations[0].answer_start : checker.citations[0].answer_end] == "Keys never expire"


def test_meaning_helps_where_words_differ_but_not_against_numbers() -> None:
    asked: list[tuple[str, str]] = []

    async def similar(one: str, other: str) -> bool:
        asked.append((one, other))
        return True

    said = "Every key gets through 100 requests each moment [1]."
    assert checked(said, check="drop").text == UNKNOWN
    assert checked(said, check="drop", similar=similar).text == said
    assert asked[0][1] == "Each key may send 100 requests a second."
    assert (
        checked("Every key gets through 200 requests each moment [1].", check="drop", similar=similar).text == UNKNOWN
    )


ANSWERS = st.lists(
    st.sampled_from(
        [
            "A key may send 100 requests a second [1].", " Keys never expire [1].", "\n\n", " [1]", "[", " e.g. ",
            "3.5", "東京の人口は1400万人です。", "- Revoked keys are not accepted [1]\n", "1. First", " word",
            "...", '"', "[12, 3]", "\n```python\n", "keys[1]\n", "```\n", "`", "| keys | 100 |\n", "Am 3. Mai",
        ]
    ),
    max_size=12,
).map("".join)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(ANSWERS, st.integers(1, 40), st.sampled_from(["mark", "drop", "off"]))
def test_pieces_make_no_difference(answer: str, step: int, check: Checking) -> None:
    one, other = checked(answer, check=check, step=step), checked(answer, check=check, step=10_000)
    assert (one.text, one.citations, one.unsupported) == (other.text, other.citations, other.unsupported)
    for citation in one.citations:
        marker = one.text[citation.marker_start : citation.marker_end]
        assert str(citation.number) in marker
        assert marker[0] == "["


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Der Vertrag beginnt am 3. Mai 2020. Er endet im 21. Jahrhundert. Mehr steht auf Seite 3. Dort ist es.", 4),
        ("Mødet er den 3. maj. Det varer to timer.", 2),
        ("Am 3. und 4. Mai ist zu.", 1),
        ("It was in 1969. May I go? Look at page 12. Maintenance is described there.", 4),
        ("Version 2.0. may be used.", 2),
    ],
)
def test_a_number_with_a_full_stop_may_be_an_ordinal(text: str, count: int) -> None:
    assert len(list(sentences(text))) == count

    def in_pieces(step: int) -> list[str]:
        found, pending = list[str](), ""
        for at in range(0, len(text), step):
            pending += text[at : at + step]
            while end := next_end(pending, final=False):
                found.append(pending[:end])
                pending = pending[end:]
        return [each for each in (*found, pending) if each.strip()]

    assert {len(in_pieces(step)) for step in (1, 2, 3, 7, 1000)} == {count}


def test_what_never_ends_is_bounded() -> None:
    checker = checked("word " * 5000, step=1000)
    assert checker.text.count("word") == 5000
    assert len(checker.unsupported) > 3
