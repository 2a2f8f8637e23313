"""Who takes part in a step: fairness, limits, leaving."""

import pytest
import torch

from parkway.core.errors import DeadlineExceeded, InvalidRequest, Overloaded
from parkway.engine.cache import KVCache
from parkway.engine.directory import ModelDirectory
from parkway.engine.sampler import Sampling
from parkway.engine.scheduler import Scheduler
from parkway.engine.sequence import ChosenToken, Sequence
from parkway.engine.shape import ModelShape
from parkway.engine.tokenizer import Tokenizer
from tests.engine.tiny import SIZES, byte_level_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer")
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text(byte_level_tokenizer())
    return Tokenizer(ModelDirectory(path))


@pytest.fixture
def cache() -> KVCache:
    shape = ModelShape.from_config({**SIZES, "model_type": "llama"})
    return KVCache(shape, torch.float32, row_tokens=256, rows=4, budget_bytes=1 << 30)


@pytest.fixture
def scheduler(cache: KVCache) -> Scheduler:
    return Scheduler(cache, step_tokens=32, queue_limit=8)


@pytest.fixture
def new(tokenizer: Tokenizer):
    def make(prompt_tokens: int, *, deadline: float = float("inf")) -> Sequence:
        return Sequence(
            [65] * prompt_tokens, max_tokens=50, sampling=Sampling(), deadline=deadline, tokenizer=tokenizer
        )

    return make


def step(scheduler: Scheduler, now: float = 0.0) -> dict[Sequence, int]:
    """One step without a model: every sequence whose prompt is read chooses a token."""
    scheduler.drop_lost(now)
    shares = scheduler.schedule()
    completing = [share.sequence for share in shares if share.completes]
    for share in shares:
        share.sequence.computed += share.count
    for sequence in completing:
        sequence.accept(ChosenToken(65, 0.0, []))
    return {share.sequence: share.count for share in shares}


def test_a_long_prompt_neither_stops_those_who_decode_nor_short_prompts(scheduler: Scheduler, new) -> None:
    talking = new(4)
    scheduler.add([talking])
    step(scheduler)
    long = new(200)
    scheduler.add([long])
    step(scheduler)
    short = new(10)
    scheduler.add([short])
    steps = 0
    while not long.decoding:
        shares = step(scheduler)
        steps += 1
        assert shares[talking] == 1
        assert sum(shares.values()) <= 32
        assert shares[long] >= 12 or long.decoding
        assert short.decoding  # in its very first step
    assert steps <= 200 // 12


def test_a_long_prompt_is_not_starved_by_a_flood_of_short_ones(scheduler: Scheduler, new) -> None:
    long = new(200)
    scheduler.add([long])
    for _ in range(200 // 14 + 1):
        short = new(30)
        scheduler.add([short])
        shares = step(scheduler)
        assert shares.get(long, 0) >= 14 or long.decoding
        scheduler.cancel([short])
    assert long.decoding


def test_every_step_spends_what_it_may(scheduler: Scheduler, new) -> None:
    prompts = [new(50) for _ in range(4)]
    scheduler.add(prompts)
    for _ in range(6):
        assert sum(step(scheduler).values()) == 32


def test_a_full_house_does_not_keep_a_prompt_from_being_read(cache: KVCache, new) -> None:
    scheduler = Scheduler(cache, step_tokens=2, queue_limit=8)
    talking = [new(1) for _ in range(3)]
    scheduler.add(talking)
    while not all(sequence.decoding for sequence in talking):
        step(scheduler)
    newcomer = new(5)
    scheduler.add([newcomer])
    for _ in range(5):
        assert step(scheduler)[newcomer] == 1
    assert newcomer.decoding


def test_more_than_there_are_rows_wait_and_join_when_one_leaves(scheduler: Scheduler, cache: KVCache, new) -> None:
    sequences = [new(2) for _ in range(6)]
    scheduler.add(sequences)
    assert set(step(scheduler)) == set(sequences[:4])
    assert (scheduler.running, scheduler.waiting) == (4, 2)
    scheduler.remove(sequences[1])
    assert set(step(scheduler)) == {sequences[0], *sequences[2:5]}
    assert sequences[4].row == 1


def test_the_cancelled_leave_at_the_next_step_wherever_they_are(scheduler: Scheduler, cache: KVCache, new) -> None:
    sequences = [new(2) for _ in range(6)]
    scheduler.add(sequences)
    step(scheduler)
    newcomer = new(2)
    scheduler.add([newcomer])
    scheduler.cancel([sequences[0], sequences[4], newcomer])
    assert set(step(scheduler)) == {*sequences[1:4], sequences[5]}
    scheduler.cancel(sequences)
    assert step(scheduler) == {}
    assert cache.free_rows == 4


def test_the_late_are_told_why(scheduler: Scheduler, cache: KVCache, new) -> None:
    running = [new(2, deadline=10.0), *(new(2) for _ in range(3))]
    waiting = new(2, deadline=10.0)
    scheduler.add([*running, waiting])
    step(scheduler)
    assert scheduler.drop_lost(now=9.9) == []
    late = dict(scheduler.drop_lost(now=10.0))
    assert set(late) == {running[0], waiting}
    assert all(isinstance(error, DeadlineExceeded) for error in late.values())
    assert "after 1 tokens" in str(late[running[0]])
    assert "waited for a free place" in str(late[waiting])
    assert cache.free_rows == 1


def test_the_queue_is_bounded_and_all_or_none_join(scheduler: Scheduler, new) -> None:
    scheduler.add([new(2) for _ in range(6)])
    with pytest.raises(Overloaded, match=r"6 answers wait already.*at most 8") as caught:
        scheduler.add([new(2) for _ in range(3)])
    assert caught.value.retry_after_s is not None
    assert scheduler.waiting == 6
    scheduler.add([new(2) for _ in range(2)])


def test_what_could_never_be_queued_is_refused_as_such(scheduler: Scheduler, new) -> None:
    with pytest.raises(InvalidRequest, match=r"9 answers.*at most 8"):
        scheduler.add([new(2) for _ in range(9)])


def test_everything_can_be_emptied(scheduler: Scheduler, cache: KVCache, new) -> None:
    sequences = [new(2) for _ in range(6)]
    scheduler.add(sequences[:5])
    step(scheduler)
    scheduler.add(sequences[5:])
    assert set(scheduler.remove_all()) == set(sequences)
    assert (scheduler.running, scheduler.waiting, cache.free_rows) == (0, 0, 4)
