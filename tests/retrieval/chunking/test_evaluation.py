"""The measure of chunkers, on a collection of which the answers are known, and on the judged one."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from parkway.core.errors import ConfigurationError
from parkway.retrieval.chunking.chunker import chunker
from parkway.retrieval.chunking.config import ChunkingConfig
from parkway.retrieval.chunking.evaluation import Gold, Question, Search, evaluate, load, table
from parkway.retrieval.document import Chunk, Parsed
from parkway.retrieval.parsing.plain import read_plain
from tests.retrieval.chunking.encoders import minilm

JUDGED = Path("/work/shared/data/chunking-eval")


def by_common_words(searched: Sequence[str]) -> Search:
    sets = [set(text.lower().split()) for text in searched]

    def ranked(words: set[str]) -> list[int]:
        return sorted(range(len(sets)), key=lambda number: -len(words & sets[number]))

    def search(questions: Sequence[str]) -> list[list[int]]:
        return [ranked(set(question.lower().split())) for question in questions]

    return search


def halves(parsed: Parsed) -> list[Chunk]:
    middle = len(parsed.text) // 2
    return [Chunk(0, middle), Chunk(middle, len(parsed.text))]


def test_recall_precision_and_iou_are_of_characters() -> None:
    text = "apple pie" + "banana is" * 1
    gold = Gold(
        {"a": text, "b": "cherry and " + "more of it"}, [Question("apple pie", {"a": [(0, 3), (2, 6), (9, 12)]})]
    )
    quality = evaluate(gold, halves, minilm(), by_common_words, lambda text: Parsed(text, ()), 2)
    assert (quality.recall, quality.precision, quality.iou) == (6 / 9, 6 / 9, 6 / 12)
    everything = evaluate(gold, halves, minilm(), by_common_words, lambda text: Parsed(text, ()), 1000)
    assert everything.recall == 1.0
    assert everything.chunks == 4
    nothing = evaluate(gold, halves, minilm(), by_common_words, lambda text: Parsed(text, ()), 1)
    assert (nothing.recall, nothing.precision, nothing.iou) == (0.0, 0.0, 0.0)
    assert table({"worse": nothing, "better": everything}).split("\n")[2].startswith("| better | 4 |")


def test_text_that_reading_changes_cannot_be_measured() -> None:
    gold = Gold({"a": "some text"}, [Question("text", {"a": [(0, 4)]})])
    with pytest.raises(ConfigurationError, match="document a was changed"):
        evaluate(gold, halves, minilm(), by_common_words, lambda text: Parsed(text.upper(), ()))


def test_a_collection_is_read_or_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no collection with judged spans"):
        load(tmp_path)
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": "abc"}) + "\n")
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "b?"}) + "\n\n")
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\tstart\tend\nq\td\t1\t1\t2\n")
    assert load(tmp_path) == Gold({"d": "abc"}, [Question("b?", {"d": [(1, 2)]})])
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    with pytest.raises(ConfigurationError):
        load(tmp_path)


@pytest.mark.skipif(not JUDGED.exists(), reason="the judged collection is not on this machine")
def test_the_default_finds_more_than_chunks_of_a_fixed_length() -> None:
    gold = load(JUDGED)
    small = {name: gold.documents[name] for name in ("chatlogs", "state_of_the_union", "wikitexts")}
    gold = Gold(small, [question for question in gold.questions if set(question.gold) <= small.keys()])
    qualities = {
        config.method: evaluate(gold, chunker(config, minilm()), minilm(), by_common_words, read_plain)
        for config in (ChunkingConfig(), ChunkingConfig(method="fixed"))
    }
    assert qualities["structure"].recall > qualities["fixed"].recall
    assert qualities["structure"].longest_tokens <= 256
