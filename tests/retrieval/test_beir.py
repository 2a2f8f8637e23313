"""Folders as BEIR lays them out, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from parkway.core.errors import ConfigurationError
from parkway.retrieval import beir, evaluation
from parkway.retrieval.beir import Judgement, Text

HEAD = "query-id\tcorpus-id\tscore"


def folder(
    place: Path, *, queries: str = '{"_id": "q1", "text": "what?"}\n', qrels: str = f"{HEAD}\nq1\td1\t1\n"
) -> Path:
    (place / "qrels").mkdir()
    (place / "corpus.jsonl").write_text('{"_id": 7, "title": null, "text": "Some text.", "metadata": {}}\n\n')
    (place / "queries.jsonl").write_text(queries)
    (place / "qrels/train.tsv").write_text(qrels)
    return place


def test_documents_queries_and_judgements_are_read(tmp_path: Path) -> None:
    place = folder(tmp_path, qrels=f"{HEAD}\tstart\tend\nq1\td1\t2\t3\t9\nq1\td2\t1\t\t\nq1\td3\t0\t\t\n")
    assert beir.documents(place) == {"7": Text(7, "Some text.")}
    known = beir.queries(place)
    assert known == {"q1": "what?"}
    assert beir.judgements(place / "qrels/train.tsv", known) == [
        Judgement("q1", "d1", 2, 3, 9),
        Judgement("q1", "d2", 1),
    ]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"queries": '{"_id": "q1", "text": "what?"}\n{"_id": "q2"\n'}, r"queries\.jsonl:2: .*expected \{"),
        ({"queries": '{"_id": "q1"}\n'}, r"queries\.jsonl:1: .*`text`"),
        ({"queries": '{"_id": "q9", "text": "what?"}\n'}, r"train\.tsv:2: queries\.jsonl has no query 'q1'"),
        ({"qrels": "q1\td1\t1\n"}, r"train\.tsv:1: the first line has to name the columns query-id, corpus-id, score"),
        ({"qrels": f"{HEAD}\nq1\td1\tyes\n"}, r"train\.tsv:2: a number is expected: .*'yes'"),
        ({"qrels": f"{HEAD}\nq1\td1\n"}, r"train\.tsv:2: a number is expected"),
        ({"qrels": f"{HEAD}\nq1\td1\t0\n"}, r"train\.tsv: no document is relevant to any query"),
        ({"qrels": f"{HEAD}\n"}, r"train\.tsv: no document is relevant to any query"),
        ({"qrels": f"{HEAD}\tstart\tend\nq1\td1\t1\t9\t3\n"}, r"train\.tsv: of query 'q1': `start` must be less"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, more: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        evaluation.load(folder(tmp_path, **more), "train")


def test_a_split_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file; choose among train by --split"):
        evaluation.load(folder(tmp_path), "tset")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"queries\.jsonl: no collection as BEIR lays it out: No such file"):
        evaluation.load(tmp_path / "empty", "test")


def test_what_is_not_text_is_told(tmp_path: Path) -> None:
    place = folder(tmp_path)
    (place / "qrels/train.tsv").write_bytes(b"query-id\tcorpus-id\tscore\n\xff\xfe\n")
    with pytest.raises(ConfigurationError, match=r"train\.tsv: cannot be read: 'utf-8'"):
        evaluation.load(place, "train")
