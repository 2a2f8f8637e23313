"""Late interaction against plain loops over what transformers computes, its limits, and a judged collection."""

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from parkway.core.errors import ContextLengthExceeded, DeadlineExceeded, InvalidRequest, ParkwayError
from parkway.engine import builtin
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.embedder import Embedder
from parkway.engine.encoder import max_sim, token_vectors
from parkway.engine.packed_encoder import PackedEncoder

SCIFACT = Path(__file__).parents[3] / "shared/data/scifact"

QUERY = "how to unpack an archive"
DOCUMENTS = [
    "The weather is fine.",
    "Extract a tar file into a directory. " * 12,
    "x",
    "GRÜẞE aus Köln, 你好",
    "Unpacking archives: use tar.",
]


in_both_ways = pytest.mark.parametrize("embedder", ["auto", "float32"], indirect=True)


def load(**config: object) -> Embedder:
    directory = ModelDirectory(builtin.resolve("park-embed"))
    return Embedder(directory, EngineConfig.model_validate({"model": "park-embed", **config}))


@pytest.fixture
async def embedder(request: pytest.FixtureRequest) -> AsyncIterator[Embedder]:
    """Computes in the type that a test asks for."""
    embedder = load(dtype=getattr(request, "param", "auto"))
    yield embedder
    await embedder.close()


async def rank(embedder: Embedder, query: str, documents: list[str], max_tokens: int | None = None) -> list[float]:
    return await embedder.rank(
        embedder.tokenise_query(query), embedder.tokenise_documents(documents, max_tokens=max_tokens)
    )


def reference(query: list[list[float]], document: list[list[float]]) -> float:
    """MaxSim as one would write it on paper, from hidden states."""

    def cosine(one: list[float], other: list[float]) -> float:
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))

    return sum(max(cosine(token, other) for other in document) for token in query) / len(query)


@in_both_ways
async def test_scores_are_those_of_plain_loops_over_what_transformers_computes(embedder: Embedder) -> None:
    from transformers import AutoModel, AutoTokenizer

    path = builtin.resolve("park-embed")
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()

    def states(text: str) -> list[list[float]]:
        """Of one text alone, without [CLS] and [SEP]."""
        with torch.inference_mode():
            found = model(**tokenizer(text, truncation=False, return_tensors="pt")).last_hidden_state[0]
        return found[1:-1].double().tolist()

    query = states(QUERY)
    expected = [reference(query, states(document)) for document in DOCUMENTS]
    found = await rank(embedder, QUERY, DOCUMENTS)
    assert found == pytest.approx(expected, abs=0.01 if isinstance(embedder._loop._encoder, PackedEncoder) else 1e-5)
    assert max(found) == found[4]
    assert all(-1 <= score <= 1 for score in found)


def test_max_sim_takes_the_best_token_for_each_of_the_query() -> None:
    query = token_vectors(torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
    document = token_vectors(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [3.0, -4.0]]))
    assert float(max_sim(query, document)) == pytest.approx((1.0 + 0.0) / 2)
    assert float(max_sim(query[1:], document[2:])) == pytest.approx(-0.8)
    assert float(max_sim(query, query)) == 1.0


async def test_a_text_fits_itself_perfectly(embedder: Embedder) -> None:
    itself, another = await rank(embedder, QUERY, [QUERY, DOCUMENTS[0]])
    assert itself == pytest.approx(1, abs=1e-5)
    assert another < 0.7


@in_both_ways
async def test_neighbours_change_nothing(embedder: Embedder) -> None:
    """Alone, with other documents, and beside other requests."""
    alone = [(await rank(embedder, QUERY, [document]))[0] for document in DOCUMENTS]
    together, turned, *_ = await asyncio.gather(
        rank(embedder, QUERY, DOCUMENTS),
        rank(embedder, QUERY, DOCUMENTS[::-1]),
        *(embedder.embed(embedder.tokenise([document * 3])) for document in DOCUMENTS[2:]),
    )
    assert together == pytest.approx(alone, abs=1e-5)
    assert turned[::-1] == pytest.approx(alone, abs=1e-5)


async def test_equal_documents_get_equal_scores_and_are_read_once(embedder: Embedder) -> None:
    before = embedder.texts
    scores = await rank(embedder, QUERY, [*DOCUMENTS, *DOCUMENTS[::-1], "The weather is fine."])
    assert scores[:5] == scores[5:10][::-1]
    assert scores[10] == scores[0]
    assert embedder.texts - before == 1 + len(DOCUMENTS)


async def test_a_cut_document_is_as_good_as_its_beginning(embedder: Embedder) -> None:
    long, short = "tar " * 300, "tar " * 7
    [cut] = embedder.tokenise_documents([long], 7)
    assert cut == embedder.tokenise_documents([short], None)[0]
    assert embedder.tokenise_documents([short], 100) == embedder.tokenise_documents([short], None)
    assert len(embedder.tokenise_documents([long], 254)[0]) == 256
    assert await rank(embedder, QUERY, [long], 7) == await rank(embedder, QUERY, [short])


@pytest.mark.parametrize(
    ("query", "documents", "max_tokens", "error", "param", "said"),
    [
        ("word " * 300, ["a"], None, ContextLengthExceeded, "query", "`query` has 300 tokens.*at most 254"),
        ("", ["a"], None, InvalidRequest, "query", "`query` is empty"),
        (" \n", ["a"], None, InvalidRequest, "query", "`query` is empty"),
        ("q", ["a", ""], None, InvalidRequest, "documents.1", "document 1 of `documents` is empty"),
        ("q", ["a", "b", " "], None, InvalidRequest, "documents.2", "document 2 of `documents` is empty"),
        ("q", ["a", "w " * 300], None, ContextLengthExceeded, "documents.1", "document 1 .* has 300 tokens.*most 254"),
        ("q", ["w " * 300], 255, ContextLengthExceeded, "documents.0", "`max_tokens_per_doc` of at most 254"),
        ("q", ["a"] * 1001, None, InvalidRequest, "documents", "has 1001 documents; at most 1000"),
    ],
)
async def test_limits_are_told_with_numbers(
    embedder: Embedder,
    query: str,
    documents: list[str],
    max_tokens: int | None,
    error: type[ParkwayError],
    param: str,
    said: str,
) -> None:
    with pytest.raises(error, match=said) as caught:
        await rank(embedder, query, documents, max_tokens)
    assert caught.value.param == param


async def test_special_tokens_in_a_text_are_its_own(embedder: Embedder) -> None:
    [document] = embedder.tokenise_documents(["[SEP] a [CLS]"], None)
    assert document == [101, 102, 1037, 101, 102]
    assert len(await embedder.rank(embedder.tokenise_query("[CLS]"), [document])) == 1


async def test_scores_that_take_too_long_are_given_up() -> None:
    embedder = load(request_timeout_s=0.2)
    documents = [f"{number} and other words that take a while " * 20 for number in range(60)]
    with pytest.raises(DeadlineExceeded, match=r"scores were not there within 0.2 s"):
        await rank(embedder, QUERY, documents)
    assert embedder.waiting == 0
    await embedder.close()
    assert embedder.texts < 60


@pytest.mark.skipif(not SCIFACT.exists(), reason=f"needs the SciFact collection (BEIR) in {SCIFACT}")
async def test_what_judges_found_relevant_comes_first(embedder: Embedder) -> None:
    """Claims against abstracts: the cited one among 29 others, by the first 64 tokens of each."""
    choose = random.Random(1)
    corpus = {row["_id"]: f"{row['title']} {row['text']}" for row in _rows("corpus.jsonl")}
    claims = {row["_id"]: row["text"] for row in _rows("queries.jsonl")}
    cited: dict[str, set[str]] = {}
    for line in (SCIFACT / "qrels.tsv").read_text().splitlines()[1:]:
        claim, document, _ = line.split("\t")
        cited.setdefault(claim, set()).add(document)
    ranks: list[int] = []
    for claim in choose.sample(sorted(cited), 15):
        relevant = choose.choice(sorted(cited[claim]))
        others = choose.sample(sorted(corpus.keys() - cited[claim]), 29)
        scores = await rank(embedder, claims[claim], [corpus[name] for name in (relevant, *others)], 64)
        ranks.append(1 + sum(score >= scores[0] for score in scores[1:]))
    mean_reciprocal_rank = sum(1 / rank for rank in ranks) / len(ranks)
    # By chance it would be 0.13.
    assert mean_reciprocal_rank > 0.8, ranks


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (SCIFACT / name).read_text(encoding="utf-8").splitlines()]
