"""Answers without a model: what can be quoted, what of it is, and how it stands in the answer."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parkway.aggregate.grounding.excerpt import MAX_BLOCK_CHARS, MAX_CHARS, excerpts
from parkway.aggregate.grounding.passage import Passage, select
from parkway.aggregate.grounding.quotation import link, quote
from parkway.core.knowledge import Hit, Scores

TABLE = "| key | default |\n|---|---|\n| `depth` | 50 |\n| `budget_ms` | 20 |"
ROWS = "cash | 2011 | 2010\nnet | 12 | 14"
CODE = "```yaml\nlimits:\n\n  tokens: 100\n```"
INDENTED = "    parkway up\n    parkway ps --all"
COMMAND = "    parkway up"
LIST = "- Keys expire after\n  ninety days.\n- Tokens expire after an hour.\n- Nothing else expires"
NUMBERED = "1. Stop it.\n2. Make a key, as administrators do:\n   ```\n   parkway keys create\n   ```"
WRAPPED = "A key may send 100 requests\na second. What is more is refused\nwith status 429"
BLANK = "```\n\nparkway up\n```"
BLOCKS = (TABLE, ROWS, CODE, INDENTED, COMMAND, BLANK)

blocks = st.sampled_from(
    [*BLOCKS, LIST, NUMBERED, WRAPPED, "# Keys", "Keys\n----", "Who makes keys?", "In short:", "x" * 1500]
)
documents = st.lists(blocks, max_size=8)
texts = documents.map("\n\n".join) | st.text(alphabet="ab .?:|-#`~\n\t1)。“”", max_size=300) | st.text(max_size=300)


def passages_of(*texts: str) -> list[Passage]:
    """Each of a document of its own, as if found at 7 of it."""
    return [
        Passage(
            number,
            Hit(
                passage_id=f"p{number}", document_id=f"d{number}", collection="c", text=text, title=f"T{number}",
                start=7, end=7 + len(text), scores=Scores(),
            ),
            text,
        )
        for number, text in enumerate(texts, 1)
    ]  # fmt: skip


def quoted_of(text: str) -> list[str]:
    return [text[each.start : each.end] for each in excerpts(text)]


@given(texts)
@example("`" * 3 + "\n" + TABLE)
@example("- " + "a " * 500)
def test_excerpts_are_in_order_and_bounded(text: str) -> None:
    end = 0
    for each in excerpts(text):
        part = text[each.start : each.end]
        assert end <= each.start < each.end
        assert part == (part.rstrip() if each.block else part.strip())
        assert len(part) <= (MAX_BLOCK_CHARS if each.block else MAX_CHARS)
        assert 0 <= each.mark < len(part)
        end = each.end


@given(documents)
def test_tables_and_code_are_quoted_whole_or_not_at_all(parts: list[str]) -> None:
    text, start = "\n\n".join(parts), 0
    found = list(excerpts(text))
    for part in parts:
        end = start + len(part)
        if part in BLOCKS:
            assert [each for each in found if each.start < end and start < each.end] == [(start, end, True, 0)]
        start = end + 2


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (WRAPPED, ["A key may send 100 requests\na second.", "What is more is refused\nwith status 429"]),
        (f"Keys\n----\n\n{LIST}",
         ["- Keys expire after\n  ninety days.", "- Tokens expire after an hour.", "- Nothing else expires"]),
        (NUMBERED, ["1. Stop it.", NUMBERED[12:]]),
        ("## Limits ##\nThey hold for keys.", ["They hold for keys."]),
        ("Limits of keys\n\nThey hold for keys.", ["They hold for keys."]),
        ("= = Plot = = \n The game begins . It ends .", ["The game begins .", "It ends ."]),
        # Lines that end as sentences do are wrapped by nobody; indented prose is no code.
        ("One thing:\nand another\nstill the same", ["One thing:", "and another\nstill the same"]),
        ("    This is prose,\n    indented.", ["This is prose,\n    indented."]),
        # Of code that is cut nothing is quoted, whichever end is missing.
        ("Do this.\n\n```\nparkway up", ["Do this."]),
        ("parkway up\n```\n\nThat is all.", ["That is all."]),
        (f"```\n{'x' * MAX_BLOCK_CHARS}\n```", []),
        ("数据会过期。密钥不会。", ["数据会过期。", "密钥不会。"]),
    ],
)  # fmt: skip
def test_what_can_be_quoted(text: str, parts: list[str]) -> None:
    assert quoted_of(text) == parts


def test_a_sentence_without_an_end_is_quoted_in_pieces() -> None:
    text = "- " + "word " * 300
    parts = quoted_of(text)
    assert len(parts) == 3
    assert " ".join(parts) == text.rstrip()
    assert [len(part) for part in quoted_of("x" * 1500)] == [MAX_CHARS, MAX_CHARS, 300]


@given(
    st.lists(texts, min_size=1, max_size=4),
    st.text("ab kes?", max_size=20) | st.just("keys expire tokens"),
    st.integers(1, 5),
)
def test_quotations_are_word_for_word_and_cited(found: list[str], question: str, most: int) -> None:
    passages = select([(each.hit, each.text) for each in passages_of(*found)], 5000, 4)
    said = quote(passages, question, most)
    assert len(said.text) <= len(said.citations) * 20 + most * (MAX_BLOCK_CHARS + MAX_CHARS)
    assert bool(said.citations) == bool(passages)
    rest, end, sources = "", 0, list[str]()
    for each in said.citations:
        (passage,) = (passage for passage in passages if passage.number == each.number)
        assert said.text[each.marker_start : each.marker_end] == f"[{each.number}]"
        assert each.start is not None
        assert each.end is not None
        source = passage.text[each.start - 7 : each.end - 7]
        assert source.startswith(each.quote)
        sources.append(source)
        words = said.text[each.answer_start : each.answer_end]
        assert words in (source, f"“{source}”", each.title)
        rest += said.text[end : each.answer_start] + said.text[each.answer_end : each.marker_start]
        end = each.marker_end
    assert not (rest + said.text[end:]).strip()
    assert not any(one in other for at, one in enumerate(sources) for other in sources[:at] + sources[at + 1 :])
    # The parts of a passage stand together, in its order.
    numbers = [each.number for each in said.citations]
    assert len(set(numbers)) == sum(one != other for one, other in zip(numbers, [0, *numbers], strict=False))
    for one, other in zip(said.citations, said.citations[1:], strict=False):
        if one.number == other.number:
            assert (one.end or 0) <= (other.start or 0)


def said(question: str, *texts: str, most: int = 3) -> str:
    return quote(passages_of(*texts), question, most).text


def test_the_best_sentences_are_quoted() -> None:
    one = "Keys are made by administrators. A key may send 100 requests a second! What does a key do here?"
    two = "Bodies have at most 4 MiB, set by bounds.max_body_bytes. Nothing else matters here."
    assert said("How large may bodies be, in MiB?", one, two) == (
        "“Bodies have at most 4 MiB, set by bounds.max_body_bytes.” [2]"
    )
    assert said("What does a key do?", one, two, most=1) == "“Keys are made by administrators.” [1]"
    example = '```\nparkway ask "What does a key do?"\n```'
    assert said("What does a  key do?", one, example, most=1) == "“Keys are made by administrators.” [1]"
    assert said("A key may send?", one, most=1) == "“A key may send 100 requests a second!” [1]"
    assert said("zzz", one, two, most=1) == "“Keys are made by administrators.” [1]"


def test_as_many_are_quoted_as_are_nearly_as_good() -> None:
    one = "Keys expire after ninety days. Budgets are counted by the month. Expired keys are kept for a year."
    two = "When keys expire, their owner is told."
    assert said("When do keys expire?", one) == (
        "“Keys expire after ninety days.” [1]\n“Expired keys are kept for a year.” [1]"
    )
    assert said("When do keys expire?", one, two, most=2).count("”") == 2
    assert said("What is counted by the month?", one, two) == "“Budgets are counted by the month.” [1]"


def test_words_in_the_order_of_the_question_count() -> None:
    one = "A limit of keys is a rate. The key limit holds for a minute."
    assert said("What is the key limit?", one, most=1) == "“The key limit holds for a minute.” [1]"


def test_nothing_is_said_twice() -> None:
    one = "Keys expire after ninety days. They are kept."
    two = "After ninety days, keys expire. Nothing more."
    assert said("When do keys expire?", one, two) == "“Keys expire after ninety days.” [1]"
    denied = "Keys do not expire after ninety days."
    assert said("When do keys expire?", one, denied) == (
        "“Keys expire after ninety days.” [1]\n“Keys do not expire after ninety days.” [2]"
    )


def test_neighbours_are_quoted_together() -> None:
    one = (
        "Expired keys are kept. Keys expire after ninety days.\n\nBudgets do not.\n\nWho has keys that expire is told."
    )
    assert said("When do keys expire?", one) == (
        "“Expired keys are kept. Keys expire after ninety days.” [1]\n“Who has keys that expire is told.” [1]"
    )


def test_lists_tables_and_code_stand_in_lines_of_their_own() -> None:
    assert said("When do keys and tokens expire?", LIST) == f"{LIST.rsplit(chr(10), 1)[0]} [1]"
    assert said("When do tokens expire?", LIST, most=1) == "“Tokens expire after an hour.” [1]"
    assert said("Which depth and budget_ms are the default?", f"These hold.\n\n{TABLE}") == f"{TABLE}\n\n[1]"
    assert said("Which limits are there for tokens?", "Tokens have limits in the file.", CODE) == (
        f"{CODE}\n\n[2]\n\n“Tokens have limits in the file.” [1]"
    )


def test_what_leads_over_brings_what_it_leads_to() -> None:
    lead = "What expires when, in short:"
    assert said("In short, what expires when?", f"{lead}\n\n{LIST}\n\nThat is all.") == f"{lead}\n\n{LIST} [1]"
    assert said("In short, what expires when?", f"{lead}\n\n{CODE}\n\n{TABLE}") == f"{lead}\n\n{CODE}\n\n[1]"
    assert said("In short, what expires when?", f"{lead}\n\nNothing.") == f"“{lead}” [1]"


def test_what_is_brought_along_is_not_said_again() -> None:
    one, two = "Tokens expire after an hour.", f"When do tokens expire, in short:\n\n{LIST}\n\nNothing else."
    assert said("When do tokens expire, in short?", one, two) == f"{two.rsplit(chr(10), 2)[0]} [2]"


def test_where_nothing_can_be_quoted_it_says_where_to_read() -> None:
    assert said("x", f"```\n{'x' * MAX_BLOCK_CHARS}\n```", "Keys.") == "“Keys.” [2]"
    assert said("x", f"```\n{'x' * MAX_BLOCK_CHARS}\n```") == "T1 [1]"
    assert said("x", "4 MiB") == "“4 MiB” [1]"


def test_links_name_each_document_once() -> None:
    one, two = passages_of("a", "c")
    again = Passage(3, one.hit, "b")
    assert link([one, again, two]).text == "T1 [1]\nT2 [2]"
