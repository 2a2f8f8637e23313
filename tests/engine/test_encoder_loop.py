"""Who shares a pass with whom, in which order, and what becomes of those who leave. The model is scripted."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import torch
from torch import Tensor

from parkway.core.errors import Draining, InternalError, Overloaded
from parkway.engine.encoder import EncodedText
from parkway.engine.encoder_loop import EncoderLoop

POISON = 13


class Model:
    """Its hidden states are the token ids. Holds each pass until it is let go, and writes down what was in it."""

    def __init__(self, *, padded: bool = True) -> None:
        self.padded = padded
        self.passes: list[list[list[int]]] = []
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def encode(self, texts: Sequence[Sequence[int]]) -> list[EncodedText]:
        self.entered.release()
        assert self.go.acquire(timeout=30)
        self.passes.append([list(text) for text in texts])
        if any(POISON in text for text in texts):
            raise RuntimeError("poison")
        return [EncodedText(torch.tensor(text)[:, None].float(), torch.empty(0)) for text in texts]

    async def until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)

    def let_all_go(self) -> None:
        self.go.release(10_000)


@asynccontextmanager
async def held(
    *, step_tokens: int = 16, queue_limit: int = 8, padded: bool = True
) -> AsyncIterator[tuple[EncoderLoop, Model]]:
    """A loop whose first pass, with one text of its own, is held: what is submitted now waits for the second."""
    model = Model(padded=padded)
    loop = EncoderLoop(model, step_tokens=step_tokens, queue_limit=queue_limit)
    first = asyncio.ensure_future(loop.run([[0]], total))
    await model.until_entered()
    try:
        yield loop, model
    finally:
        model.let_all_go()
        await loop.close()
    assert torch.equal((await first)[0], torch.tensor(0.0))


def total(text: EncodedText) -> Tensor:
    return text.states.sum()


async def submit(loop: EncoderLoop, *texts: list[int]) -> "asyncio.Future[list[Tensor]]":
    """Starts a request; it is in the queue when this returns."""
    job = asyncio.ensure_future(loop.run(texts, total))
    await asyncio.sleep(0)
    return job


async def test_requests_that_wait_share_a_pass_and_get_their_own_results() -> None:
    async with held(step_tokens=16) as (loop, model):
        jobs = [await submit(loop, [number] * 2, [number] * 3) for number in (1, 2, 3)]
        assert loop.waiting == 3
        model.let_all_go()
        for number, job in zip((1, 2, 3), jobs, strict=True):
            assert [float(result) for result in await job] == [2 * number, 3 * number]
        assert len(model.passes) == 2
        assert sorted(map(len, model.passes[1])) == [2, 2, 2, 3, 3, 3]
        assert (loop.steps, loop.texts, loop.tokens, loop.waiting) == (2, 7, 16, 0)


async def test_a_round_ends_at_its_budget_but_one_text_always_fits() -> None:
    async with held(step_tokens=10) as (loop, model):
        job = await submit(loop, [1] * 4, [2] * 4, [3] * 4, [4] * 30)
        model.let_all_go()
        assert [float(result) for result in await job] == [4, 8, 12, 120]
        assert [sum(map(len, texts)) for texts in model.passes[1:]] == [8, 4, 30]


async def test_a_large_request_does_not_hold_up_a_small_one() -> None:
    async with held(step_tokens=16) as (loop, model):
        large = await submit(loop, *([1] * 4 for _ in range(100)))
        small = await submit(loop, [2] * 4)
        other = await submit(loop, [3] * 4, [3] * 4)
        model.go.release(2)
        await small
        assert model.passes[1].count([2] * 4) == 1
        assert model.passes[1].count([3] * 4) >= 1
        assert not large.done()
        model.let_all_go()
        assert len(await large) == 100
        await other


async def test_the_turn_goes_on_where_the_round_before_ended() -> None:
    async with held(step_tokens=4) as (loop, model):
        for number in (1, 2, 3):
            await submit(loop, [number] * 4, [number] * 4)
        model.let_all_go()
        await loop.close()
        assert [texts[0][0] for texts in model.passes[1:]] == [1, 2, 3, 1, 2, 3]


async def test_texts_are_padded_to_twice_their_length_at_most() -> None:
    async with held(step_tokens=64) as (loop, model):
        job = await submit(loop, *([1] * length for length in (1, 16, 2, 7, 8, 5)))
        model.let_all_go()
        assert [float(result) for result in await job] == [1, 16, 2, 7, 8, 5]
        assert [list(map(len, texts)) for texts in model.passes[1:]] == [[16, 8], [7, 5], [2, 1]]


async def test_a_model_that_pads_nothing_takes_a_round_in_one_pass() -> None:
    async with held(step_tokens=64, padded=False) as (loop, model):
        job = await submit(loop, *([1] * length for length in (1, 16, 2, 7)))
        model.let_all_go()
        assert [float(result) for result in await job] == [1, 16, 2, 7]
        assert [sorted(map(len, texts)) for texts in model.passes[1:]] == [[1, 2, 7, 16]]


async def test_a_client_that_leaves_takes_its_texts_along() -> None:
    async with held(step_tokens=8, queue_limit=1) as (loop, model):
        leaving = await submit(loop, *([1] * 4 for _ in range(100)))
        with pytest.raises(Overloaded) as refused:
            await loop.run([[2]], total)
        assert refused.value.retry_after_s == 1
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        staying = await submit(loop, [3] * 4)
        model.let_all_go()
        assert [float(result) for result in await staying] == [12]
        assert model.passes[1:] == [[[3] * 4]]


async def test_a_client_that_leaves_in_the_middle_of_a_round_is_left_out_of_the_rest() -> None:
    async with held(step_tokens=64) as (loop, model):
        leaving = await submit(loop, [1] * 20, [1] * 2)
        staying = await submit(loop, [2] * 20, [2] * 2)
        model.go.release(1)
        await model.until_entered()  # the pass with the two long texts
        leaving.cancel()
        await asyncio.sleep(0)
        model.let_all_go()
        assert [float(result) for result in await staying] == [40, 4]
        assert model.passes[2:] == [[[2] * 2]]


async def test_a_pass_that_fails_ends_only_those_in_it() -> None:
    async with held(step_tokens=8) as (loop, model):
        failing = await submit(loop, [POISON] * 3, *([1] * 4 for _ in range(20)))
        neighbour = await submit(loop, [2] * 4)
        later = await submit(loop, [3] * 8)
        model.let_all_go()
        for job in (failing, neighbour):
            with pytest.raises(InternalError):
                await job
        assert [float(result) for result in await later] == [24]
        assert sum(texts.count([1] * 4) for texts in model.passes) <= 1
        assert loop.waiting == 0


async def test_aborting_ends_those_who_wait_and_closing_takes_nobody_new() -> None:
    async with held() as (loop, _):
        waiting = await submit(loop, [1], [2])
        loop.abort(Draining("time is up"))
        with pytest.raises(Draining, match="time is up"):
            await waiting
        with pytest.raises(Draining, match="time is up"):
            await loop.run([[1]], total)


async def test_closing_finishes_what_waits() -> None:
    async with held() as (loop, model):
        waiting = await submit(loop, [1] * 3)
        model.let_all_go()
        await loop.close()
        assert [float(result) for result in await waiting] == [3]
        with pytest.raises(Draining, match="stopping"):
            await loop.run([[1]], total)


async def test_nothing_asked_is_nothing_done() -> None:
    async with held() as (loop, _):
        assert await loop.run([], total) == []
