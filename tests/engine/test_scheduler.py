"""Who takes part in a step: fairness, limits, leaving."""

import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.core.errors import DeadlineExceeded, InvalidRequest, Overloaded
from parkway.engine.blocks import BlockPool
from parkway.engine.cache import BLOCK_TOKENS
from parkway.engine.directory import ModelDirectory
from parkway.engine.pace import LEAST, Pace
from parkway.engine.sampler import Sampling
from parkway.engine.scheduler import PATIENCE, Scheduler
from parkway.engine.sequence import ChosenToken, Sequence
from parkway.engine.tokenizer import Tokenizer
from tests.engine.tiny import byte_level_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer")
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text(byte_level_tokenizer())
    return Tokenizer(ModelDirectory(path))


@pytest.fixture
def pool() -> BlockPool:
    return BlockPool(32)


def scheduler_of(pool: BlockPool, **changes: Any) -> Scheduler:
    return Scheduler(pool, **{"max_sequences": 4, "step_tokens": 32, "queue_limit": 8, **changes})


@pytest.fixture
def scheduler(pool: BlockPool) -> Scheduler:
    return scheduler_of(pool)


New = Callable[..., Sequence]


@pytest.fixture
def new(tokenizer: Tokenizer) -> New:
    """Makes sequences; no two have a beginning in common, unless `tokens` are given."""
    numbers = itertools.count()

    def make(prompt_tokens: int, *, tokens: list[int] | None = None, **fields: Any) -> Sequence:
        given = {"max_tokens": 50, "sampling": Sampling(), "deadline": float("inf"), "tokenizer": tokenizer, **fields}
        return Sequence(tokens or [next(numbers), *[65] * (prompt_tokens - 1)], **given)

    return make


def step(scheduler: Scheduler, now: float = 0.0) -> dict[Sequence, int]:
    """One step without a model: every sequence whose prompt is read chooses a token."""
    scheduler.drop_lost(now)
    shares = scheduler.schedule()
    completing = [share.sequence for share in shares if share.completes]
    for share in shares:
        scheduler.advance(share)
    for sequence in completing:
        if sequence.accept(ChosenToken(65, 0.0, [])).last:
            scheduler.remove(sequence)
    return {share.sequence: share.count for share in shares}


def test_a_long_prompt_neither_stops_those_who_decode_nor_short_prompts(scheduler: Scheduler, new: New) -> None:
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


def test_a_long_prompt_is_not_starved_by_a_flood_of_short_ones(scheduler: Scheduler, new: New) -> None:
    long = new(200)
    scheduler.add([long])
    for _ in range(200 // 14 + 1):
        short = new(30)
        scheduler.add([short])
        shares = step(scheduler)
        assert shares.get(long, 0) >= 14 or long.decoding
        scheduler.cancel([short])
    assert long.decoding


def test_every_step_spends_what_it_may(scheduler: Scheduler, new: New) -> None:
    prompts = [new(50) for _ in range(4)]
    scheduler.add(prompts)
    for _ in range(6):
        assert sum(step(scheduler).values()) == 32


def test_a_full_house_does_not_keep_a_prompt_from_being_read(pool: BlockPool, new: New) -> None:
    scheduler = scheduler_of(pool, step_tokens=2)
    talking = [new(1) for _ in range(3)]
    scheduler.add(talking)
    while not all(sequence.decoding for sequence in talking):
        step(scheduler)
    newcomer = new(5)
    scheduler.add([newcomer])
    for _ in range(5):
        assert step(scheduler)[newcomer] == 1
    assert newcomer.decoding


def test_a_prompt_that_comes_later_is_read_so_that_the_answers_hardly_notice(pool: BlockPool, new: New) -> None:
    scheduler = scheduler_of(pool, pace=Pace(lambda rows: rows))
    answer, late = new(4), new(300)
    scheduler.add([answer])
    step(scheduler)
    for _ in range(2):  # what the answer takes alone
        assert step(scheduler) == {answer: 1}
        scheduler.took(0.020)
    scheduler.add([late])
    assert step(scheduler) == {answer: 1, late: LEAST}
    scheduler.took(0.020 + LEAST * 0.001)
    assert step(scheduler) == {answer: 1, late: 9}  # 0.020 s times STRETCH, less 0.020


def test_prompts_that_came_together_are_read_at_full_speed(pool: BlockPool, new: New) -> None:
    scheduler = scheduler_of(pool, pace=Pace(lambda rows: rows))
    short, long = new(4), new(300)
    scheduler.add([short, long])
    assert step(scheduler) == {short: 4, long: 28}
    scheduler.took(0.1)
    assert step(scheduler) == {short: 1, long: 31}


def test_more_than_may_run_wait_and_join_when_one_leaves(scheduler: Scheduler, new: New) -> None:
    sequences = [new(2) for _ in range(6)]
    scheduler.add(sequences)
    assert set(step(scheduler)) == set(sequences[:4])
    assert (scheduler.running, scheduler.waiting) == (4, 2)
    scheduler.remove(sequences[1])
    assert set(step(scheduler)) == {sequences[0], *sequences[2:5]}


def test_the_cancelled_leave_at_the_next_step_wherever_they_are(
    scheduler: Scheduler, pool: BlockPool, new: New
) -> None:
    sequences = [new(2) for _ in range(6)]
    scheduler.add(sequences)
    step(scheduler)
    newcomer = new(2)
    scheduler.add([newcomer])
    scheduler.cancel([sequences[0], sequences[4], newcomer])
    assert set(step(scheduler)) == {*sequences[1:4], sequences[5]}
    scheduler.cancel(sequences)
    assert step(scheduler) == {}
    assert pool.available == pool.blocks


def test_the_late_are_told_why(scheduler: Scheduler, pool: BlockPool, new: New) -> None:
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
    assert pool.available == pool.blocks - 3


def test_the_queue_is_bounded_and_all_or_none_join(scheduler: Scheduler, new: New) -> None:
    scheduler.add([new(2) for _ in range(6)])
    with pytest.raises(Overloaded, match=r"6 answers wait already.*at most 8") as caught:
        scheduler.add([new(2) for _ in range(3)])
    assert caught.value.retry_after_s is not None
    assert scheduler.waiting == 6
    scheduler.add([new(2) for _ in range(2)])


def test_what_could_never_be_queued_is_refused_as_such(scheduler: Scheduler, new: New) -> None:
    with pytest.raises(InvalidRequest, match=r"9 answers.*at most 8"):
        scheduler.add([new(2) for _ in range(9)])


def test_everything_can_be_emptied(scheduler: Scheduler, pool: BlockPool, new: New) -> None:
    sequences = [new(2) for _ in range(6)]
    scheduler.add(sequences[:5])
    step(scheduler)
    scheduler.add(sequences[5:])
    assert set(scheduler.remove_all()) == set(sequences)
    assert (scheduler.running, scheduler.waiting, pool.available) == (0, 0, pool.blocks)


def run_out(scheduler: Scheduler, steps: int = 3000) -> None:
    for _ in range(steps):
        if not scheduler.running and not scheduler.waiting:
            return
        step(scheduler)
        scheduler.took(0.01)
    raise AssertionError(f"{scheduler.running} run and {scheduler.waiting} wait after {steps} steps")


def test_a_prompt_that_was_read_before_is_found(scheduler: Scheduler, new: New) -> None:
    tokens = [7] * (3 * BLOCK_TOKENS + 5)
    scheduler.add([new(0, tokens=list(tokens), max_tokens=1)])
    run_out(scheduler)
    again, longer = new(0, tokens=list(tokens)), new(0, tokens=[*tokens, *[9] * 40])
    scheduler.add([again, longer])
    shares = step(scheduler)
    assert (shares[again], again.cached_tokens) == (5, 3 * BLOCK_TOKENS)
    assert longer.cached_tokens == 3 * BLOCK_TOKENS
    assert scheduler.cached_tokens == 6 * BLOCK_TOKENS


def test_the_last_token_of_a_prompt_is_never_taken_from_the_cache(scheduler: Scheduler, new: New) -> None:
    tokens = [7] * (2 * BLOCK_TOKENS)
    scheduler.add([new(0, tokens=list(tokens), max_tokens=1)])
    run_out(scheduler)
    again = new(0, tokens=list(tokens))
    scheduler.add([again])
    assert step(scheduler)[again] == BLOCK_TOKENS


def test_what_was_answered_is_found_by_the_next_turn(scheduler: Scheduler, new: New) -> None:
    first = new(10, max_tokens=3 * BLOCK_TOKENS)
    scheduler.add([first])
    run_out(scheduler)
    following = new(0, tokens=[*first.tokens, 1, 2, 3])
    scheduler.add([following])
    step(scheduler)
    assert following.cached_tokens == 3 * BLOCK_TOKENS


def test_the_same_prompt_at_once_is_read_by_one_and_taken_over_by_the_others(pool: BlockPool, new: New) -> None:
    scheduler = scheduler_of(pool, step_tokens=64)
    tokens = [7] * (5 * BLOCK_TOKENS + 1)
    crowd = [new(0, tokens=list(tokens)) for _ in range(4)]
    scheduler.add(crowd)
    read: Counter[Sequence] = Counter()
    while not all(sequence.decoding for sequence in crowd):
        read.update(step(scheduler))
    assert sum(count for count in read.values()) < 2 * len(tokens)
    assert len({tuple(sequence.blocks[:5]) for sequence in crowd}) == 1


def test_who_came_last_makes_room_and_gets_its_turn_again(new: New) -> None:
    pool = BlockPool(8)
    scheduler = scheduler_of(pool)
    sequences = [new(2 * BLOCK_TOKENS - 1, max_tokens=3 * BLOCK_TOKENS) for _ in range(3)]
    scheduler.add(sequences)
    for _ in range(20):
        step(scheduler)
    tokens_of_first = []
    while not sequences[0].completion_tokens >= sequences[0].max_tokens:
        tokens_of_first.append(sequences[0].completion_tokens)
        step(scheduler)
    assert tokens_of_first == sorted(set(tokens_of_first))  # the oldest was never held up
    run_out(scheduler)
    assert scheduler.preemptions > 0
    assert all(sequence.completion_tokens == sequence.max_tokens for sequence in sequences)
    assert pool.available == pool.blocks


def test_the_urgent_begin_first_and_in_the_place_of_the_less_urgent(scheduler: Scheduler, new: New) -> None:
    running = [new(4, priority=1) for _ in range(4)]
    waiting, urgent = new(4, priority=1), new(4, priority=0)
    scheduler.add([*running, waiting])
    step(scheduler)
    scheduler.add([urgent])
    assert set(step(scheduler)) == {*running[:3], urgent}
    assert scheduler.preemptions == 1
    run_out(scheduler)
    assert running[3].completion_tokens == 50


def test_a_busy_client_does_not_push_others_aside(pool: BlockPool, new: New) -> None:
    scheduler = scheduler_of(pool, max_sequences=1, queue_limit=100)
    flood = [new(10, max_tokens=5, client="busy") for _ in range(20)]
    scheduler.add(flood)
    for _ in range(12):
        step(scheduler)
    single = new(10, max_tokens=5, client="calm")
    scheduler.add([single])
    begun_before = sum(1 for each in flood if each.computed or each.completion_tokens)
    while not single.completion_tokens:
        step(scheduler)
    assert sum(1 for each in flood if each.completion_tokens) <= begun_before


def test_the_least_urgent_gets_its_turn_in_a_flood_of_urgent_ones(pool: BlockPool, new: New) -> None:
    scheduler = scheduler_of(pool, max_sequences=2, queue_limit=1000)
    patient = new(4, max_tokens=5, priority=9)
    urgent = [new(2, max_tokens=2, priority=0) for _ in range(2)]
    scheduler.add([*urgent, patient])
    begun = 0
    while patient.completion_tokens < 5:
        step(scheduler)
        fresh = [new(2, max_tokens=2, priority=0) for _ in range(2)]
        scheduler.add(fresh)
        begun += 2
        assert begun < 3 * PATIENCE


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), blocks=st.integers(6, 40), places=st.integers(1, 6))
def test_whatever_arrives_everybody_gets_to_the_end(seed: int, blocks: int, places: int) -> None:
    """Random arrivals, priorities, clients, common beginnings and cancels: nobody starves and no block is lost."""
    dice = random.Random(seed)
    pool = BlockPool(blocks)
    pace = Pace(lambda rows: rows) if dice.random() < 0.5 else None
    step_tokens = dice.choice([4, 32, 200])
    scheduler = scheduler_of(pool, max_sequences=places, step_tokens=step_tokens, queue_limit=500, pace=pace)
    most = (blocks - 1) * BLOCK_TOKENS
    tokenizer = _Silent()
    sequences: list[Sequence] = []
    for _ in range(300):
        if len(sequences) < 25 and dice.random() < 0.3:
            length = dice.randint(1, most // 2)
            sequence = Sequence(
                [dice.choice([1, 2])] * length,
                max_tokens=dice.randint(1, min(60, most - length)),
                sampling=Sampling(),
                deadline=float("inf"),
                tokenizer=tokenizer,  # pyright: ignore[reportArgumentType]
                priority=dice.choice([0, 0, 1, 5]),
                client=dice.choice("abc"),
            )
            sequences.append(sequence)
            scheduler.add([sequence])
        if sequences and dice.random() < 0.03:
            scheduler.cancel([dice.choice(sequences)])
        step(scheduler)
        scheduler.took(dice.random())
        held = sum(len(sequence.blocks) for sequence in sequences)
        assert held >= pool.blocks - pool.available
    run_out(scheduler, steps=20_000)
    for sequence in sequences:
        assert sequence.cancelled or sequence.completion_tokens == sequence.max_tokens
    assert pool.available == pool.blocks


class _Silent:
    """A tokenizer for sequences whose text does not matter."""

    eos_ids = frozenset[int]()
    strip_start = 0

    def bytes_of(self, token_id: int) -> bytes:
        return b"x"
