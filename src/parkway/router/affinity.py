"""Conversations go where their beginning has been read before, as long as that endpoint is not overloaded."""

from __future__ import annotations

import bisect
import hashlib
import math
import zlib
from collections import OrderedDict
from collections.abc import Sequence

from parkway.router.candidate import Candidate
from parkway.router.config import AffinityConfig

# What a model reads begins with these fields; the first that a body has is compared. Inside of a string the quotes
# would be escaped, so this finds a field.
_FIELDS = (b'"messages"', b'"prompt"', b'"input"')

_POINTS = 64
_POINTS_OF_ALL = 4096
_NEIGHBOURS = 16
_MIX = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio: spreads checksums over the ring
_RING = 2**64


def blocks_of(body: bytes, config: AffinityConfig) -> list[int]:
    """One number for each beginning of what the model reads, of one block, two blocks and so on.

    Two bodies have as many numbers in common as they have blocks in common from the start. What is left behind the
    last whole block has a number too.
    """
    start = max(0, next((at for field in _FIELDS if (at := body.find(field)) >= 0), 0))
    size, numbers, checksum = config.block_bytes, [], 0
    whole = min((len(body) - start) // size, config.max_blocks)
    for at in range(start, start + whole * size, size):
        checksum = zlib.crc32(body[at : at + size], checksum)
        numbers.append(checksum)
    numbers.append(zlib.crc32(body[start + whole * size :][:size], checksum))
    return numbers


class PrefixAffinity:
    """The endpoint that was given the longest known part of this beginning; for an unknown one, its place on a ring.

    No endpoint gets more than `load_factor` times the mean of requests in flight for its weight; the next on the ring
    is asked instead. So a beginning that all requests share is read by as many endpoints as its load needs, and then
    each conversation stays where it is.

    Sources: Karger et al., "Consistent hashing and random trees", STOC 1997; Mirrokni, Thorup, Zadimoghaddam,
    "Consistent hashing with bounded loads", SODA 2018 (the bound); Zheng et al., "SGLang", NeurIPS 2024, section 3,
    and the Kubernetes Gateway API inference extension's prefix-cache scorer (longest beginning, in chained blocks).
    """

    def __init__(self, config: AffinityConfig) -> None:
        self._config = config
        self._known: OrderedDict[int, Candidate] = OrderedDict()
        self._usable: set[Candidate] = set()
        self._weights = 0
        self._points: list[int] = []
        self._owners: list[Candidate] = []
        self._on_ring: frozenset[tuple[str, int]] = frozenset()

    def arrange(self, everyone: Sequence[Candidate], usable: Sequence[Candidate]) -> None:
        self._usable = set(usable)
        self._weights = sum(candidate.endpoint.weight for candidate in usable)
        names = frozenset((candidate.endpoint.endpoint_id, candidate.endpoint.weight) for candidate in everyone)
        if names == self._on_ring and set(self._owners) == set(everyone):
            return
        self._on_ring = names
        # All are on the ring, also those that are not usable now: a fault must not move anybody else's conversations.
        mean = sum(candidate.endpoint.weight for candidate in everyone) / max(1, len(everyone))
        each = max(4, min(_POINTS, _POINTS_OF_ALL // max(1, len(everyone))))
        ring = sorted(
            (_point(candidate.endpoint.endpoint_id, number), index)
            for index, candidate in enumerate(everyone)
            for number in range(max(1, min(_POINTS * 4, round(each * candidate.endpoint.weight / mean))))
        )
        self._points = [point for point, _ in ring]
        self._owners = [everyone[index] for _, index in ring]

    def moved(self, candidate: Candidate) -> None:
        pass

    def pick(self, body: bytes, in_flight: int) -> Candidate:
        numbers = blocks_of(body, self._config)
        bound = self._config.load_factor * (in_flight + 1) / self._weights
        chosen = self._acquainted(numbers, bound) or self._from_ring(numbers, bound)
        self._remember(numbers, chosen)
        return chosen

    def _fits(self, candidate: Candidate, bound: float) -> bool:
        # One request always fits: a bound below it would keep small fleets from using what they know.
        return candidate in self._usable and candidate.outstanding < max(
            1, math.ceil(bound * candidate.endpoint.weight)
        )

    def _acquainted(self, numbers: list[int], bound: float) -> Candidate | None:
        """Who was given the longest part of this beginning that anybody was, and has room."""
        known, full = self._known, None
        for number in reversed(numbers):
            candidate = known.get(number)
            if candidate is not None and candidate is not full:
                if self._fits(candidate, bound):
                    return candidate
                full = candidate
        return None

    def _from_ring(self, numbers: list[int], bound: float) -> Candidate:
        """The next that has room behind the place of the first block, which conversations share most often; where a
        crowd is there already, behind that of the whole beginning."""
        return (
            self._next(numbers[0], bound, _NEIGHBOURS)
            or self._next(numbers[-1], bound, len(self._points))
            or min(self._usable, key=lambda candidate: candidate.outstanding / candidate.endpoint.weight)
        )

    def _next(self, number: int, bound: float, steps: int) -> Candidate | None:
        points, owners = self._points, self._owners
        start = bisect.bisect(points, number * _MIX % _RING)
        for step in range(min(steps, len(points))):
            candidate = owners[(start + step) % len(points)]
            if self._fits(candidate, bound):
                return candidate
        return None

    def _remember(self, numbers: list[int], chosen: Candidate) -> None:
        """The parts of the beginning that nobody has belong to `chosen` from now on."""
        known, usable = self._known, self._usable
        for number in numbers:
            owner = known.get(number)
            if owner is None or owner not in usable:
                known[number] = chosen
        while len(known) > self._config.remembered:
            known.popitem(last=False)


def _point(endpoint_id: str, number: int) -> int:
    digest = hashlib.blake2b(f"{endpoint_id}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
