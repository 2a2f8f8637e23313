"""Who takes part in the next step, and with how many tokens."""

from collections import deque
from collections.abc import Sequence as Items
from dataclasses import dataclass

from parkway.core.errors import DeadlineExceeded, InvalidRequest, Overloaded, ParkwayError
from parkway.engine.cache import KVCache
from parkway.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Share:
    """One sequence's part of a step: its next `count` tokens."""

    sequence: Sequence
    count: int

    @property
    def completes(self) -> bool:
        """After this step the sequence's next token can be chosen."""
        return self.count == self.sequence.pending


class Scheduler:
    """Continuous batching: sequences join and leave between any two steps.

    Every sequence that decodes takes part in every step. What is left of the step's token budget goes to prompts:
    half of it to the one that has waited longest, so that none waits for ever, the rest to the shortest first, so
    that a long prompt does not hold up short ones behind it.

    One thread may call `add` and `cancel` while another calls the rest; `add` writes only to the inbox.

    Args:
        cache: its rows bound how many sequences run at once.
        step_tokens: tokens in one step; more only where so many decode that a quarter is not left for prompts.
        queue_limit: the most sequences that wait; further ones are refused.
    """

    def __init__(self, cache: KVCache, *, step_tokens: int, queue_limit: int) -> None:
        self._cache = cache
        self._step_tokens = step_tokens
        # However many decode: otherwise a full house could keep a prompt from ever being read.
        self._least_for_prompts = max(1, step_tokens // 4)
        self._queue_limit = queue_limit
        self._inbox: deque[Sequence] = deque()
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []

    @property
    def waiting(self) -> int:
        return len(self._inbox) + len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def add(self, sequences: Items[Sequence]) -> None:
        """Queue the sequences of one request, all of them or none.

        Raises:
            InvalidRequest: there are more of them than the queue could ever hold.
            Overloaded: the queue has no room for them now.
        """
        if len(sequences) > self._queue_limit:
            raise InvalidRequest(
                f"the request asks for {len(sequences)} answers; this engine queues at most {self._queue_limit}"
            )
        if self.waiting + len(sequences) > self._queue_limit:
            raise Overloaded(
                f"{self.waiting} answers wait already; the engine queues at most {self._queue_limit}",
                retry_after_s=1.0,
            )
        self._inbox.extend(sequences)

    def cancel(self, sequences: Items[Sequence]) -> None:
        """Give up sequences; they leave at the next step."""
        for sequence in sequences:
            sequence.cancelled = True

    def drop_lost(self, now: float) -> list[tuple[Sequence, ParkwayError]]:
        """Remove what was cancelled or is past its deadline; returns the latter with what to tell its client."""
        while self._inbox:
            self._waiting.append(self._inbox.popleft())
        late = [
            sequence
            for sequence in (*self._running, *self._waiting)
            if now >= sequence.deadline and not sequence.cancelled
        ]
        gone = {sequence for sequence in (*self._running, *self._waiting) if sequence.cancelled}.union(late)
        for sequence in gone:
            self.remove(sequence)
        return [(sequence, DeadlineExceeded(_why_late(sequence))) for sequence in late]

    def schedule(self) -> list[Share]:
        """Choose the next step; sequences that begin get their row of the cache here."""
        shares = [Share(sequence, 1) for sequence in self._running if sequence.decoding]
        budget = max(self._step_tokens - len(shares), self._least_for_prompts)
        while self._waiting and (row := self._cache.take()) is not None:
            sequence = self._waiting.pop(0)
            sequence.row = row
            self._running.append(sequence)
        return shares + self._prompts(budget)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out and free its row."""
        if sequence.row is not None:
            self._cache.give_back(sequence.row)
            sequence.row = None
            self._running.remove(sequence)
        else:
            self._waiting.remove(sequence)

    def remove_all(self) -> list[Sequence]:
        """Empty the queue and the batch; returns what was in them."""
        self.drop_lost(now=float("-inf"))
        gone = [*self._running, *self._waiting]
        for sequence in gone:
            self.remove(sequence)
        return gone

    def _prompts(self, budget: int) -> list[Share]:
        reading = [sequence for sequence in self._running if not sequence.decoding]
        if not reading or budget < 1:
            return []
        oldest = reading[0]
        counts = {oldest: min(oldest.pending, -(-budget // 2))}
        budget -= counts[oldest]
        for sequence in sorted(reading, key=lambda sequence: sequence.pending):
            already = counts.get(sequence, 0)
            count = min(sequence.pending - already, budget)
            if count > 0:
                counts[sequence] = already + count
                budget -= count
        return [Share(sequence, count) for sequence, count in counts.items()]


def _why_late(sequence: Sequence) -> str:
    if not sequence.computed:
        return "the request's deadline passed while it waited for a free place; try again later"
    return f"the request's deadline passed after {sequence.completion_tokens} tokens of the answer"
