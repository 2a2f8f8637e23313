"""What every chunker promises, and what each does."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.core.errors import ChunkTooLong, ConfigurationError
from parkway.retrieval.chunking.chunker import Chunker, chunker
from parkway.retrieval.chunking.config import ChunkingConfig, Method
from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.chunking.grapheme import boundary
from parkway.retrieval.chunking.sentence import sentences, words
from parkway.retrieval.document import Block, Chunk, Parsed, searched_text
from parkway.retrieval.parsing.data import read_csv
from parkway.retrieval.parsing.markdown import read_markdown
from parkway.retrieval.parsing.plain import read_plain
from parkway.retrieval.parsing.source import read_source
from tests.retrieval.chunking.encoders import by_bytes, minilm

METHODS: tuple[Method, ...] = ("structure", "semantic", "fixed", "overlapping")


def embed(texts: list[str]) -> np.ndarray:
    """Vectors of letters: texts of the same letters are alike."""
    vectors = np.zeros((len(texts), 64), dtype=np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for character in text:
            row[ord(character) % 64] += 1
        row /= max(1e-9, float(np.linalg.norm(row)))
    return vectors


def made(method: Method, encoder: Encoder, limit: int, target: int | None = None) -> Chunker:
    return chunker(ChunkingConfig(method=method, max_tokens=limit, target_tokens=target), encoder, embed)


def check(parsed: Parsed, chunks: list[Chunk], encoder: Encoder, limit: int, method: Method) -> None:
    text = parsed.text
    covered = 0
    for before, chunk in zip([None, *chunks], chunks, strict=False):
        assert 0 <= chunk.start < chunk.end <= len(text)
        assert not text[covered : chunk.start].strip()
        if before is not None:
            assert before.start < chunk.start
            assert before.end < chunk.end
            assert method == "overlapping" or before.end <= chunk.start
        covered = max(covered, chunk.end)
        assert chunk.tokens == encoder.count([searched_text(chunk.headings, text[chunk.start : chunk.end])])[0] <= limit
        assert not text[chunk.start].isspace()
        assert not text[chunk.end - 1].isspace()
    assert not text[covered:].strip()


def words_of(parsed: Parsed, chunks: list[Chunk]) -> list[str]:
    return [parsed.text[chunk.start : chunk.end] for chunk in chunks]


PIECES = st.sampled_from(
    [
        "word",
        "Longer",
        ". ",
        "! ",
        " ",
        "\n",
        "\n\n",
        "\n# Head\n",
        "\n## Sub\n",
        "- item\n",
        "| a | b |\n",
        "|---|---|\n",
        "```\n",
        "def f():\n",
        "    x = 1\n",
        "字字。",
        "ひらがな",
        "한국어",
        "e\u0301\u0302",
        "👩‍👩‍👧",
        "🇩🇪🇫🇷",
        "👍🏽",
        "क्षि",
        "\t",
        "0",
        "x" * 70,
        "各國ガ",
        "ﾊﾞ",
        "ำ",
        "a" * 200,
        "=" * 30,
        " " * 200,
    ]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(PIECES, max_size=60).map("".join), st.sampled_from(METHODS), st.integers(40, 120))
def test_chunks_come_in_order_hold_everything_and_are_never_too_long(text: str, method: Method, limit: int) -> None:
    for encoder in (by_bytes(limit), minilm(limit)):
        for parsed in (read_markdown(text), read_plain(text)):
            chunks = made(method, encoder, limit, 32)(parsed)
            check(parsed, chunks, encoder, limit, method)
            assert chunks == made(method, encoder, limit, 32)(parsed)
            edges = {0, *(match.end() for match in regex.finditer(r"\X", text))}
            for chunk in chunks:
                assert chunk.start in edges or text[chunk.start - 1].isspace()  # an accent on a blank
                assert chunk.end in edges or text[chunk.end].isspace()


@settings(deadline=None, max_examples=100)
@given(st.text(min_size=2, max_size=30) | st.lists(PIECES, max_size=4).map("".join))
def test_a_boundary_is_one_by_unicodes_own_rules(text: str) -> None:
    edges = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    assert {index for index in range(len(text) + 1) if boundary(text, index)} <= edges


def test_a_letter_with_a_thousand_accents_is_cut_only_because_it_must_be() -> None:
    encoder = by_bytes(60)
    parsed = read_plain("a" + "\u0301" * 1000 + " b")
    for method in METHODS:
        check(parsed, made(method, encoder, 60, 32)(parsed), encoder, 60, method)


def test_a_row_of_flags_takes_no_square_of_its_length() -> None:
    looked = 0

    class Counting(str):
        def __getitem__(self, index: Any) -> str:  # type: ignore[override]
            nonlocal looked
            looked += 1
            return super().__getitem__(index)

    flags = Counting("🇩🇪" * 20_000)
    assert sum(end - start for start, end in words(flags, 0, len(flags))) == len(flags)
    assert looked < 20 * len(flags)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_comes_of_nothing(method: Method) -> None:
    assert made(method, minilm(), 128)(Parsed("", ())) == []
    assert made(method, minilm(), 128)(Parsed(" \n ", ())) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_line_without_an_end(method: Method) -> None:
    encoder = minilm()
    for text in (
        "x" * 100_000,
        "!" * 100_000,
        "\n\n\u200b" * 20_000,
        "a b" + "\t" * 100_000 + ".",
        "a" + " " * 100_000 + "b",
        "字" * 10_000,
    ):
        parsed = read_plain(text)
        chunks = made(method, encoder, 256)(parsed)
        check(parsed, chunks, encoder, 256, method)
        assert max(chunk.end - chunk.start for chunk in chunks) <= 256 * 64


def test_a_chunk_longer_than_the_encoder_reads_cannot_be_configured() -> None:
    for config in (ChunkingConfig(method="overlapping"), ChunkingConfig(max_tokens=257)):
        with pytest.raises(ChunkTooLong, match=rf"up to {config.limit} tokens .* reads 256"):
            chunker(config, minilm())
    chunker(ChunkingConfig(method="overlapping"), minilm(512))
    with pytest.raises(ConfigurationError, match="target"):
        chunker(ChunkingConfig(target_tokens=200, max_tokens=128), minilm())
    with pytest.raises(ConfigurationError, match="encoder of sentences"):
        chunker(ChunkingConfig(method="semantic"), minilm())


def test_the_fingerprint_changes_with_what_changes_the_cuts() -> None:
    told = [
        ChunkingConfig(),
        ChunkingConfig(method="fixed"),
        ChunkingConfig(method="overlapping"),
        ChunkingConfig(method="overlapping", overlap=0.2),
        ChunkingConfig(target_tokens=100),
        ChunkingConfig(max_tokens=200),
    ]
    assert len({config.fingerprint for config in told}) == len(told)
    assert ChunkingConfig(overlap=0.3).fingerprint == ChunkingConfig().fingerprint


GUIDE = """# Guide

## Install

Run the command. It takes a minute.

```sh
pip install parkway
```

## Use

### First steps

{words}

### More

- One thing.
- Another.
"""


def test_structure_follows_headings_and_names_them() -> None:
    parsed = read_markdown(GUIDE.format(words="It is said so. " * 60))
    chunks = made("structure", minilm(), 128, 64)(parsed)
    check(parsed, chunks, minilm(), 128, "structure")
    texts = words_of(parsed, chunks)
    assert texts[0].startswith("# Guide\n\n## Install\n\nRun the command.")
    assert chunks[0].headings == ()
    inside = [chunk for chunk in chunks if parsed.text[chunk.start :].startswith("It is said so.")]
    assert inside
    assert {chunk.headings for chunk in inside} == {("Guide", "Use", "First steps")}
    last = chunks[-1]
    assert parsed.text[last.start : last.end].endswith("### More\n\n- One thing.\n- Another.")
    for text in texts:
        assert not text.endswith(("Install", "Use", "steps", "More"))  # a heading stays with what it is of


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("# C# and F#", "C# and F#"),
        ("## Use ##", "Use"),
        ("Sub\n---", "Sub"),
        ("Two\nlines\n===", "Two lines"),
        ("== Wiki ==", "Wiki"),
    ],
)
def test_headings_are_named_without_their_marks(heading: str, words: str) -> None:
    reader = read_plain if heading.startswith("==") else read_markdown
    chunks = made("structure", minilm(), 64, 32)(reader(f"{heading}\n\n{'Some words of text. ' * 40}"))
    assert chunks[-1].headings == (words,)


def test_sentences_stay_whole_where_they_fit() -> None:
    sentence = "This sentence number {} has some words and then it ends."
    parsed = read_plain(" ".join(sentence.format(number) for number in range(200)))
    for text in words_of(parsed, made("structure", minilm(), 128, 100)(parsed)):
        assert text.startswith("This sentence")
        assert text.endswith("ends.")


def test_rows_of_a_table_stay_whole_and_are_searched_with_their_columns_names() -> None:
    rows = [f"person {number},{number * 17 % 89},town of {number}" for number in range(300)]
    parsed = read_csv("\n".join(["name,age,place", *rows]), 1_000_000)
    chunks = made("structure", minilm(), 128, 100)(parsed)
    check(parsed, chunks, minilm(), 128, "structure")
    texts = words_of(parsed, chunks)
    assert len(texts) > 10
    assert texts[0].startswith("name | age | place\nperson 0 | 0 | town of 0")
    assert chunks[0].headings == ()
    for chunk, text in zip(chunks[1:], texts[1:], strict=True):
        assert chunk.headings == ("name | age | place",)
        assert all(line.startswith("person ") and " | town of " in line for line in text.split("\n"))


def test_headings_give_way_before_the_text_does() -> None:
    deep = "\n\n".join(f"{'#' * level} {'very long heading ' * 10}{level}" for level in range(1, 7))
    parsed = read_markdown(f"{deep}\n\n{'Some words of text. ' * 100}")
    encoder = minilm()
    chunks = made("structure", encoder, 96, 64)(parsed)
    check(parsed, chunks, encoder, 96, "structure")
    assert chunks[-1].headings == () or len(" ".join(chunks[-1].headings).split()) < 48


def test_code_is_cut_between_definitions_rather_than_within() -> None:
    source = "\n\n\n".join(
        f"def function_{number}(a, b):\n    total = a + b\n\n    return total * {number}" for number in range(40)
    )
    parsed = read_source(source, "python")
    for text in words_of(parsed, made("structure", minilm(), 128, 100)(parsed)):
        assert text.startswith("def ")


def test_pages_are_those_on_which_chunks_begin() -> None:
    text = "\n\n".join(f"Page {number}. " + "Some words of it. " * 10 for number in range(1, 21))
    blocks = read_plain(text).blocks
    parsed = Parsed(text, tuple(Block(b.kind, b.start, b.end, page=number) for number, b in enumerate(blocks, 1)))
    for method in METHODS:
        for chunk in made(method, minilm(), 128)(parsed):
            began = text.count("Page ", 0, chunk.start + 5)
            assert chunk.page == max(1, began)


def test_semantic_cuts_where_the_subject_changes() -> None:
    subjects = ["aaa bab aab abb.", "zzz yzy zyz yyz.", "mno nmo omn nom."]
    text = " ".join(" ".join([subject] * 9) for subject in subjects)
    parsed = read_plain(text)
    texts = words_of(parsed, made("semantic", by_bytes(400), 400, 160)(parsed))
    assert len(texts) == 3
    for got, subject in zip(texts, subjects, strict=True):
        assert set(got) == set(subject)


def test_fixed_fills_each_chunk_and_overlapping_repeats_a_tenth() -> None:
    encoder = minilm()
    parsed = read_plain("word " * 5_000)
    fixed = made("fixed", encoder, 128)(parsed)
    assert {chunk.tokens for chunk in fixed[:-1]} == {128}
    overlapping = made("overlapping", encoder, 128)(parsed)
    shared = [before.end - after.start for before, after in pairwise(overlapping)]
    assert set(shared) == {12 * 5 - 1}


def test_blocks_that_a_parser_left_out_or_laid_over_each_other_lose_nothing() -> None:
    text = "one two three four five"
    parsed = Parsed(text, (Block("list", 8, 18), Block("code", 4, 13)))
    check(parsed, made("structure", minilm(), 64, 32)(parsed), minilm(), 64, "structure")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Dr. Who e.g. met J. R. Smith. He left! Really? Yes.",
            ["Dr. Who e.g. met J. R. Smith.", "He left!", "Really?", "Yes."],
        ),
        ("it cost $3.5 million. that was lower.", ["it cost $3.5 million.", "that was lower."]),
        ("他来了。她说：“好！”然后走了。", ["他来了。", "她说：“好！”", "然后走了。"]),
        ("One line\nand the next. End", ["One line\nand the next.", "End"]),
        ("A line.\nAnother\n\nLast", ["A line.", "Another", "Last"]),
        ("Wait... what? (Yes.) Go.", ["Wait...", "what?", "(Yes.)", "Go."]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text, 0, len(text), lines=False)] == expected
