"""Our own kernels against torch, and against themselves: a row's result must not depend on the rows beside it."""

import math
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from parkway.engine import linear as linear_module
from parkway.engine import native
from parkway.engine.attention import NativeAttention, PagedAttention, Span
from parkway.engine.cache import BLOCK_TOKENS, KVCache, blocks_for
from parkway.engine.linear import Bfloat16Linear, Int8Linear, PackedEmbedding, Shelf
from parkway.engine.native import Kernels, Tiles
from parkway.engine.shape import ModelShape
from tests.engine.test_engine import finish, load, new
from tests.engine.tiny import CONFIGS, reference, state_of, write_directory

FOUND = native.kernels()
pytestmark = [
    pytest.mark.skipif(
        FOUND is None, reason="the kernels were not built, or this processor lacks AVX-512 VNNI and BF16"
    ),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SIZES = [
    (1, 64, 64),
    (2, 100, 70),
    (3, 34, 1),
    (5, 896, 130),
    (7, 66, 64),
    (13, 256, 200),
    (199, 48, 65),
    (400, 320, 96),
]


@pytest.fixture
def kernels() -> Kernels:
    found = native.kernels()  # a test may have had them loaded anew
    assert found is not None
    return found


AMX = FOUND is not None and FOUND.int8_tiles is FOUND.bfloat16_tiles is Tiles.REAL
WHOSE = [Tiles.NONE, Tiles.EMULATED, *([Tiles.REAL] if AMX else [])]


@pytest.fixture(params=WHOSE, ids=lambda tiles: tiles.name.lower())
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kernels: Kernels) -> Tiles:
    """Whose tiles multiply the matrices of a test: nobody's, emulated ones, and the processor's where it has them."""
    monkeypatch.setattr(kernels, "int8_tiles", request.param)
    monkeypatch.setattr(kernels, "bfloat16_tiles", request.param)
    return request.param


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def bfloat16(*size: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(*size) * scale).bfloat16()


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("rows", "inputs", "channels"), SIZES)
def test_a_bfloat16_matrix_is_multiplied_as_torch_does(rows: int, inputs: int, channels: int, biased: bool) -> None:
    weight, x = bfloat16(channels, inputs), bfloat16(rows, inputs)
    bias = bfloat16(channels) if biased else None
    out = Bfloat16Linear([weight], bias, Shelf())(x)
    expected = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=2e-2)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("rows", "inputs", "channels"), SIZES)
def test_an_8_bit_matrix_is_multiplied_as_its_definition_says(
    rows: int, inputs: int, channels: int, biased: bool, dtype: torch.dtype
) -> None:
    weight, x = torch.randn(channels, inputs), torch.randn(rows, inputs).to(dtype)
    packed = Int8Linear([weight], torch.randn(channels) if biased else None, Shelf())
    exact = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(packed(x), packed.reference(x), **exact)
    plain = F.linear(x.float(), weight, packed._bias)
    assert (packed(x).float() - plain).norm() < 0.02 * x.float().norm() * weight.norm() / math.sqrt(inputs)


def test_without_the_kernels_8_bits_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias, x = torch.randn(70, 100), torch.randn(70), torch.randn(9, 100)
    packed = Int8Linear([weight], bias, Shelf())
    monkeypatch.setattr(linear_module, "kernels", lambda: None)
    plain = Int8Linear([weight], bias, Shelf())
    torch.testing.assert_close(plain(x), packed(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(plain.weight_int8(), packed.weight_int8())
    indices = torch.tensor([0, 69, 3, 64])
    assert torch.equal(plain.rows(indices), packed.rows(indices))
    torch.testing.assert_close(plain.rows(indices), weight[indices], rtol=0, atol=0.03)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("kind", [Bfloat16Linear, Int8Linear])
def test_a_row_does_not_depend_on_its_neighbours(kind: type[Bfloat16Linear] | type[Int8Linear]) -> None:
    packed = kind([bfloat16(200, 160)], None, Shelf())
    x = bfloat16(401, 160)
    whole = packed(x)
    for start, end in ((0, 1), (5, 7), (190, 197), (192, 401), (400, 401)):
        assert torch.equal(packed(x[start:end]), whole[start:end])


SHAPES = [(64, 64), (128, 200), (896, 33), (4864, 65)]
ROWS = [1, 5, 6, 7, 15, 16, 17, 31, 32, 33, 48, 70, 192, 193]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("inputs", "channels"), [*SHAPES, (100, 70)])
def test_tiles_multiply_8_bits_to_the_same_bits(
    tiles: Tiles, inputs: int, channels: int, dtype: torch.dtype, kernels: Kernels
) -> None:
    packed = Int8Linear([torch.randn(channels, inputs)], torch.randn(channels), Shelf())
    x = torch.randn(max(ROWS), inputs).to(dtype)
    kernels.int8_tiles = Tiles.NONE
    expected = packed(x)
    kernels.int8_tiles = tiles
    for rows in ROWS if inputs < 1000 else ROWS[:-2]:
        assert torch.equal(packed(x[:rows]), expected[:rows])


@pytest.mark.parametrize(("inputs", "channels"), SHAPES)
def test_tiles_multiply_bfloat16_to_nearly_the_same_and_alone_as_in_a_crowd(
    tiles: Tiles, inputs: int, channels: int, kernels: Kernels
) -> None:
    packed = Bfloat16Linear([bfloat16(channels, inputs)], bfloat16(channels), Shelf())
    x = bfloat16(max(ROWS), inputs)
    kernels.bfloat16_tiles = Tiles.NONE
    plain = packed(x)
    kernels.bfloat16_tiles = tiles
    whole = packed(x)
    torch.testing.assert_close(whole.float(), plain.float(), rtol=1e-2, atol=1e-2)
    for rows in ROWS if inputs < 1000 else ROWS[:-2]:
        assert torch.equal(packed(x[:rows]), whole[:rows])
        assert torch.equal(packed(x[-rows:]), whole[-rows:])


def test_a_bfloat16_matrix_that_fills_no_tiles_is_multiplied_without(
    tiles: Tiles, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, x = Bfloat16Linear([bfloat16(70, 80)], None, Shelf()), bfloat16(40, 80)
    assert not packed.tiled
    found = packed(x)
    monkeypatch.setattr(kernels, "bfloat16_tiles", Tiles.NONE)
    assert torch.equal(packed(x), found)


@pytest.mark.usefixtures("tiles")
def test_numbers_too_small_for_tiles_are_nothing() -> None:
    """The instructions without tiles take them for zero, too."""
    packed = Bfloat16Linear([bfloat16(64, 64, scale=1e-39)], None, Shelf())
    assert torch.equal(packed(bfloat16(3, 64)), torch.zeros(3, 64).bfloat16())
    packed = Bfloat16Linear([bfloat16(64, 64, scale=1e-20)], None, Shelf())
    assert torch.equal(packed(bfloat16(3, 64, scale=1e-22)), torch.zeros(3, 64).bfloat16())


@pytest.mark.skipif(not AMX, reason="this processor has no tiles (AMX); they are tried in emulation only")
def test_the_processors_own_tiles_round_as_the_emulation_says(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, x = Bfloat16Linear([bfloat16(200, 896)], None, Shelf()), bfloat16(70, 896)
    found = packed(x)
    monkeypatch.setattr(kernels, "bfloat16_tiles", Tiles.EMULATED)
    assert torch.equal(packed(x), found)


@pytest.mark.parametrize(
    ("found", "warned"), [(0, ""), (15, ""), (12, "8 bits bfloat16"), (14, "8 bits"), (8, "bfloat16")]
)
def test_tiles_that_do_not_work_are_not_used(found: int, warned: str, caplog: pytest.LogCaptureFixture) -> None:
    library = SimpleNamespace(parkway_tiles=lambda: found)
    int8, bfloat16_ = native._tiles(library)  # pyright: ignore[reportArgumentType]
    assert (int8 is Tiles.REAL, bfloat16_ is Tiles.REAL) == (bool(found & 1), bool(found & 2))
    assert " ".join(record.args[0] for record in caplog.records) == warned


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("kind", [Bfloat16Linear, Int8Linear])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_stays_none_in_its_own_row(kind: type[Bfloat16Linear] | type[Int8Linear], bad: float) -> None:
    packed = kind([bfloat16(70, 64).abs()], None, Shelf())
    x = bfloat16(8, 64)
    before = packed(x)
    x[3, 5] = bad
    after = packed(x)
    assert not torch.isfinite(after[3]).any()
    others = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(after[others], before[others])


@pytest.mark.usefixtures("tiles")
def test_a_row_of_zeros_gives_the_bias() -> None:
    bias = torch.randn(70)
    packed = Int8Linear([torch.randn(70, 64)], bias, Shelf())
    assert torch.equal(packed(torch.zeros(2, 64)), bias.expand(2, 70))


@pytest.mark.parametrize("kind", [Bfloat16Linear, Int8Linear])
def test_the_embedding_is_read_from_the_heads_matrix(kind: type[Bfloat16Linear] | type[Int8Linear]) -> None:
    weight = bfloat16(130, 64)
    embedding = PackedEmbedding(kind([weight], None, Shelf()), torch.bfloat16)
    indices = torch.tensor([0, 129, 64, 64])
    torch.testing.assert_close(embedding(indices), weight[indices], rtol=2e-2, atol=2e-2)
    if kind is Bfloat16Linear:
        assert torch.equal(embedding(indices), weight[indices])


def test_a_shelf_holds_many_matrices_and_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "_CHUNK", 4096)
    shelf = Shelf()
    tensors = [torch.randint(0, 256, (size,), dtype=torch.uint8) for size in (1, 63, 64, 4000, 100, 9000, 7)]
    kept = [shelf.room(tensor.shape, tensor.dtype) for tensor in tensors]
    for place, tensor in zip(kept, tensors, strict=True):
        place.copy_(tensor)
    assert all(torch.equal(one, other) for one, other in zip(kept, tensors, strict=True))
    assert all(each.data_ptr() % 64 == 0 for each in kept)


@pytest.mark.parametrize("kind", [Bfloat16Linear, Int8Linear])
@pytest.mark.parametrize("sizes", [(1,), (64,), (64, 128, 64), (3, 70, 1, 130)])
def test_matrices_are_packed_one_below_the_other(
    kind: type[Bfloat16Linear] | type[Int8Linear], sizes: tuple[int, ...]
) -> None:
    weights = [bfloat16(size, 74) for size in sizes]
    packed, x = kind(weights, None, Shelf()), bfloat16(3, 74)
    alone = [kind([weight.t().contiguous().t()], None, Shelf())(x) for weight in weights]  # lie column by column
    assert torch.equal(packed(x), torch.cat(alone, dim=-1))


def shape(heads: int, kv_heads: int, head_dim: int) -> ModelShape:
    config = {
        "model_type": "qwen3",
        "vocab_size": 8,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    }
    return ModelShape.from_config(config)


class Case:
    """Sequences with a past in the cache, and new tokens."""

    def __init__(self, sizes: list[tuple[int, int]], heads: int, kv_heads: int, head_dim: int, seed: int) -> None:
        """`sizes`: of each sequence, the tokens that the cache holds and the new ones."""
        torch.manual_seed(seed)
        total = sum(blocks_for(past + new) for past, new in sizes)
        self.blocks = total
        free = random.Random(seed).sample(range(total), total)
        self.spans = [
            Span([free.pop() for _ in range(blocks_for(past + new))], past, new)
            for past, new in sorted(sizes, key=lambda size: size[1] > 1)
        ]
        rows = sum(span.count for span in self.spans)
        self.shape = shape(heads, kv_heads, head_dim)
        self.past = bfloat16(2, total * BLOCK_TOKENS, kv_heads, head_dim)
        self.q = bfloat16(rows, heads, head_dim)
        self.k, self.v = bfloat16(rows, kv_heads, head_dim), bfloat16(rows, kv_heads, head_dim)

    def cache(self, kind: type[PagedAttention] = NativeAttention) -> KVCache:
        cache = KVCache(self.shape, torch.bfloat16, blocks=self.blocks)
        for part, past in zip(cache.layer(0), self.past if kind is PagedAttention else turned(*self.past), strict=True):
            part[: len(past)].copy_(past)
        return cache

    def attend(self, kind: type[PagedAttention]) -> tuple[Tensor, KVCache]:
        cache = self.cache(kind)
        return kind(cache, self.spans, torch.bfloat16)(0, self.q, self.k, self.v), cache


def turned(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [places, kv_heads, head_dim] as the kernel wants their pages, in the same size."""
    by_dimensions = keys.unflatten(2, (-1, 2)).unflatten(0, (-1, BLOCK_TOKENS)).permute(0, 2, 3, 1, 4)
    by_tokens = values.unflatten(0, (-1, BLOCK_TOKENS // 2, 2)).permute(0, 3, 1, 4, 2)
    return by_dimensions.reshape(keys.shape), by_tokens.reshape(values.shape)


@pytest.fixture(params=[64, native.PART])
def part(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that one thread reads: so few that the tests' sequences are divided, and so many that they are not."""
    monkeypatch.setattr(native, "PART", request.param)


SEQUENCES = st.lists(st.tuples(st.integers(0, 150), st.integers(1, 70)), min_size=1, max_size=5)


@pytest.mark.usefixtures("part")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SEQUENCES, st.sampled_from([(4, 2, 32), (7, 1, 64), (2, 2, 128), (18, 2, 96)]), st.integers(0, 1000))
def test_attention_over_pages_is_attention(
    sizes: list[tuple[int, int]], heads: tuple[int, int, int], seed: int
) -> None:
    case = Case(sizes, *heads, seed)
    out, cache = case.attend(NativeAttention)
    expected, other = case.attend(PagedAttention)
    torch.testing.assert_close(out.float(), expected.float(), rtol=3e-2, atol=2e-2)
    assert all(torch.equal(one, two) for one, two in zip(cache.layer(0), turned(*other.layer(0)), strict=True))


@pytest.mark.usefixtures("part")
def test_a_query_gets_the_same_alone_in_parts_and_in_a_crowd() -> None:
    case = Case([(0, 150), (40, 9), (70, 1)], 6, 2, 64, seed=3)
    whole, _ = case.attend(NativeAttention)
    first = 0
    for span in case.spans:
        cache = case.cache()
        for done in range(0, span.count, 7):
            count = min(7, span.count - done)
            rows = slice(first + done, first + done + count)
            attention = NativeAttention(cache, [Span(span.table, span.start + done, count)], torch.bfloat16)
            assert torch.equal(attention(0, case.q[rows], case.k[rows], case.v[rows]), whole[rows])
        first += span.count


def test_a_long_sequence_is_divided_and_gets_what_torch_makes_of_it() -> None:
    case = Case([(3000, 1), (2040, 40), (5, 1)], 6, 2, 64, seed=4)
    out, _ = case.attend(NativeAttention)
    expected, _ = case.attend(PagedAttention)
    torch.testing.assert_close(out.float(), expected.float(), rtol=3e-2, atol=1e-2)


def test_idle_rows_behind_the_others_stay_zero() -> None:
    case = Case([(5, 3)], 4, 2, 32, seed=1)
    case.q = torch.cat([case.q, bfloat16(2, 4, 32)])
    out, _ = case.attend(NativeAttention)
    assert torch.equal(out[3:], torch.zeros_like(out[3:]))
    assert bool(out[:3].any())


@pytest.mark.usefixtures("part")
def test_scores_that_are_no_numbers_are_not_hidden() -> None:
    case = Case([(140, 2), (10, 2)], 4, 2, 32, seed=1)
    case.q[0, 1, 3] = math.nan
    out, _ = case.attend(NativeAttention)
    assert out[0, 1].isnan().all()
    assert torch.isfinite(out[1:]).all()


@pytest.mark.parametrize("size", [16, 30, 64, 896, 901])
@pytest.mark.parametrize("rows", [1, 3, 200])
def test_a_norm_is_that_of_torch(kernels: Kernels, rows: int, size: int) -> None:
    x, weight = bfloat16(rows, 2, size, scale=3), bfloat16(size)
    out = kernels.rms_norm(x[:, 1], weight, 1e-5)
    expected = F.rms_norm(x[:, 1].float(), (size,), weight.float(), 1e-5)
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=1e-3)
    assert torch.equal(kernels.rms_norm(x[:1, 1], weight, 1e-5), out[:1])


@pytest.mark.parametrize(("tokens", "heads", "size"), [(1, 2, 32), (5, 3, 64), (300, 14, 64), (2, 1, 20)])
def test_a_rotation_is_that_of_torch(kernels: Kernels, tokens: int, heads: int, size: int) -> None:
    whole = bfloat16(tokens, heads + 2, size)
    x = whole[:, 1 : heads + 1]
    angles = torch.randn(tokens, 1, size // 2).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    first, second = x.float().chunk(2, dim=-1)
    expected = x.float() * cos + torch.cat((-second, first), dim=-1) * sin
    torch.testing.assert_close(kernels.rotate(x, cos, sin).float(), expected, rtol=1e-2, atol=1e-3)
    turned = x.transpose(0, 1).contiguous().transpose(0, 1)  # lies head by head
    assert torch.equal(kernels.rotate(turned, cos, sin), kernels.rotate(x, cos, sin))


@pytest.mark.parametrize(("rows", "size"), [(1, 16), (3, 100), (300, 4864)])
def test_a_gate_is_that_of_torch(kernels: Kernels, rows: int, size: int) -> None:
    gate, up = bfloat16(rows, 2 * size, scale=20).split(size, dim=-1)
    out = kernels.gate(gate, up)
    torch.testing.assert_close(out.float(), F.silu(gate.float()) * up.float(), rtol=1e-2, atol=1e-3)
    assert torch.equal(kernels.gate(gate.t().contiguous().t(), up), out)
    extremes = torch.tensor([[-1e30, -200.0, -0.0, 200.0, 1e30, math.nan, math.inf, -math.inf]]).bfloat16()
    ones = torch.ones_like(extremes)
    torch.testing.assert_close(kernels.gate(extremes, ones)[:, :7], F.silu(extremes)[:, :7], equal_nan=True)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_quantised_model_scores_nearly_as_the_whole_one(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    path = write_directory(tmp_path, config, tensors=state_of(reference(config)))
    prompt = [random.Random(1).randrange(300) for _ in range(40)]
    scores = []
    for settings_ in ({"dtype": "float32"}, {"dtype": "float32", "quantization": "int8"}, {"quantization": "int8"}):
        generator = load(path, **({"dtype": "bfloat16"} | settings_))
        sequence = new(generator, prompt, 1, logprobs=3)
        sequence.scores_prompt = True
        finish(generator, sequence)
        scores.append(torch.tensor([each.logprob for each in sequence.scored]))
    for rounded in scores[1:]:
        assert (rounded - scores[0]).abs().mean() < 0.1


@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("amx", [False, True])
def test_determinism_needs_no_pieces_where_the_kernels_run(
    quantization: str, amx: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    path = write_directory(tmp_path, CONFIGS["qwen3-grouped-yarn"])
    generator = load(path, dtype="bfloat16", deterministic=True, quantization=quantization)
    assert issubclass(generator.engine._backend.attention, NativeAttention)
    names = {type(module).__name__ for module in generator.engine._decoder.modules() if isinstance(module, nn.Linear)}
    assert "_Tiled" not in names


@pytest.mark.usefixtures("no_kernels")
def test_the_kernels_can_be_switched_off() -> None:
    assert native.kernels() is None


def test_tiles_alone_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    native.kernels.cache_clear()
    monkeypatch.setenv("PARKWAY_KERNELS", "no-tiles")
    monkeypatch.setattr(native, "_tiles", lambda _library: pytest.fail("asked for tiles"))
    try:
        found = native.kernels()
        assert found is not None
        assert found.int8_tiles is found.bfloat16_tiles is Tiles.NONE
    finally:
        native.kernels.cache_clear()


def test_a_library_from_other_sources_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    native.kernels.cache_clear()
    monkeypatch.setattr(native, "LIBRARY", Path(shutil.copy(native.LIBRARY, tmp_path)))
    try:
        assert native.kernels() is None
        assert "install Parkway again" in caplog.text
    finally:
        native.kernels.cache_clear()
