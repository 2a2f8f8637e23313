"""What every store promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parkway.core.errors import ConfigurationError, InvalidRequest
from parkway.core.tasks import start_thread
from parkway.retrieval.document import Passage
from parkway.retrieval.index.index import Between, Filter, Index, Query
from parkway.retrieval.index.qdrant import QdrantIndex
from tests.retrieval.index.conftest import Open
from tests.retrieval.index.corpus import DIMENSIONS, allowed, nearest, passage, vectors

ANYBODY = Filter(frozenset({"user:ann"}))


def texts(index: Index, text: str, wanted: Filter = ANYBODY, depth: int = 10) -> list[str]:
    """What is found by words, the best first."""
    found = index.search(Query(text, None, wanted, keyword_depth=depth))
    assert all(one.vector_score is None for one in found)
    return [one.passage.text for one in sorted(found, key=lambda one: -(one.keyword_score or 0))]


def ids(index: Index, vector: np.ndarray, wanted: Filter = ANYBODY, depth: int = 10, **more: object) -> list[str]:
    """What is found by meaning, the best first."""
    found = index.search(Query("", vector, wanted, vector_depth=depth, **more))  # pyright: ignore[reportArgumentType]
    assert all(one.keyword_score is None for one in found)
    return [one.passage.passage_id for one in sorted(found, key=lambda one: -(one.vector_score or 0))]


def has_graphs(index: Index) -> bool:
    """What Qdrant's client has instead of a server compares with all."""
    return not isinstance(index, QdrantIndex)


def fill(index: Index, count: int, **more: object) -> tuple[list[Passage], np.ndarray]:
    passages, rows = [passage(number, **more) for number in range(count)], vectors(count)  # pyright: ignore
    index.upsert(passages, rows)
    return passages, rows


def test_what_is_put_in_is_found_by_words_and_by_meaning(index: Index) -> None:
    passages, rows = fill(index, 30)
    found = index.search(Query("w7", rows[7], ANYBODY, keyword_depth=5, vector_depth=5))
    best = next(one for one in found if one.passage == passages[7])
    assert best.keyword_score is not None
    assert best.keyword_score > 1
    assert best.vector_score == pytest.approx(1, abs=1e-3)
    assert np.allclose(best.vector, rows[7], atol=1e-5)
    assert best.vector.dtype == np.float32
    assert len({one.passage.passage_id for one in found}) == len(found)
    assert sum(one.vector_score is not None for one in found) == 5


def test_an_empty_index_finds_nothing_and_has_nothing(index: Index) -> None:
    assert index.search(Query("anything", vectors(1)[0], ANYBODY)) == []
    assert index.documents() == {}
    assert index.passages("nothing") == []
    assert index.vectors(["nothing"]) == {}
    assert index.size().passages == 0
    index.remove("nothing")
    index.upsert([], vectors(1)[:0])
    assert index.optimise() is False


def test_an_index_that_was_optimised_empty_finds_what_came_later(index: Index) -> None:
    index.optimise()
    passages, rows = fill(index, 300)
    index.optimise()
    assert ids(index, rows[123], depth=1) == [passages[123].passage_id]
    assert index.size().indexed == (300 if has_graphs(index) else 0)


def test_writing_twice_is_writing_once(index: Index) -> None:
    passages, rows = fill(index, 30)
    index.upsert(passages, rows)
    assert index.size().passages == 30
    assert sorted(texts(index, "passage", depth=100)) == sorted(one.text for one in passages)
    index.upsert([passage(3, access=("team:a",))], rows[3:4])
    assert index.size().passages == 30
    assert passages[3].passage_id not in ids(index, rows[3], depth=100)


def test_a_version_takes_the_place_of_another(index: Index) -> None:
    fill(index, 30)
    new = [passage(number, version="2", text=f"rewritten w{number}") for number in range(10, 15)]
    index.upsert(new, vectors(5, seed=1))
    assert index.documents()["d1"] == {"1", "2"}
    index.remove("d1", but="2")
    assert index.documents() == {"d0": {"1"}, "d1": {"2"}, "d2": {"1"}}
    assert index.passages("d1") == new
    assert texts(index, "w17") == []
    assert texts(index, "rewritten w12")[0] == "rewritten w12"
    assert index.size().passages == 25


def test_what_is_removed_is_gone(open_index: Open) -> None:
    index = open_index()
    _, rows = fill(index, 300)
    index.optimise()
    index.remove("d7")
    for _ in range(2):
        assert index.size().passages == 290
        assert "d7" not in index.documents()
        assert index.passages("d7") == []
        assert texts(index, "w73") == []
        assert not {passage(number).passage_id for number in range(70, 80)} & set(ids(index, rows[73], depth=50))
        index.optimise()
    index.close()
    index = open_index()
    assert index.size().passages == 290
    assert texts(index, "w73") == []


def test_equal_texts_in_several_documents_are_removed_one_by_one(index: Index) -> None:
    same = [passage(0, document=name, text="the very same words") for name in "abc"]
    index.upsert(same, np.repeat(vectors(1), 3, axis=0))
    for left, name in ((2, "a"), (1, "b"), (0, "c")):
        index.remove(name)
        assert len(texts(index, "very same words")) == left
        assert len(index.documents()) == left
        assert len(index.vectors([same[0].content])) == (1 if left else 0)


def test_vectors_are_known_by_what_they_are_of(index: Index) -> None:
    passages, rows = fill(index, 30)
    found = index.vectors([passages[4].content, passages[20].content, "unknown", ""])
    assert set(found) == {passages[4].content, passages[20].content}
    assert np.allclose(found[passages[4].content], rows[4], atol=1e-6)


METADATA = [
    ("text", "a"), ("text", 'a "quoted"\nname'), ("text", "2024-02-30"), ("number", 1), ("number", 1.0),
    ("number", 2.5), ("number", -(2**53) - 1), ("number", True), ("number", "1"), ("flag", True), ("flag", False),
    ("flag", 1), ("list", ["a", "b"]), ("list", []), ("list", ["b", "2024-01-05"]), ("date", "2024-01-05"),
    ("date", "2024-01-05T12:00:00Z"), ("date", "2024-01-05T23:30:00-01:00"), ("date", "soon"), ("a.b[c] d", "x"),
    ("", "empty"), ("number", 2**62), ("number", 1e30),
]  # fmt: skip

FILTERS: list[dict[str, object]] = [
    {"text": "a"}, {"text": 'a "quoted"\nname'}, {"text": ("a", 'a "quoted"\nname')}, {"text": ()}, {"number": 1},
    {"number": 1.0}, {"number": True}, {"number": "1"}, {"number": 2.5}, {"number": -(2**53) - 1}, {"flag": True},
    {"flag": False}, {"flag": (True, 1)}, {"list": "a"}, {"list": "b"}, {"list": ("a", "z")}, {"list": ["a", "z"]},
    {"a.b[c] d": "x"}, {"": "empty"}, {"missing": "x"}, {"number": Between(1, 2.5)}, {"number": Between(None, 0)},
    {"number": Between(2, None)}, {"date": Between("2024-01-05", "2024-01-05")}, {"date": Between("2024-01-06", None)},
    {"date": Between(None, "2024-01-05T12:00:00+00:00")}, {"list": Between("2024-01-01", None)},
    {"text": "a", "flag": 1}, {"number": 2**62}, {"number": 1e30},
    {"number": Between(10**18, 1e31)}, {"flag": Between(0, 1)},
]  # fmt: skip


def test_filters_compare_as_people_do(index: Index) -> None:
    passages = [passage(at, metadata={name: value}) for at, (name, value) in enumerate(METADATA)]  # pyright: ignore
    rows = vectors(len(passages))
    index.upsert(passages, rows)
    for metadata in FILTERS:
        wanted = Filter(frozenset({"user:ann"}), metadata)  # pyright: ignore[reportArgumentType]
        expected = {one.text for one in passages if allowed(one, wanted)}
        assert set(texts(index, "passage", wanted, depth=100)) == expected, metadata
        found = ids(index, rows[0], wanted, depth=100)
        assert sorted(found) == sorted(one.passage_id for one in passages if one.text in expected), metadata


def test_a_range_that_is_none_is_refused(index: Index) -> None:
    for between in (Between(), Between(1, "2024-01-01"), Between("yesterday", None), Between(float("nan"), 1)):
        with pytest.raises(InvalidRequest, match="range of `when`"):
            index.search(Query("x", None, Filter(frozenset({"a"}), {"when": between})))


def test_a_filter_with_few_matches_finds_them_all_and_in_order(index: Index) -> None:
    """Beside a graph of many, wherever in it they stand."""
    rows = vectors(1500)
    # Far from each other and from the query: where a search in the graph would never come by.
    far = np.argsort(rows @ rows[0])[:200]
    rare = {int(number) for number in far[:70]}
    passages = [
        passage(number, metadata={"kind": "rare" if number in rare else "usual", "n": number}) for number in range(1500)
    ]
    index.upsert(passages, rows)
    index.optimise()
    for wanted in (
        Filter(frozenset({"a"}), {"kind": "rare"}),
        Filter(frozenset({"a"}), {"kind": "rare", "n": Between(100, 900)}),
        Filter(frozenset({"a"}), {"kind": "rare"}, frozenset(f"d{number}" for number in range(60))),
        Filter(frozenset({"a"}), {}, frozenset({"d3"})),
        Filter(frozenset({"a"}), {"n": Between(None, 4)}),
    ):
        expected = [name for name, _ in nearest(passages, rows, rows[0], wanted, 100)]
        assert ids(index, rows[0], wanted, depth=100) == expected


def test_a_graph_finds_what_comparing_with_all_finds(index: Index) -> None:
    passages, rows = fill(index, 2000)
    index.optimise()
    assert index.size().indexed == (2000 if has_graphs(index) else 0)
    hits = 0
    for query in vectors(2030)[2000:]:
        expected = [name for name, _ in nearest(passages, rows, query, ANYBODY, 10)]
        assert ids(index, query, exact=True) == expected
        hits += len(set(ids(index, query)) & set(expected))
    assert hits >= 0.97 * 300
    assert len(ids(index, rows[0], effort=300, depth=200)) == 200


PRINCIPALS = ["user:ann", "user:bob", "team:legal", "team:a\nb", "key:ci", "*"]


class Room:
    """A fixed set of passages, each with an access list and metadata of its own kind."""

    def __init__(self) -> None:
        random = np.random.default_rng(5)
        self.rows = vectors(400, seed=2)
        self.passages = [
            passage(
                number,
                access=tuple(random.choice(PRINCIPALS, random.integers(0, 3), replace=False).tolist()),
                metadata={"n": int(random.integers(0, 5)), "tag": random.choice(list("abc"), 2).tolist()},
            )
            for number in range(400)
        ]


ROOM = Room()

WANTED = st.builds(
    Filter,
    st.frozensets(
        st.sampled_from([*PRINCIPALS, "user:ANN", "user:ann ", "user:ann\x00", "", "team:", "%"]), max_size=3
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "n": st.one_of(st.integers(0, 5), st.tuples(st.integers(0, 5)), st.builds(Between, st.integers(0, 4))),
            "tag": st.sampled_from(["a", "b", ("a", "b"), "d", ["c"]]),
        },
    ),
    st.none() | st.frozensets(st.sampled_from([f"d{number}" for number in range(41)]), max_size=20),
    st.none() | st.frozensets(st.sampled_from([one.passage_id for one in ROOM.passages]), max_size=40),
)


def test_what_one_list_has_found_gets_the_score_of_the_other(index: Index) -> None:
    """Restricted to some passages, their scores are what they are among all."""
    passages, rows = fill(index, 300, metadata={"kind": "usual"})
    index.optimise()
    everything = index.search(Query("passage w7 w8 w299", rows[7], ANYBODY, keyword_depth=300, vector_depth=300))
    scores = {one.passage.passage_id: one for one in everything}
    some = frozenset(passages[at].passage_id for at in (7, 8, 120, 299))
    found = index.search(Query("passage w7 w8 w299", rows[7], Filter(ANYBODY.principals, passages=some)))
    assert {one.passage.passage_id for one in found} == some
    for one in found:
        assert one.keyword_score == pytest.approx(scores[one.passage.passage_id].keyword_score, rel=1e-4)
        assert one.vector_score == pytest.approx(scores[one.passage.passage_id].vector_score, abs=1e-3)
    upper = Filter(ANYBODY.principals, passages=frozenset(name.upper() for name in some))
    assert set(ids(index, rows[7], upper)) == some
    assert ids(index, rows[7], Filter(ANYBODY.principals, passages=frozenset())) == []
    with pytest.raises(InvalidRequest, match="UUID"):
        index.search(Query("x", None, Filter(ANYBODY.principals, passages=frozenset({"seven"}))))


def test_nobody_sees_what_is_not_for_them(index: Index) -> None:
    """Whoever asks, with whatever filter: exactly what plain Python would show, by words and by meaning."""
    index.upsert(ROOM.passages, ROOM.rows)
    index.optimise()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(WANTED, st.integers(0, 399))
    def ask(wanted: Filter, at: int) -> None:
        found = index.search(Query("passage number", ROOM.rows[at], wanted, keyword_depth=500, vector_depth=30))
        assert all(allowed(one.passage, wanted) for one in found)
        by_words = {one.passage.passage_id for one in found if one.keyword_score is not None}
        assert by_words == {one.passage_id for one in ROOM.passages if allowed(one, wanted)}
        expected = nearest(ROOM.passages, ROOM.rows, ROOM.rows[at], wanted, 30)
        by_meaning = sorted((one.vector_score for one in found if one.vector_score is not None), reverse=True)
        assert len(by_meaning) == len(expected)
        if len(expected) < 30:
            assert by_meaning == pytest.approx([score for _, score in expected], abs=1e-3)

    ask()


def test_without_principals_nothing_is_seen(index: Index) -> None:
    fill(index, 10)
    assert index.search(Query("passage", vectors(1)[0], Filter(frozenset()))) == []


LANGUAGES = [
    ("我来到北京清华大学学习计算机科学", ["北京", "清华大学", "计算机", "计算机科学"]),
    ("東京都に住んでいます。機械学習の研究をしています", ["東京", "機械学習", "研究"]),
    ("학교에서 인공지능을 공부합니다", ["학교", "인공지능", "공부"]),
    ("Die Häuser der Straße, ein naïves Café", ["häuser", "CAFÉ", "naïves"]),
    ("Съешь же ещё этих мягких французских булок", ["французских", "БУЛОК"]),
    ("שלום עולם טוב", ["שלום"]),
    ("emoji 🙂 beside 𝕞𝕒𝕥𝕙", ["emoji"]),
    ("ids like ERR_CONN-4711", ["4711", "ERR_CONN-4711", "err_conn"]),
]


def test_words_of_any_language_are_found(index: Index) -> None:
    index.upsert([passage(at, text=text) for at, (text, _) in enumerate(LANGUAGES)], vectors(len(LANGUAGES)))
    for text, words in LANGUAGES:
        for word in words:
            assert texts(index, word)[:1] == [text], word
    assert texts(index, "上海 大阪 병원 nirgendwo") == []


NAMES = [
    "new\nline", "quo\"te'; DROP TABLE passages; --", "x" * 1000, "\x00null", "ünï/../码", " ", "", "%s {} $1 \\",
]  # fmt: skip


def test_documents_may_be_called_anything(index: Index) -> None:
    def strange(name: str) -> Passage:
        return passage(1, document=name, title=name, uri=name, headings=(name,), text="strange words")

    index.upsert([strange(name) for name in NAMES], vectors(len(NAMES)))
    assert index.documents() == {name: {"1"} for name in NAMES}
    for left, name in enumerate(NAMES, 1 - len(NAMES)):
        only = Filter(frozenset({"a"}), {}, frozenset({name}))
        assert ids(index, vectors(2)[0], only) == [strange(name).passage_id]
        assert index.passages(name) == [strange(name)]
        index.remove(name, but="1")
        assert index.passages(name) == [strange(name)]
        index.remove(name)
        assert index.passages(name) == []
        assert len(index.documents()) == -left


def test_what_cannot_be_kept_is_refused_and_changes_nothing(index: Index) -> None:
    fill(index, 3)
    good = passage(50)
    wrong: list[tuple[list[Passage], np.ndarray, str]] = [
        ([good], vectors(1, dimensions=DIMENSIONS + 1), r"shape \(1, 16\), got \(1, 17\)"),
        ([good], vectors(2), "shape"),
        ([good], vectors(1) * 3, "length 1"),
        ([good], np.full((1, DIMENSIONS), np.nan, np.float32), "length 1"),
        ([good, passage(51, text="half a \ud800 character")], vectors(2), "cannot be kept"),
        ([passage(51, metadata={"n": float("inf")})], vectors(1), "cannot be kept"),
        ([passage(51, metadata={"n": 2**63})], vectors(1), "64 bits"),
        ([passage(51, document="x" * 5000)], vectors(1), "4096 bytes"),
        ([passage(51, text="x" * (1 << 20))], vectors(1), "larger than"),
    ]
    for passages, rows, words in wrong:
        with pytest.raises(ValueError, match=words):
            index.upsert(passages, rows)
    for vector in (vectors(1, dimensions=3)[0], np.full(DIMENSIONS, np.inf)):
        with pytest.raises(InvalidRequest, match="vector"):
            index.search(Query("x", vector, ANYBODY))
    assert index.size().passages == 3


def test_it_is_as_it_was_after_it_was_closed(open_index: Open) -> None:
    index = open_index()
    passages, rows = fill(index, 300)
    index.optimise()
    index.remove("d1")
    index.upsert([passage(500)], vectors(1, seed=3))
    index.close()
    index = open_index()
    assert index.size().passages == 291
    assert texts(index, "w205") == [passages[205].text]
    assert ids(index, rows[205], depth=1) == [passages[205].passage_id]
    assert texts(index, "w500") == [passage(500).text]
    assert len(index.documents()) == 30


def test_another_encoder_or_language_is_a_mistake(open_index: Open) -> None:
    open_index().close()
    with pytest.raises(ConfigurationError, match="dimensions 16"):
        open_index(17)
    with pytest.raises(ConfigurationError, match="language english"):
        open_index(language="german")


def test_searches_go_on_while_it_is_written_and_optimised(index: Index) -> None:
    """Whatever is there all the time is found all the time, and what is acknowledged is found at once."""
    passages, rows = fill(index, 400)
    index.optimise()
    done = threading.Event()
    failures: list[Exception] = []

    def watched(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                while not done.is_set():
                    work()
            except Exception as error:  # noqa: BLE001 - the test says which
                failures.append(error)

        return run

    def search() -> None:
        at = int(time.monotonic_ns() % 100)
        assert ids(index, rows[at], depth=1) == [passages[at].passage_id]
        assert texts(index, f"w{at}") == [passages[at].text]
        time.sleep(0.01)

    def rewrite() -> None:
        index.upsert(passages[100:110], rows[100:110])
        time.sleep(0.03)

    threads = [start_thread(watched(work), name=f"test/{work.__name__}") for work in (search, search, rewrite)]
    try:
        for turn in (1, 2):
            start = 400 + 60 * turn
            index.upsert([passage(number) for number in range(start, start + 60)], vectors(60, seed=turn))
            assert texts(index, f"w{start + 30}") == [passage(start + 30).text]
            index.remove(f"d{20 + turn}")
            assert texts(index, f"w{200 + 10 * turn}") == []
            index.optimise()
    finally:
        done.set()
        for thread in threads:
            thread.join(30)
    assert failures == []
    assert index.size().passages == 400 + 120 - 20
    assert len(index.documents()) == 40 + 12 - 2
