"""Measures, intervals, and gold files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from parkway.core.errors import ConfigurationError
from parkway.core.knowledge import Found, Hit, Scores
from parkway.retrieval import judged
from parkway.retrieval.evaluation import (
    Question,
    Relevant,
    Results,
    difference,
    evaluate,
    interval,
    load,
    measures,
    stages,
    table,
)


def hit(document: str, start: int = 0, uri: str = "") -> Hit:
    return Hit(
        passage_id=f"{document}-{start}", document_id=document, collection="docs", text="x" * 10, start=start,
        end=start + 10, scores=Scores(), uri=uri,
    )  # fmt: skip


def test_documents_stand_where_their_first_passage_stands() -> None:
    hits = [hit("a"), hit("a", 10), hit("b"), hit("a", 20), hit("c")]
    found = measures([Relevant("b"), Relevant("c"), Relevant("z")], hits)
    best = 1 + 1 / math.log2(3) + 1 / 2
    assert found["nDCG@10"] == pytest.approx((1 / math.log2(3) + 1 / 2) / best)
    assert found["MRR@10"] == 0.5
    assert found["Recall@10"] == found["Recall@100"] == pytest.approx(2 / 3)


def test_the_first_ten_are_ten_documents() -> None:
    hits = [hit(f"d{at}", start) for at in range(11) for start in (0, 10, 20)]
    assert measures([Relevant("d9")], hits)["nDCG@10"] == pytest.approx(1 / math.log2(11))
    late = measures([Relevant("d10")], hits)
    assert (late["nDCG@10"], late["MRR@10"], late["Recall@10"], late["Recall@100"]) == (0, 0, 0, 1)


def test_spans_are_found_by_what_has_some_of_them() -> None:
    hits = [hit("a"), hit("a", 10), hit("a", 20)]
    gold = [Relevant("a", 15, 18, 2.0), Relevant("a", 19, 25)]
    found = measures(gold, hits)
    assert found["MRR@10"] == 0.5
    assert found["Recall@10"] == 1
    assert 0 < found["nDCG@10"] <= 1
    assert measures([Relevant("a", 30, 40)], hits)["Recall@100"] == 0


@pytest.mark.parametrize(
    "gold",
    [
        [Relevant("a", 1, 3), Relevant("a", 5, 8, 2.0)],  # both stand in the first hit
        [Relevant("a"), Relevant("a")],
        [Relevant("a"), Relevant("x/a.md")],
    ],
)
def test_what_one_hit_answers_twice_can_be_found_perfectly(gold: list[Relevant]) -> None:
    hits = [hit("a", uri="/docs/x/a.md"), hit("b")]
    assert measures(gold, hits)["nDCG@10"] == 1
    assert measures([*gold, Relevant("c")], hits)["nDCG@10"] < 1
    assert measures(gold, hits[::-1])["nDCG@10"] < 1


def test_grades_and_perfect_orders() -> None:
    gold = [Relevant("a", grade=3), Relevant("b", grade=1)]
    assert measures(gold, [hit("a"), hit("b")])["nDCG@10"] == 1
    assert measures(gold, [hit("b"), hit("a")])["nDCG@10"] < 1
    assert measures(gold, [])["nDCG@10"] == 0


def test_a_document_is_named_by_its_id_or_its_uri_or_the_end_of_it() -> None:
    one = hit("4f2a", uri="file:///home/ann/docs/keys.md")
    for name in ("4f2a", "file:///home/ann/docs/keys.md", "docs/keys.md", "keys.md"):
        assert Relevant(name).is_in(one)
    for name in ("4f", "eys.md", "docs"):
        assert not Relevant(name).is_in(one)


def results_of(confidences: dict[str, float]) -> Results:
    def ask(query: str) -> Found:
        return Found(hits=[hit(query)], confidence=confidences[query], took_ms={"total": 2.0, "rank": 1.0})

    questions = [Question(query, [] if query == "mars" else ["a"]) for query in confidences]
    return evaluate(questions, ask)


def test_questions_without_answers_have_a_confidence_and_no_measure() -> None:
    results = results_of({"a": 0.9, "b": 0.4, "mars": 0.5})
    assert np.isnan(results.measures["nDCG@10"]).tolist() == [False, False, True]
    assert results.confidence.tolist() == [0.9, 0.4, 0.5]
    assert results.measures["nDCG@10"].tolist()[:2] == [1, 0]
    assert interval(results.measures["nDCG@10"]).mean == 0.5


def test_two_configurations_are_compared_question_by_question() -> None:
    one, other = results_of({"a": 0.9, "b": 0.4}), results_of({"a": 0.9, "b": 0.4})
    assert difference(one, other, "nDCG@10") == interval(np.zeros(2))
    text = table({"now": one, "then": other})
    assert text.count("|---") == 7
    assert "+0.000 (+0.000 to +0.000)" in text
    assert "| total | 2.00 | 2.00 | 2.00 |" in stages(one)


def test_times_are_of_searches_that_were_made() -> None:
    def ask(query: str) -> Found:
        return Found(hits=[], took_ms={"total": 0.1 if query == "again" else 3.0}, cached=query == "again")

    text = stages(evaluate([Question("first"), Question("again")], ask))
    assert "| total | 3.00 | 3.00 | 3.00 |" in text
    assert "1 of 2 answers were kept from searches before; times are of the others." in text
    results = evaluate([Question("again")], ask)
    assert stages(results).endswith("1 of 1 answers were kept from searches before; times are of what is kept.")
    assert "| now | - | - | - | - | 0.1 | 0.1 |" in table({"now": results})


def test_an_interval_holds_the_mean() -> None:
    values = np.random.default_rng(0).uniform(size=200)
    found = interval(values)
    assert found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(4 * values.std() / 200**0.5, rel=0.2)
    assert math.isnan(interval(np.array([np.nan])).mean)


def test_a_gold_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(
        '{"query": "one?", "relevant": ["a.md", {"document": "b", "start": 1, "end": 5, "grade": 2}]}\n\n'
        '{"query": "none?", "relevant": []}\n'
    )
    first, second = load(path)
    assert first.gold == [Relevant("a.md"), Relevant("b", 1, 5, 2)]
    assert second.gold == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no questions"),
        ("{", ":1: "),
        ('{"query": ""}', ":1: "),
        ('{"query": "x", "relevent": []}', "relevent"),
        ('{"query": "x", "relevant": [{"document": "a", "start": 3}]}', "`start` and `end`"),
        ('{"query": "x", "relevant": [{"document": "a", "start": 3, "end": 3}]}', "less than"),
        ('{"query": "x", "relevant": [{"document": "a", "grade": 0}]}', "grade"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(line)
    with pytest.raises(ConfigurationError, match=words):
        load(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "missing.jsonl")


def test_judged_collections_are_read_as_beir_lays_them_out(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "title": "T", "text": "Some text."}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "what?"}\n{"_id": "q2", "text": "unjudged"}\n')
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td9\t0\n")
    found = judged.load(tmp_path, "train")
    assert found.documents == {"d1": judged.document("T", "Some text.")}
    assert found.questions == [Question("what?", [Relevant("d1", grade=2)])]
    with pytest.raises(ConfigurationError, match="as BEIR lays it out"):
        judged.load(tmp_path, "test")
