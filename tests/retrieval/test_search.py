"""Searches through an embedded index, as an owner makes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from parkway.core.errors import IndexUnavailable, InvalidRequest
from parkway.core.knowledge import Found, Range, Search
from parkway.retrieval.config import SearchConfig
from parkway.retrieval.index.config import IndexConfig
from parkway.retrieval.index.edge import EdgeIndex
from parkway.retrieval.index.index import Index
from parkway.retrieval.index.revised import RevisedIndex
from parkway.retrieval.query_vectors import QueryVectors
from parkway.retrieval.ranking.config import RankingConfig
from parkway.retrieval.ranking.cross_ranking import CrossRanking
from parkway.retrieval.ranking.ranker import Ranker
from parkway.retrieval.ranking.sureness import Sureness
from parkway.retrieval.search import Searcher
from tests.retrieval.index.corpus import DIMENSIONS, passage

ANN = frozenset({"user:ann"})

TEXTS = [
    ("keys", "An API key is valid for thirty days."),
    ("keys", "Keys are renewed by an administrator of the team."),
    ("copy", "An API key is valid for thirty days."),
    ("budgets", "A budget is what a team may spend in a month."),
    ("cats", "The cat sleeps on the warm keyboard."),
    ("secret", "The master key lies under the mat."),
]


def embed(texts: Sequence[str]) -> np.ndarray:
    """Letters in pairs, by their hash: near in spelling is near in meaning."""
    rows = np.full((len(texts), DIMENSIONS), 1e-3, np.float32)
    for at, text in enumerate(texts):
        for a, b in zip(text.lower(), text.lower()[1:], strict=False):
            rows[at, (31 * ord(a) + ord(b)) % DIMENSIONS] += 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def fill(indexes: Sequence[Index]) -> None:
    for at, (document, text) in enumerate(TEXTS):
        access = ("user:bob",) if document == "secret" else ("*",)
        one = passage(at, document=document, text=text, access=access, metadata={"n": at, "of": document})
        indexes[at % len(indexes)].upsert([one], embed([one.searched]))


@pytest.fixture(params=[1, 3])
def searcher(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Searcher]:
    """Over one partition, and over three."""
    indexes = [EdgeIndex(tmp_path / str(at), IndexConfig(), DIMENSIONS) for at in range(request.param)]
    fill(indexes)
    searcher = Searcher("docs", indexes, QueryVectors(embed, 4), Ranker.load("english"))
    yield searcher
    searcher.close()
    for index in indexes:
        index.close()


def documents(found: Found) -> list[str]:
    return [hit.document_id for hit in found.hits]


def test_hits_have_all_scores_and_where_they_stand(searcher: Searcher) -> None:
    found = searcher.search(Search(query="how long is an API key valid"), ANN)
    first = found.hits[0]
    assert first.text == "An API key is valid for thirty days."
    assert (first.collection, first.start, first.end) == ("docs", 0, len(first.text))
    ranks = [hit.scores.rank for hit in found.hits]
    assert ranks == sorted(ranks, reverse=True)  # pyright: ignore[reportArgumentType]
    for hit in found.hits:
        assert hit.scores.keyword is not None
        assert hit.scores.vector is not None
        assert hit.scores.fused is not None
        assert hit.explanation is None
    assert set(found.took_ms) == {"embed", "search", "rank", "total"}
    assert 0 < found.confidence < 1


def test_the_same_text_of_two_documents_is_one_hit(searcher: Searcher) -> None:
    found = searcher.search(Search(query="API key valid thirty days"), ANN)
    assert len({hit.text for hit in found.hits}) == len(found.hits)
    assert sum(hit.document_id in ("keys", "copy") for hit in found.hits) == 2


def test_filters_and_permissions_hold(searcher: Searcher) -> None:
    assert "secret" not in documents(searcher.search(Search(query="master key under the mat"), ANN))
    bob = searcher.search(Search(query="master key under the mat"), frozenset({"user:bob"}))
    assert documents(bob)[0] == "secret"
    assert searcher.search(Search(query="key"), frozenset()).hits == []
    assert searcher.search(Search(query="key"), frozenset()).confidence == 0
    assert set(documents(searcher.search(Search(query="key", documents=["cats"]), ANN))) == {"cats"}
    assert set(documents(searcher.search(Search(query="key", filter={"of": ["cats", "budgets"]}), ANN))) == {
        "cats",
        "budgets",
    }
    assert set(documents(searcher.search(Search(query="key", filter={"n": Range(gte=3, lte=4)}), ANN))) == {
        "budgets",
        "cats",
    }
    with pytest.raises(InvalidRequest, match="range"):
        searcher.search(Search(query="key", filter={"n": Range()}), ANN)


def test_it_explains_itself_when_asked(searcher: Searcher) -> None:
    for hit in searcher.search(Search(query="API key", explain=True), ANN).hits:
        assert hit.explanation is not None
        assert "keyword_weighs" in hit.explanation


def test_without_ranking_the_order_is_that_of_the_fusion(searcher: Searcher) -> None:
    found = searcher.search(Search(query="API key", rerank=False), ANN)
    fused = [hit.scores.fused or 0 for hit in found.hits]
    assert fused == sorted(fused, reverse=True)
    assert all(hit.scores.rank is None for hit in found.hits)


def test_limit_and_diversity(searcher: Searcher) -> None:
    assert len(searcher.search(Search(query="key", limit=2), ANN).hits) == 2
    found = searcher.search(Search(query="API key", limit=3, diversity=0.7), ANN)
    assert len(found.hits) == 3


def test_many_partitions_find_what_one_finds(tmp_path: Path) -> None:
    found: list[list[str]] = []
    for count in (1, 3):
        indexes = [EdgeIndex(tmp_path / f"{count}-{at}", IndexConfig(), DIMENSIONS) for at in range(count)]
        fill(indexes)
        vectors = QueryVectors(embed, 4)
        searcher = Searcher("docs", indexes, vectors, Ranker.load("english"), SearchConfig(depth=2))
        hits = searcher.search(Search(query="the warm keyboard of a cat", limit=2), ANN).hits
        found.append([hit.text for hit in hits])
        searcher.close()
        for index in indexes:
            index.close()
    assert found[0][0] == found[1][0]


def test_a_partition_that_does_not_answer_is_an_error_and_not_less_to_find(tmp_path: Path) -> None:
    indexes = [EdgeIndex(tmp_path / str(at), IndexConfig(), DIMENSIONS) for at in range(2)]
    fill(indexes)
    searcher = Searcher("docs", indexes, QueryVectors(embed, 4), Ranker.load("english"))
    indexes[1].close()
    with pytest.raises(IndexUnavailable):
        searcher.search(Search(query="key"), ANN)
    searcher.close()
    indexes[0].close()


def test_where_ranking_has_no_time_the_order_is_as_it_was(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, IndexConfig(), DIMENSIONS)
    fill([index])
    ticks = iter(range(1000))
    searcher = Searcher("docs", [index], QueryVectors(embed, 4), Ranker.load("english"), clock=lambda: next(ticks))
    found = searcher.search(Search(query="API key", budget_ms=200), ANN)
    assert found.hits
    assert all(hit.scores.rank is None for hit in found.hits)
    assert 0 < found.confidence < 1
    index.close()


def test_a_cross_encoder_reads_what_the_budget_leaves_time_for(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, IndexConfig(), DIMENSIONS)
    fill([index])
    asked: list[tuple[int, float]] = []

    def scores(query: str, texts: Sequence[str], seconds: float) -> list[float]:
        asked.append((len(texts), seconds))
        return [float(text.startswith("The cat")) for text in texts]

    searcher = Searcher(
        "docs", [index], QueryVectors(embed, 4), Ranker.load("english"), ranking=RankingConfig(depth=3, budget_ms=60),
        cross=CrossRanking(scores, 9.0, 3), clock=lambda: 1.0,
    )  # fmt: skip
    found = searcher.search(Search(query="API key on the warm keyboard", explain=True), ANN)
    assert documents(found)[0] == "cats"
    assert found.hits[0].explanation is not None
    assert found.hits[0].explanation["cross_encoder"] == 1.0
    assert "read" in found.took_ms
    assert asked == [(3, pytest.approx(0.06))]
    searcher.search(Search(query="API key", budget_ms=500), ANN)
    assert asked[1:] == [(3, pytest.approx(0.5))]
    assert "read" in searcher.search(Search(query="API key", rerank=False), ANN).took_ms
    assert len(asked) == 2
    before = found.confidence
    searcher.rank_by(Ranker.load("english"), CrossRanking(scores, 9.0, 9, Sureness(lead=5.0, bias=9.0)))
    assert searcher.search(Search(query="API key on the warm keyboard"), ANN).confidence > max(before, 0.9)
    searcher.rank_by(Ranker.load("english"), None)
    assert "read" not in searcher.search(Search(query="API key"), ANN).took_ms
    index.close()


def test_vectors_of_hot_queries_are_kept() -> None:
    calls: list[str] = []

    def counted(texts: Sequence[str]) -> np.ndarray:
        calls.extend(texts)
        return embed(texts)

    vectors = QueryVectors(counted, 2)
    for query in ("a one", "b two", "a one", "c three", "a one", "b two", "half a \ud800"):
        assert vectors.of(query).shape == (DIMENSIONS,)
    assert calls == ["a one", "b two", "c three", "b two", "half a ?"]
    assert (vectors.tally.hits, vectors.tally.misses) == (2, 5)
    with pytest.raises(InvalidRequest, match="no vector"):
        QueryVectors(lambda texts: np.full((len(texts), 3), np.nan), 1).of("x")


@pytest.fixture(params=["one", "three", "three that are asked as one"])
def keeping(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Searcher, list[RevisedIndex]]]:
    """One that keeps what it has found, over one partition and over three."""
    count = 1 if request.param == "one" else 3
    indexes = [RevisedIndex(EdgeIndex(tmp_path / str(at), IndexConfig(), DIMENSIONS)) for at in range(count)]
    fill(indexes)
    revisions = [each.revision for each in indexes]
    if "as one" in request.param:
        revisions = [lambda: " ".join(each.revision() for each in indexes)]
    searcher = Searcher("docs", indexes, QueryVectors(embed, 4), Ranker.load("english"), revisions=revisions)
    for each in indexes[:1]:
        each.changed = searcher.forget  # of the others only their revisions tell
    yield searcher, indexes
    searcher.close()
    for each in indexes:
        each.close()


def test_what_was_found_is_told_again_to_whoever_may_see_the_same(
    keeping: tuple[Searcher, list[RevisedIndex]],
) -> None:
    searcher, _ = keeping
    first = searcher.search(Search(query="master key under the mat"), ANN)
    again = searcher.search(Search(query="master key under the mat"), ANN)
    assert (first.cached, again.cached) == (False, True)
    assert (again.hits, again.confidence, again.version) == (first.hits, first.confidence, first.version)
    assert set(again.took_ms) == {"total"}
    bob = searcher.search(Search(query="master key under the mat"), frozenset({"user:bob"}))
    assert not bob.cached
    assert documents(bob)[0] == "secret"
    assert "secret" not in documents(searcher.search(Search(query="master key under the mat"), ANN))
    for other in (
        Search(query="master key under the mat", limit=3),
        Search(query="master key under the mat", filter={"of": "keys"}),
        Search(query="master key under the mat", filter={"of": ["keys"]}),
        Search(query="master key under the mat", explain=True),
    ):
        assert not searcher.search(other, ANN).cached


def test_a_change_in_any_partition_is_found_at_once(keeping: tuple[Searcher, list[RevisedIndex]]) -> None:
    searcher, indexes = keeping
    for number, index in enumerate(indexes):
        query = Search(query=f"newly arrived {number}")
        assert searcher.search(query, ANN).cached is False
        assert searcher.search(query, ANN).cached is True
        one = passage(100 + number, document=f"new {number}", text=f"Newly arrived is {number}.", access=("*",))
        index.upsert([one], embed([one.searched]))
        found = searcher.search(query, ANN)
        assert not found.cached
        assert documents(found)[0] == f"new {number}"
        assert searcher.search(query, ANN).cached
        index.remove(f"new {number}")
        assert f"new {number}" not in documents(searcher.search(query, ANN))


def test_other_settings_are_in_force_from_the_next_search_on(keeping: tuple[Searcher, list[RevisedIndex]]) -> None:
    searcher, _ = keeping
    both = Search(query="API key valid thirty days")
    assert sum(name in ("keys", "copy") for name in documents(searcher.search(both, ANN))) == 2
    searcher.configure(SearchConfig(duplicates=False, cache_bytes=0), RankingConfig(), str.upper)
    found = searcher.search(both, ANN)
    assert sum(name in ("keys", "copy") for name in documents(found)) == 3
    assert not searcher.search(both, ANN).cached
    assert all(hit.uri == hit.uri.upper() for hit in found.hits)
    searcher.configure(SearchConfig(diversity=0.9), RankingConfig(), str)
    diverse = searcher.search(Search(query="API key", limit=3), ANN)
    plain = searcher.search(Search(query="API key", limit=3, diversity=0), ANN)
    assert set(documents(diverse)) != set(documents(plain)) or documents(diverse) != documents(plain)


def test_what_there_was_no_time_to_rank_is_not_kept(tmp_path: Path) -> None:
    index = RevisedIndex(EdgeIndex(tmp_path, IndexConfig(), DIMENSIONS))
    fill([index])
    ticks = iter(range(1000))
    searcher = Searcher(
        "docs", [index], QueryVectors(embed, 4), Ranker.load("english"), clock=lambda: next(ticks),
        revisions=[index.revision],
    )  # fmt: skip
    for _ in range(2):
        assert not searcher.search(Search(query="API key"), ANN).cached
    index.close()


def test_metadata_counts_in_what_may_be_kept(keeping: tuple[Searcher, list[RevisedIndex]]) -> None:
    searcher, indexes = keeping
    searcher.configure(SearchConfig(cache_bytes=50_000), RankingConfig(), str)
    query = Search(query="newly arrived")
    for note, kept in (("short", True), ("long " * 20_000, False)):
        one = passage(100, document="new", text="Newly arrived.", metadata={"note": note})
        indexes[0].upsert([one], embed([one.searched]))
        searcher.search(query, ANN)
        assert searcher.search(query, ANN).cached is kept
