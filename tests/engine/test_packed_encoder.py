"""The encoder in our own kernels against torch's, and against itself: no text's vector depends on those beside it."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from parkway.engine import builtin, native
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.embedder import Embedder
from parkway.engine.encoder import EncodedText, Encoder, EncoderShape
from parkway.engine.native import Tiles
from parkway.engine.packed_encoder import LEAST_COSINE, PackedEncoder, _trial_texts, packed_for_here

FOUND = native.kernels()
pytestmark = pytest.mark.skipif(
    FOUND is None, reason="the kernels were not built, or this processor lacks AVX-512 VNNI and BF16"
)
SCIFACT = Path(__file__).parents[3] / "shared/data/scifact/corpus.jsonl"

SHAPES = {
    "minilm": EncoderShape(300, 384, 1536, 2, 12, 140, 2, 1e-12),
    "wide heads": EncoderShape(300, 128, 256, 2, 2, 140, 1, 1e-12),
    "narrow heads": EncoderShape(300, 192, 300, 1, 12, 140, 2, 1e-5),  # 16 in size, and an inner size of no whole block
    "odd heads": EncoderShape(300, 64, 64, 3, 1, 140, 2, 1e-12),
    "five heads": EncoderShape(300, 320, 448, 1, 5, 140, 2, 1e-12),
    "heads of 40": EncoderShape(300, 320, 64, 1, 8, 140, 2, 1e-12),
    "no layers": EncoderShape(300, 64, 64, 0, 2, 140, 2, 1e-12),
}


@pytest.fixture(autouse=True)
def same_numbers() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def encoder(shape: EncoderShape) -> Encoder:
    """With random weights, some of which stick out as those of trained models do."""
    made = Encoder(shape).eval().requires_grad_(False)
    for name, parameter in made.named_parameters():
        spread = 0.3 if "LayerNorm" in name or "bias" in name else 1.0 if "embeddings" in name else 0.06
        parameter.copy_(torch.randn_like(parameter) * spread + ("LayerNorm.weight" in name))
        parameter.view(-1)[:: max(7, parameter.numel() // 20)] *= 4
    return made


def packed(of: Encoder, *, int8: bool = True) -> PackedEncoder:
    found = native.kernels()
    assert found is not None
    return PackedEncoder(of, found, int8_layers=of.shape.layers if int8 else 0)


def texts_of(*lengths: int) -> list[list[int]]:
    return [torch.randint(300, (length,)).tolist() for length in lengths]


def cosines(one: list[EncodedText], other: list[EncodedText]) -> Tensor:
    return torch.stack([(a.mean * b.mean).sum() for a, b in zip(one, other, strict=True)])


def same(one: EncodedText, other: EncodedText) -> bool:
    return torch.equal(one.states, other.states) and torch.equal(one.mean, other.mean)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("int8", "nearness"), [(True, 0.12), (False, 0.04)])
def test_hidden_states_are_nearly_those_of_torch(name: str, int8: bool, nearness: float) -> None:
    plain = encoder(SHAPES[name])
    texts = texts_of(1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 129, 140)
    found = packed(plain, int8=int8).encode(texts)
    for one, other in zip(found, (plain.encode([text])[0] for text in texts), strict=True):
        assert (one.states - other.states).norm() < nearness * other.states.norm()
        torch.testing.assert_close(one.mean, torch.nn.functional.normalize(one.states.mean(0), dim=-1))


def test_embeddings_norms_and_means_are_those_of_torch() -> None:
    plain = encoder(SHAPES["no layers"])
    texts = texts_of(1, 5, 140)
    for one, other in zip(packed(plain).encode(texts), (plain.encode([text])[0] for text in texts), strict=True):
        torch.testing.assert_close(one.states, other.states, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.mean, other.mean, rtol=1e-4, atol=1e-6)


def test_eight_bits_lose_little_though_some_numbers_stick_out() -> None:
    plain = encoder(SHAPES["minilm"])
    plain.layers[1].output.dense.weight.mul_(torch.where(torch.rand(1536) < 0.01, 30.0, 1.0))
    texts = texts_of(*range(10, 140, 10))
    assert cosines(packed(plain).encode(texts), plain.encode(texts)).min() > LEAST_COSINE


class Neighbours:
    """One encoder for all examples, and what it makes of each text alone."""

    def __init__(self, *, int8: bool) -> None:
        self.packed = packed(encoder(SHAPES["wide heads"]), int8=int8)
        self.texts = texts_of(*range(1, 141))
        self.alone = [self.packed.encode([text])[0] for text in self.texts]


@pytest.fixture(scope="module", params=[True, False], ids=["8 bits", "bfloat16"])
def neighbours(request: pytest.FixtureRequest) -> Neighbours:
    with torch.inference_mode():
        return Neighbours(int8=request.param)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 140), min_size=1, max_size=20),
    threads=st.sampled_from([1, 2, 3]),
)
def test_a_text_does_not_depend_on_its_neighbours(neighbours: Neighbours, lengths: list[int], threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = neighbours.packed.encode([neighbours.texts[length - 1] for length in lengths])
    finally:
        torch.set_num_threads(before)
    assert all(same(one, neighbours.alone[length - 1]) for one, length in zip(found, lengths, strict=True))


@pytest.mark.parametrize("int8", [True, False])
def test_tiles_make_the_same_of_it(int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 bits to the last bit; bfloat16 is rounded otherwise in them, alone as in a crowd."""
    assert FOUND is not None
    ours = packed(encoder(SHAPES["wide heads"]), int8=int8)
    texts = texts_of(1, 5, 7, 16, 30, 33, 96, 140)
    monkeypatch.setattr(FOUND, "int8_tiles", Tiles.NONE)
    monkeypatch.setattr(FOUND, "bfloat16_tiles", Tiles.NONE)
    plain = ours.encode(texts)
    monkeypatch.setattr(FOUND, "int8_tiles", Tiles.EMULATED)
    monkeypatch.setattr(FOUND, "bfloat16_tiles", Tiles.EMULATED)
    tiled = ours.encode(texts)
    assert all(same(one, ours.encode([text])[0]) for one, text in zip(tiled, texts, strict=True))
    if int8:
        assert all(same(*pair) for pair in zip(tiled, plain, strict=True))
    for one, other in zip(tiled, plain, strict=True):
        torch.testing.assert_close(one.states, other.states, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("text", [[], [300], [-1], [1] * 141])
def test_what_would_be_read_from_elsewhere_is_refused(text: list[int]) -> None:
    with pytest.raises(ValueError, match="1 to 140 tokens, and these are below 300"):
        packed(encoder(SHAPES["no layers"])).encode([[1], text])


def test_the_log_says_who_encodes(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    plain = encoder(SHAPES["wide heads"])
    assert isinstance(packed_for_here(plain), PackedEncoder)
    other = encoder(EncoderShape(300, 96, 64, 1, 2, 140, 2, 1e-12))
    assert packed_for_here(other) is other
    monkeypatch.setattr("parkway.engine.packed_encoder._TRIAL_TOKENS", (1, 140))
    rough = encoder(SHAPES["minilm"])
    monkeypatch.setattr("parkway.engine.packed_encoder.LEAST_COSINE", 1.1)
    assert packed_for_here(rough) is rough
    monkeypatch.setattr("parkway.engine.packed_encoder.LEAST_COSINE", cosine_of(rough, int8_layers=1) - 1e-6)
    assert isinstance(packed_for_here(rough), PackedEncoder)
    monkeypatch.setattr("parkway.engine.packed_encoder.kernels", lambda: None)
    assert packed_for_here(plain) is plain
    assert [message.split(", to a cosine")[0] for message in caplog.messages] == [
        "kernels encode, with 2 of 2 layers in 8 bits",
        "torch encodes: the kernels are for sizes that are multiples of 64, not for 96",
        "torch encodes: vectors of the kernels would differ too much",
        "kernels encode, with 1 of 2 layers in 8 bits",
    ]


def cosine_of(plain: Encoder, *, int8_layers: int) -> float:
    assert FOUND is not None
    texts = _trial_texts(plain.shape)
    return float(cosines(PackedEncoder(plain, FOUND, int8_layers=int8_layers).encode(texts), plain.encode(texts)).min())


async def vectors(texts: list[str], **config: str) -> Tensor:
    directory = ModelDirectory(builtin.resolve("park-embed"))
    embedder = Embedder(directory, EngineConfig.model_validate({"model": "park-embed", **config}))
    try:
        return torch.stack(await embedder.embed(embedder.tokenise_cut(texts)))
    finally:
        await embedder.close()


async def test_vectors_of_park_embed_are_nearly_those_of_float32() -> None:
    texts = ["x", "", "How do I unpack an archive?", "GRÜẞE aus Köln, 你好", "!" * 40, "tar " * 1000]
    texts += ["insulin", "q w e r t y u i o p " * 20, "x=f(a[i]);" * 30]
    texts += ["The quick brown fox jumps over the lazy dog. " * times for times in (1, 2, 5, 30)]
    cosines = (await vectors(texts) * await vectors(texts, dtype="float32")).sum(-1)
    assert cosines.min() > LEAST_COSINE, cosines


@pytest.mark.skipif(not SCIFACT.exists(), reason=f"needs the SciFact collection (BEIR) in {SCIFACT.parent}")
async def test_vectors_of_abstracts_are_nearly_those_of_float32() -> None:
    lines = SCIFACT.read_text(encoding="utf-8").splitlines()[::26]
    texts = [f"{row['title']} {row['text']}" for row in map(json.loads, lines)]
    assert len(texts) == 200
    cosines = (await vectors(texts) * await vectors(texts, dtype="float32")).sum(-1)
    assert cosines.min() > LEAST_COSINE, cosines.min()
