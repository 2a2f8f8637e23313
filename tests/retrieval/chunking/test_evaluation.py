"""The measure of chunkers, on a collection of which the answers are known, and on the judged one."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from parkway.core.errors import ConfigurationError
from parkway.launch.chunker_comparison import judged_spans
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
    documents = {"a": Parsed(text, ()), "b": Parsed("cherry and " + "more of it", ())}
    gold = Gold(documents, [Question("apple pie", {"a": [(0, 3), (2, 6), (9, 12)]})])
    quality = evaluate(gold, halves, minilm(), by_common_words, 2)
    assert (quality.recall, quality.precision, quality.iou) == (6 / 9, 6 / 9, 6 / 12)
    everything = evaluate(gold, halves, minilm(), by_common_words, 1000)
    assert everything.recall == 1.0
    assert everything.chunks == 4
    nothing = evaluate(gold, halves, minilm(), by_common_words, 1)
    assert (nothing.recall, nothing.precision, nothing.iou) == (0.0, 0.0, 0.0)
    assert table({"worse": nothing, "better": everything}).split("\n")[2].startswith("| better | 4 |")


def test_a_collection_is_read_or_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no collection as BEIR lays it out"):
        load(tmp_path, read_plain)
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": "abc"}) + "\n")
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "b?"}) + "\n\n")
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\tstart\tend\nq\td\t1\t1\t2\n")
    assert load(tmp_path, read_plain) == Gold({"d": read_plain("abc")}, [Question("b?", {"d": [(1, 2)]})])
    with pytest.raises(ConfigurationError, match="document d was changed"):
        load(tmp_path, lambda text: Parsed(text.upper(), ()))
    head = "query-id\tcorpus-id\tscore"
    for text, words in (
        (f"{head}\nq\td\t1\n", "chunkers need spans"),
        (f"{head}\tstart\tend\nq\td\t1\t3\t4\n", "names 3 to 4 in 'd', whose text has 3 characters"),
        (f"{head}\tstart\tend\nq\te\t1\t0\t1\n", "names a document that is not there: 'e'"),
    ):
        (tmp_path / "qrels.tsv").write_text(text)
        with pytest.raises(ConfigurationError, match=words):
            load(tmp_path, read_plain)


def test_a_gold_file_names_documents_that_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "keys.md").write_text("# Keys\n\nA key is valid for thirty days.\n")
    gold = tmp_path / "gold.jsonl"
    lines = [
        {"query": "how long?", "relevant": [{"document": "keys.md", "start": 8, "end": 40}]},
        {"query": "which document?", "relevant": ["keys.md"]},
    ]
    gold.write_text("\n".join(map(json.dumps, lines)))
    found = judged_spans(gold)
    assert found.questions == [Question("how long?", {"keys.md": [(8, 40)]})]
    assert [block.kind for block in found.documents["keys.md"].blocks] == ["heading", "paragraph"]
    gold.write_text(json.dumps(lines[1]))
    with pytest.raises(ConfigurationError, match="chunkers need spans"):
        judged_spans(gold)
    gold.write_text(json.dumps(lines[0]).replace("keys", "locks"))
    with pytest.raises(ConfigurationError, match=r"there is no file locks\.md"):
        judged_spans(gold)
    gold.write_text(json.dumps(lines[0]).replace('"start": 8, "end": 40', '"start": 400, "end": 440'))
    with pytest.raises(ConfigurationError, match=r"names 400 to 440 in 'keys\.md', whose text has"):
        judged_spans(gold)
    (tmp_path / "keys.md").write_bytes(b"\0\1\2")
    with pytest.raises(ConfigurationError, match=r"gold\.jsonl: keys\.md "):
        judged_spans(gold)


@pytest.mark.skipif(not JUDGED.exists(), reason="the judged collection is not on this machine")
def test_the_default_finds_more_than_chunks_of_a_fixed_length() -> None:
    gold = load(JUDGED, read_plain)
    small = {name: gold.documents[name] for name in ("chatlogs", "state_of_the_union", "wikitexts")}
    gold = Gold(small, [question for question in gold.questions if set(question.gold) <= small.keys()])
    qualities = {
        config.method: evaluate(gold, chunker(config, minilm()), minilm(), by_common_words)
        for config in (ChunkingConfig(), ChunkingConfig(method="fixed"))
    }
    assert qualities["structure"].recall > qualities["fixed"].recall
    assert qualities["structure"].longest_tokens <= 256
