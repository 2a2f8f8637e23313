"""Blocks of the cache: who holds which, and which hold the beginning of a text that may come again.

Knows nothing of tensors: `engine/cache.py` keeps what is in the blocks.
"""

import hashlib
import heapq
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence


def key_of(previous: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a full block: what it holds depends on its own tokens and on all before them.

    A cryptographic hash, because whoever found two texts with one key could make an answer continue another text.

    Args:
        previous: the key of the block before it; of the first one, what else keys and values depend on, such as an
            adapter's name.
    """
    return hashlib.blake2b(array("q", tokens).tobytes(), key=previous, digest_size=16).digest()


class BlockPool:
    """A fixed number of blocks, lent to sequences and counted.

    A full block that was given its key is found again by it, while somebody holds it and after: nobody's blocks keep
    what they hold until others need the room, the longest unused first.

    Blocks are lent lowest first, so that those in use lie close together.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.evictions = 0
        self._free = list(range(blocks))  # a heap; hold nothing that anybody may want
        self._holders = [0] * blocks
        self._keys: list[bytes | None] = [None] * blocks
        self._by_key: dict[bytes, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # held by nobody, with a key; longest unused first

    @property
    def available(self) -> int:
        """Blocks that `take` could lend."""
        return len(self._free) + len(self._idle)

    @property
    def cached(self) -> int:
        """Blocks that are held by nobody and can be found by their key."""
        return len(self._idle)

    def take(self, count: int) -> list[int] | None:
        """Lend `count` blocks, or None, and nothing, where there are not so many."""
        if count > self.available:
            return None
        return [self._take_one() for _ in range(count)]

    def find(self, key: bytes) -> int | None:
        """Lend the block with this key, if there is one, to one more holder."""
        block = self._by_key.get(key)
        if block is not None:
            self._holders[block] += 1
            self._idle.pop(block, None)
        return block

    def has(self, key: bytes) -> bool:
        """Whether `find` would find a block."""
        return key in self._by_key

    def name(self, block: int, key: bytes) -> None:
        """Let a full block be found by `key`; where another one has it already, that one stays the one to find."""
        if self._keys[block] is None and key not in self._by_key:
            self._keys[block] = key
            self._by_key[key] = block

    def give_back(self, blocks: Iterable[int]) -> None:
        """End one holder's hold on each of `blocks`.

        Of a text's blocks the last is forgotten first: without those before it nobody could use it.
        """
        for block in reversed(list(blocks)):
            if self._holders[block] < 1:
                raise ValueError(f"block {block} is held by nobody")
            self._holders[block] -= 1
            if self._holders[block] == 0:
                if self._keys[block] is None:
                    heapq.heappush(self._free, block)
                else:
                    self._idle[block] = None

    def forget(self, blocks: Iterable[int]) -> list[int]:
        """Let nobody find `blocks` any more, because what they hold is bad; returns those with a single holder."""
        alone: list[int] = []
        for block in blocks:
            self._unname(block)
            if self._holders[block] == 1:
                alone.append(block)
        return alone

    def _take_one(self) -> int:
        if self._free:
            block = heapq.heappop(self._free)
        else:
            block, _ = self._idle.popitem(last=False)
            self._unname(block)
            self.evictions += 1
        self._holders[block] = 1
        return block

    def _unname(self, block: int) -> None:
        key = self._keys[block]
        if key is not None:
            self._keys[block] = None
            del self._by_key[key]
