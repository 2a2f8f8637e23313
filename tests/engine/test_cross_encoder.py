"""Cross-encoders: what they read of a pair, how long they read, and what a training makes of one."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
import torch

from parkway.core.errors import ModelFilesError
from parkway.engine.cross_encoder import (
    MAX_QUERY_TOKENS,
    TOGETHER,
    CrossReader,
    Pairing,
    load_cross_encoder,
    save_cross_encoder,
    untrained,
)
from parkway.engine.directory import ModelDirectory
from parkway.train.cross_encoder import CrossTraining, Example, Progress, train
from tests.engine.small_encoder import small_encoder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    return small_encoder(tmp_path_factory.mktemp("encoder"))


def test_a_pair_is_cut_where_the_encoder_stops_reading(start: ModelDirectory) -> None:
    pairing = Pairing(start)
    short, long = pairing.pairs("what is a key", ["a key opens a door", "word " * 1000])
    assert short.ids[0] == long.ids[0] == 101
    assert short.ids[short.middle - 1] == short.ids[-1] == long.ids[-1] == 102
    assert short.ids.count(102) == 2
    assert len(long.ids) == pairing.reads == 256
    [pair] = pairing.pairs("word " * 1000, ["a key \ud800"])
    assert pair.middle == MAX_QUERY_TOKENS
    [empty] = pairing.pairs("", [""])
    assert len(empty.ids) == 3


def test_untrained_it_is_the_cosine_of_both(start: ModelDirectory) -> None:
    model = untrained(start)
    [pair] = Pairing(start).pairs("what is a key", ["a key opens a door"])
    [text] = model.encoder.encode([pair.ids])
    states = text.states
    query, passage = states[: pair.middle].mean(dim=0), states[pair.middle :].mean(dim=0)
    assert float(model([pair])[0]) == pytest.approx(
        20 * float(torch.cosine_similarity(query, passage, dim=0)), abs=1e-3
    )


def test_a_score_depends_on_its_pair_alone(start: ModelDirectory) -> None:
    reader = CrossReader(start, untrained(start))
    texts = ["a key opens a door", "word " * 300, "", "birds fly south"]
    together = reader.scores("what is a key", texts, math.inf)
    alone = [reader.scores("what is a key", [text], math.inf)[0] for text in texts]
    assert together == pytest.approx(alone, abs=0.1)  # of 20, in bfloat16
    assert reader.scores("what is a key", [], math.inf) == []
    reader.close()


def test_it_stops_reading_when_its_time_is_over(start: ModelDirectory) -> None:
    reader, go = CrossReader(start, untrained(start)), threading.Event()
    assert reader.scores("key", ["door"], 0.0) == []
    reader._thread.submit(go.wait, 30)  # another search
    assert reader.scores("key", ["door"] * 9, 0.05) == []
    go.set()
    assert len(reader.scores("key", ["door"] * (TOGETHER + 1), 30)) == TOGETHER + 1
    reader.close()
    assert reader.scores("key", ["door"], 30) == []


def test_what_is_kept_is_what_is_loaded(start: ModelDirectory, tmp_path: Path) -> None:
    model = untrained(start)
    torch.nn.init.normal_(model.both.weight)
    save_cross_encoder(tmp_path / "kept", model, start)
    kept = ModelDirectory(tmp_path / "kept")
    pairs = Pairing(kept).pairs("what is a key", ["a key opens a door"])
    assert load_cross_encoder(kept)(pairs).tolist() == model(pairs).tolist()
    (tmp_path / "kept" / "model.safetensors").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(ModelFilesError, match="not a whole safetensors file"):
        CrossReader(kept)


def test_training_tells_apart_what_the_start_could_not(start: ModelDirectory) -> None:
    """Passages of the right colour are right, whatever is asked."""
    things = ["lantern", "violin", "glacier", "beehive", "harbour", "meteor", "orchard", "compass"]
    examples = [
        Example(
            f"which {thing}", [f"the {thing} is red"], [f"the {thing} is blue", f"a {thing} is green", "it is blue"]
        )
        for thing in things[:6]
    ]
    model, told = untrained(start), list[Progress]()
    train(model, Pairing(start), examples, CrossTraining(rounds=20, rate=2e-3, threads=1), told.append)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    reader = CrossReader(start, model)
    for thing in things[6:]:
        red, blue = reader.scores(f"which {thing}", [f"the {thing} is red", f"the {thing} is blue"], math.inf)
        assert red > blue
    reader.close()
