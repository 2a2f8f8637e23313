"""Blocks: lent, shared, found again, evicted; never lost and never lent twice."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from parkway.engine.blocks import BlockPool, key_of


def test_blocks_are_lent_lowest_first_and_all_or_none() -> None:
    pool = BlockPool(3)
    assert pool.take(2) == [0, 1]
    assert pool.take(2) is None
    assert pool.available == 1
    pool.give_back([0])
    assert pool.take(2) == [0, 2]


def test_a_block_is_found_by_its_key_while_held_and_after() -> None:
    pool = BlockPool(2)
    [block] = pool.take(1) or []
    pool.name(block, b"k")
    assert pool.find(b"k") == block
    pool.give_back([block])
    pool.give_back([block])
    assert (pool.available, pool.cached) == (2, 1)
    assert pool.find(b"k") == block
    assert pool.find(b"other") is None


def test_the_longest_unused_is_evicted_first_and_the_end_of_a_text_before_its_beginning() -> None:
    pool = BlockPool(4)
    first, second = pool.take(2) or [], pool.take(2) or []
    for blocks, name in ((first, b"a"), (second, b"b")):
        for index, block in enumerate(blocks):
            pool.name(block, name + bytes([index]))
    pool.give_back(first)
    pool.give_back(second)
    assert pool.take(1) == [first[1]]
    assert pool.take(1) == [first[0]]
    assert pool.evictions == 2
    assert not pool.has(b"a\0")
    assert pool.has(b"b\0")


def test_of_two_blocks_with_one_key_the_first_is_found() -> None:
    pool = BlockPool(2)
    one, other = pool.take(2) or []
    pool.name(one, b"k")
    pool.name(other, b"k")
    pool.give_back([other])
    assert pool.find(b"k") == one
    assert pool.take(1) == [other]


def test_what_is_bad_is_not_found_and_only_its_single_holders_are_told() -> None:
    pool = BlockPool(3)
    shared, own = pool.take(2) or []
    pool.name(shared, b"k")
    pool.find(b"k")
    assert pool.forget([shared, own]) == [own]
    assert pool.find(b"k") is None


def test_a_block_cannot_be_given_back_twice() -> None:
    pool = BlockPool(1)
    pool.take(1)
    pool.give_back([0])
    with pytest.raises(ValueError, match="held by nobody"):
        pool.give_back([0])


def test_keys_depend_on_every_token_before() -> None:
    assert key_of(b"", [1, 2]) == key_of(b"", [1, 2])
    assert key_of(b"", [1, 2]) != key_of(b"", [2, 1])
    assert key_of(key_of(b"", [1]), [2]) != key_of(key_of(b"", [3]), [2])
    assert key_of(b"adapter", [1]) != key_of(b"", [1])


class Pool(RuleBasedStateMachine):
    """Any order of calls: the pool's counts always agree with a list of who holds what."""

    tables = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(8)
        self.holds: list[list[int]] = []
        self.named: dict[bytes, int] = {}

    @rule(target=tables, count=st.integers(1, 4))
    def take(self, count: int) -> list[int]:
        available = self.pool.available
        blocks = self.pool.take(count)
        assert (blocks is None) == (count > available)
        table = blocks or []
        held = {block for other in self.holds for block in other}
        assert not held & set(table)
        assert len(set(table)) == len(table)
        self.holds.append(table)
        return table

    @rule(table=tables, key=st.sampled_from([b"a", b"b", b"c", b"d"]))
    def name(self, table: list[int], key: bytes) -> None:
        if table and any(table is each for each in self.holds):
            self.pool.name(table[-1], key)

    @rule(table=tables, key=st.sampled_from([b"a", b"b", b"c", b"d"]))
    def find(self, table: list[int], key: bytes) -> None:
        if any(table is each for each in self.holds):
            known = self.pool.has(key)
            block = self.pool.find(key)
            assert (block is not None) == known
            if block is not None:
                table.append(block)

    @rule(table=tables)
    def give_back(self, table: list[int]) -> None:
        at = next((at for at, each in enumerate(self.holds) if each is table), None)
        if at is not None:
            self.pool.give_back(table)
            del self.holds[at]

    @rule(table=tables)
    def forget(self, table: list[int]) -> None:
        if any(table is each for each in self.holds):
            self.pool.forget(table)

    @invariant()
    def counts_add_up(self) -> None:
        held = {block for table in self.holds for block in table}
        assert self.pool.available == self.pool.blocks - len(held)
        for block in range(self.pool.blocks):
            assert self.pool._holders[block] == sum(table.count(block) for table in self.holds)
        for key, block in self.pool._by_key.items():
            assert self.pool._keys[block] == key


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
