"""Sentence embeddings against transformers, on the built-in model's own files."""

import asyncio

import pytest
import torch

from parkway.core.errors import ContextLengthExceeded, InvalidRequest, ModelFilesError, Overloaded
from parkway.engine import builtin
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.embedder import Embedder
from parkway.engine.encoder import EncoderShape

TEXTS = ["A cat sits on the mat.", "short", "Unpack an archive into another directory, please. " * 8, "ÜBER köln"]


def embedder(**config: object) -> Embedder:
    return Embedder(
        ModelDirectory(builtin.resolve("park-embed")), EngineConfig.model_validate({"model": "park-embed", **config})
    )


async def test_vectors_in_float32_are_those_of_transformers() -> None:
    from transformers import AutoModel, AutoTokenizer

    path = builtin.resolve("park-embed")
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    with torch.inference_mode():
        inputs = tokenizer(TEXTS, padding=True, truncation=False, return_tensors="pt")
        hidden = model(**inputs).last_hidden_state
    weight = inputs["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)
    ours = embedder(dtype="float32")
    found = torch.stack(await ours.embed(ours.tokenise(TEXTS)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    await ours.close()


@pytest.mark.parametrize("dtype", ["auto", "float32"])
async def test_neighbours_in_a_batch_change_nothing(dtype: str) -> None:
    ours = embedder(dtype=dtype)
    texts = ours.tokenise([*TEXTS, *TEXTS[::-1]])
    together, *alone = await asyncio.gather(ours.embed(texts), *(ours.embed([text]) for text in texts))
    for one, [other] in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert float(one.norm()) == pytest.approx(1.0, abs=1e-5)
    await ours.close()


async def test_limits_are_told_with_numbers() -> None:
    ours = embedder()
    with pytest.raises(ContextLengthExceeded, match=r"text 1 of `input` has 302 tokens.*at most 256"):
        ours.tokenise(["fine", "word " * 300])
    assert len(ours.tokenise(["word " * 254])[0]) == 256
    with pytest.raises(InvalidRequest, match="99999999 is no token id"):
        ours.tokenise([[101, 99999999, 102]])
    with pytest.raises(InvalidRequest, match="3000 texts"):
        ours.tokenise(["a"] * 3000)
    await ours.close()


async def test_a_full_queue_refuses_and_an_abandoned_text_hurts_nobody() -> None:
    ours = embedder(queue_limit=1)
    texts = ours.tokenise(["word " * 200] * 50)
    jobs = [asyncio.ensure_future(ours.embed(texts)) for _ in range(20)]
    await asyncio.sleep(0)
    refused = [job for job in jobs if job.done() and isinstance(job.exception(), Overloaded)]
    assert refused
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    [vector] = await ours.embed(ours.tokenise(["still here"]))
    assert vector.shape == (384,)
    await ours.close()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"hidden_act": "relu"}, "hidden_act"), ({"vocab_size": None}, "size"), ({"hidden_size": "x"}, "size")],
)
def test_other_encoders_are_refused_by_name(change: dict[str, object], named: str) -> None:
    config = ModelDirectory(builtin.resolve("park-embed")).config
    with pytest.raises(ModelFilesError, match=named):
        EncoderShape.from_config({**config, **change})


def test_built_in_names_are_not_paths() -> None:
    assert builtin.resolve("park-mini").parts[-3:] == ("parkway", "models", "park-mini")
    assert str(builtin.resolve("elsewhere/park-mini")) == "elsewhere/park-mini"
