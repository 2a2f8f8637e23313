"""Attention in Triton against torch's: on a GPU where there is one, else in Triton's interpreter."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parkway.engine.attention import PagedAttention, Span
from parkway.engine.backend import Backend
from parkway.engine.cache import KVCache
from parkway.engine.device import CPU, choose_device, moved
from parkway.engine.runner import Runner
from tests.engine.test_engine import finish, load, new
from tests.engine.test_native import Case, shape
from tests.engine.tiny import CONFIGS, write_directory

paged_triton = pytest.importorskip("parkway.engine.paged_triton", reason="needs triton, which there is for Linux only")

DEVICE = choose_device("auto")
HEADS = [(4, 2, 32), (7, 1, 64), (2, 2, 128), (18, 2, 24)]
# numpy, which the interpreter computes with, has no bfloat16; float16 takes the same path.
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE != CPU else [])]
EXACT = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def attend(case: Case, kind: type[PagedAttention], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, KVCache]:
    """On `device`; results on the CPU."""
    cache = KVCache(case.shape, dtype, blocks=case.blocks, device=device)
    for part, past in zip(cache.layer(0), case.past, strict=True):
        part[: len(past)].copy_(past)
    q, k, v = (moved(each.to(dtype), device) for each in (case.q, case.k, case.v))
    return kind(cache, case.spans, dtype)(0, q, k, v).cpu(), cache


def compare(case: Case, dtype: torch.dtype) -> None:
    out, cache = attend(case, paged_triton.TritonAttention, dtype, DEVICE)
    expected, other = attend(case, PagedAttention, dtype, CPU)
    torch.testing.assert_close(out, expected, rtol=EXACT[dtype], atol=EXACT[dtype])
    assert all(torch.equal(one.cpu(), two) for one, two in zip(cache.layer(0), other.layer(0), strict=True))


SEQUENCES = st.lists(st.tuples(st.integers(0, 150), st.integers(1, 40)), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(SEQUENCES, st.sampled_from(HEADS), st.sampled_from(DTYPES), st.integers(0, 1000))
def test_attention_in_triton_is_attention(
    sizes: list[tuple[int, int]], heads: tuple[int, int, int], dtype: torch.dtype, seed: int
) -> None:
    compare(Case(sizes, *heads, seed), dtype)


@pytest.mark.parametrize(("heads", "parts"), list(zip(HEADS, (2, 5, 3, 32), strict=True)))
def test_keys_may_be_read_in_parts(heads: tuple[int, int, int], parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in parts that are empty, or hidden from some of the queries."""
    monkeypatch.setattr(paged_triton, "_LEAST_PART", 64)
    monkeypatch.setattr(paged_triton, "_parts", lambda *_: parts)
    compare(Case([(700, 1), (0, 1), (63, 1), (64, 1), (200, 9), (0, 70)], *heads, seed=2), torch.float32)


def test_few_programs_read_in_parts_and_many_do_not() -> None:
    assert paged_triton._parts(1, 256, CPU) == 1
    assert paged_triton._parts(1, 4096, CPU) == 8
    assert paged_triton._parts(4, 4096, CPU) == 2
    assert paged_triton._parts(100, 4096, CPU) == 1


def test_idle_rows_behind_the_others_stay_zero() -> None:
    case = Case([(5, 3)], 4, 2, 32, seed=1)
    case.q = torch.cat([case.q, torch.ones(2, 4, 32)])
    out, _ = attend(case, paged_triton.TritonAttention, torch.float32, DEVICE)
    assert torch.equal(out[3:], torch.zeros_like(out[3:]))
    assert bool(out[:3].any())


def test_scores_that_are_no_numbers_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case([(40, 2), (100, 2)], 4, 2, 32, seed=1)
    case.q[0, 1, 3] = math.nan
    for parts in (1, 3):
        monkeypatch.setattr(paged_triton, "_parts", lambda *_, parts=parts: parts)
        out, _ = attend(case, paged_triton.TritonAttention, torch.float32, DEVICE)
        assert out[0, 1].isnan().all()
        assert torch.isfinite(out[1:]).all()


def test_what_lies_behind_a_sequence_in_its_last_block_is_not_read() -> None:
    case = Case([(40, 1), (3, 5)], 4, 2, 32, seed=1)
    for span in case.spans:
        last = span.table[-1] * 32
        case.past[:, last + span.end % 32 : last + 32] = math.nan
    out, _ = attend(case, paged_triton.TritonAttention, torch.float32, DEVICE)
    assert torch.isfinite(out).all()


def test_a_plan_has_a_piece_for_every_few_tokens() -> None:
    plan = paged_triton.Plan.of([Span([7], 4, 1), Span([3, 9], 30, 5)], most=4)
    assert plan.positions == [4, 30, 31, 32, 33, 34]
    assert plan.places == [7 * 32 + 4, 3 * 32 + 30, 3 * 32 + 31, 9 * 32, 9 * 32 + 1, 9 * 32 + 2]
    assert plan.pieces == [0, 1, 4, 0, 1, 4, 30, 1, 5, 1, 34, 1]
    assert (plan.singles, plan.tables) == (1, [7, 3, 9])


def test_the_kernels_are_tried_out_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    usable = paged_triton.TritonAttention.usable
    assert usable(shape(4, 2, 32), torch.float32, DEVICE)
    assert not usable(shape(4, 2, 256), torch.float32, DEVICE)  # too large for shared memory
    monkeypatch.setattr(paged_triton, "_attend", None)
    assert not usable(shape(4, 2, 32), torch.float32, DEVICE)


_COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
import torch
from parkway.engine.paged_triton import Tiles, _attend, _unite
from tests.engine.test_native import shape

NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
CASES = (((14, 2, 64), torch.bfloat16, 80), ((32, 8, 128), torch.bfloat16, 90), ((8, 4, 256), torch.bfloat16, 80),
         ((9, 3, 96), torch.float32, 80))
for heads, dtype, capability in CASES:
    tiles, name = Tiles.of(shape(*heads), dtype), NAMES[dtype]
    target = GPUTarget("cuda", capability, 32)
    for queries, parted in ((1, True), (tiles.queries, False)):
        sizes = {"KV_HEADS": heads[1], "GROUP": tiles.group, "DIM": tiles.dim, "WIDTH": tiles.width,
                 "ROWS": tiles.rows(queries)}
        types = dict.fromkeys(("q", "keys", "values", "out"), "*" + name)
        types |= dict.fromkeys(("pieces", "tables"), "*i64") | dict.fromkeys(("mixtures", "sums"), "*fp32")
        types |= {"scale": "fp32", "parts": "i32"}
        constants = {**sizes, "KEYS": tiles.keys, "BLOCK": 32, "LEAST": 256, "PARTED": parted}
        for kernel in (_attend, _unite):
            own = {key: value for key, value in constants.items() if key in kernel.arg_names}
            signature = {key: "constexpr" if key in own else types[key] for key in kernel.arg_names}
            found = compile(ASTSource(kernel, signature, own), target=target,
                            options={"num_warps": 4, "num_stages": tiles.stages})
            assert found.metadata.shared <= 99 << 10, (heads, found.metadata.shared)
            print(heads, queries, kernel.__name__, found.metadata.shared, sorted(found.asm))
"""


def test_the_kernels_compile_for_gpus_and_fit_into_their_shared_memory() -> None:
    """As far as a machine without a GPU can tell, by the compiler that Triton brings along."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", _COMPILE], env=environment, check=True, timeout=110)


def test_an_engine_with_it_chooses_the_same_tokens(tmp_path: Path) -> None:
    """Prompts in parts, guesses, and answers beside them."""
    path = write_directory(tmp_path, CONFIGS["qwen3-grouped-yarn"])
    answers = []
    for attention in (PagedAttention, paged_triton.TritonAttention):
        generator = load(path, device=DEVICE.type, step_tokens=24, max_sequences=6)
        engine = generator.engine
        engine._runner = Runner(engine._decoder, engine._cache, Backend(attention, rows=lambda rows: rows))
        sequences = [new(generator, [5, 6, 7] * length, 6) for length in (1, 9, 30)]
        finish(generator, *sequences)
        answers.append([sequence.tokens for sequence in sequences])
    assert answers[0] == answers[1]
