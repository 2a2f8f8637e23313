"""Training a ranker, from a judged collection to the file that a search reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from parkway.launch.encoding import Encoding
from parkway.launch.ranker_training import index_of, trained, write
from parkway.retrieval.evaluation import Question
from parkway.retrieval.judged import Judged
from parkway.retrieval.ranking.ranker import Ranker

THINGS = ["lanterns", "violins", "glaciers", "beehives", "harbours", "meteors", "orchards", "compasses"]


def test_a_ranker_is_trained_by_what_park_embed_and_the_index_find(tmp_path: Path) -> None:
    collection = Judged(
        {thing: (f"About {thing}", f"Here stands what people have written of {thing}.") for thing in THINGS},
        [Question(f"who wrote of {thing}", [thing]) for thing in THINGS],
    )
    encoding = Encoding("park-embed")
    index = index_of(collection, tmp_path / "index", encoding.encoder, encoding.embed)
    try:
        weights = trained(collection, index, encoding.embed)
    finally:
        index.close()
        encoding.close()
    write(weights, tmp_path / "ranker.json")
    assert Ranker.load("english", tmp_path / "ranker.json").weights == weights
    assert weights.weights["keyword"] > 0
    assert set(weights.confidence) == {"cosine", "coverage", "near", "agreement", "bias"}


def test_an_encoding_cuts_what_is_not_read_and_keeps_the_order() -> None:
    encoding = Encoding("park-embed")
    try:
        texts = ["word " * 1000, "a cat", "", "a kitten"]
        vectors = encoding.embed(texts)
        assert vectors.shape == (4, encoding.dimensions)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert vectors[1] @ vectors[3] > 0.5 > vectors[1] @ vectors[0]
        assert encoding.encoder.count(texts)[0] > encoding.reads > encoding.encoder.count(texts)[1]
        assert encoding.embed([]).shape == (0, encoding.dimensions)
    finally:
        encoding.close()
