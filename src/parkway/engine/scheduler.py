"""Who takes part in the next step, and with how many tokens."""

from collections import deque
from collections.abc import Sequence as Items
from dataclasses import dataclass

from parkway.core.errors import DeadlineExceeded, InvalidRequest, Overloaded, ParkwayError
from parkway.engine.attention import Span
from parkway.engine.blocks import BlockPool
from parkway.engine.cache import BLOCK_TOKENS, blocks_for
from parkway.engine.fairness import TokenCounters
from parkway.engine.pace import Pace
from parkway.engine.sequence import Sequence

PATIENCE = 64
"""How many that came later may begin before a sequence; then it is its turn, whatever its priority."""


@dataclass(frozen=True, slots=True)
class Share:
    """One sequence's part of a step: its next `count` tokens, and `guesses` at those that follow them."""

    sequence: Sequence
    count: int
    guesses: Items[int] = ()

    @property
    def completes(self) -> bool:
        """After this step the sequence's next token can be chosen."""
        return self.count == self.sequence.pending

    @property
    def span(self) -> Span:
        """All its tokens, for attention."""
        return Span(self.sequence.blocks, self.sequence.computed, self.rows)

    @property
    def rows(self) -> int:
        """How many tokens are run."""
        return self.count + len(self.guesses)

    @property
    def tokens(self) -> list[int]:
        """The tokens to run."""
        computed = self.sequence.computed
        return [*self.sequence.tokens[computed : computed + self.count], *self.guesses]


class Scheduler:
    """Continuous batching: sequences join and leave between any two steps.

    Every sequence that decodes takes part in every step. What is left of the step's token budget goes to prompts:
    half of it to the one that has waited longest, so that none waits for ever, the rest to the shortest first, so
    that a long prompt does not hold up short ones behind it.

    Who begins next: the most urgent priority; within it the client who was served least; within a client who came
    first. A sequence that was passed over `PATIENCE` times goes first whatever the others are.

    Where blocks run out, the sequence that is least urgent and came last gives its own up and waits again; its tokens
    stay, and their keys and values are computed anew, or found, when it is its turn. The oldest of the most urgent
    never has to, so somebody always gets to the end.

    One thread may call `add` and `cancel` while another calls the rest; `add` writes only to the inbox.

    Args:
        pool: blocks for all sequences; enough for the longest one alone.
        max_sequences: the most that run at once.
        step_tokens: tokens in one step; more only where so many decode that a quarter is not left for prompts.
        queue_limit: the most sequences that wait; further ones are refused.
        guess_tokens: guesses are made as long as they and the sequences that decode are not more than this.
        pace: bounds what is read of prompts that came after those who decode had begun; None leaves it to
            `step_tokens`.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        max_sequences: int,
        step_tokens: int,
        queue_limit: int,
        guess_tokens: int = 0,
        pace: Pace | None = None,
    ) -> None:
        self._pool = pool
        self._max_sequences = max_sequences
        self._step_tokens = step_tokens
        # However many decode: otherwise a full house could keep a prompt from ever being read.
        self._least_for_prompts = max(1, step_tokens // 4)
        self._queue_limit = queue_limit
        self._guess_tokens = guess_tokens
        self._pace = pace
        self._inbox: deque[Sequence] = deque()
        self._waiting: list[Sequence] = []  # in the order of arrival
        self._running: list[Sequence] = []  # the most urgent first, then in the order of arrival
        self._counters = TokenCounters()
        self._arrivals = 0
        self._rows = 0, 0  # of the latest step: of answers, of prompts
        self.preemptions = 0
        self.cached_tokens = 0  # of prompts, found in the cache

    @property
    def waiting(self) -> int:
        return len(self._inbox) + len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def pool(self) -> BlockPool:
        return self._pool

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
            self._arrive(self._inbox.popleft())
        everybody = (*self._running, *self._waiting)
        late = [sequence for sequence in everybody if now >= sequence.deadline and not sequence.cancelled]
        for sequence in {sequence for sequence in everybody if sequence.cancelled}.union(late):
            self.remove(sequence)
        return [(sequence, DeadlineExceeded(_why_late(sequence))) for sequence in late]

    def schedule(self) -> list[Share]:
        """Choose the next step; sequences that begin get their blocks here."""
        preemptions = self.preemptions
        shares = self._decoding()
        # Whoever just made room would only take it back.
        if self.preemptions == preemptions:
            self._begin()
            shares = [share for share in shares if share.sequence.blocks and share.completes]
            shares = self._with_guesses(shares)
        prompts = self._prompts(self._budget(shares))
        self._rows = sum(share.rows for share in shares), sum(share.rows for share in prompts)
        return shares + prompts

    def took(self, seconds: float) -> None:
        """The step has been computed, in so long."""
        if self._pace is not None:
            self._pace.took(*self._rows, seconds)

    def advance(self, share: Share, right: int = 0) -> None:
        """A share of the step has been computed: its keys and values are in the cache.

        Args:
            right: how many of its guesses are tokens of the sequence now; the others' keys and values do not count.
        """
        sequence = share.sequence
        if sequence.completion_tokens:
            self._counters.charge(sequence.client, answer=share.count + right)
        else:
            self._counters.charge(sequence.client, prompt=share.count)
        before, sequence.computed = sequence.computed, sequence.computed + share.count + right
        if sequence.computed >= sequence.prompt_tokens and not sequence.began:
            sequence.began = self._arrivals
        for index in range(before // BLOCK_TOKENS, sequence.computed // BLOCK_TOKENS):
            self._pool.name(sequence.blocks[index], sequence.key(index))

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out and free its blocks."""
        if sequence.blocks:
            self._release(sequence)
            self._running.remove(sequence)
        else:
            self._waiting.remove(sequence)

    def spoil(self, sequence: Sequence) -> list[int]:
        """Let nobody find what a sequence computed; returns the blocks that it alone holds."""
        return self._pool.forget(sequence.blocks)

    def remove_all(self) -> list[Sequence]:
        """Empty the queue and the batch; returns what was in them."""
        self.drop_lost(now=float("-inf"))
        gone = [*self._running, *self._waiting]
        for sequence in gone:
            self.remove(sequence)
        return gone

    def _arrive(self, sequence: Sequence) -> None:
        clients = {other.client for other in self._waiting}
        if sequence.client not in clients:
            self._counters.join(sequence.client, clients)
        sequence.arrival = self._arrivals
        self._arrivals += 1
        self._waiting.append(sequence)

    def _decoding(self) -> list[Share]:
        """A share for everybody who decodes and has room for one more token."""
        shares: list[Share] = []
        for sequence in list(self._running):
            if sequence.decoding and sequence.blocks and self._make_room(sequence):
                shares.append(Share(sequence, 1))
        return shares

    def _make_room(self, sequence: Sequence) -> bool:
        """See that the next token has a block; False where the sequence itself had to give up its own."""
        if len(sequence.tokens) <= len(sequence.blocks) * BLOCK_TOKENS:
            return True
        while (found := self._pool.take(1)) is None:
            victim = self._running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.blocks += found
        return True

    def _with_guesses(self, shares: list[Share]) -> list[Share]:
        """Let those who decode guess on, as far as the pass of the model stays a small one and blocks are free."""
        left = self._guess_tokens - len(shares)
        found: list[Share] = []
        for share in shares:
            guesses = share.sequence.guess(left) if left > 0 else []
            guesses = guesses[: self._room_for(share.sequence, len(guesses))]
            left -= len(guesses)
            found.append(Share(share.sequence, share.count, guesses))
        return found

    def _room_for(self, sequence: Sequence, guesses: int) -> int:
        """How many guesses fit into the sequence's blocks, and one more block that nobody else needs."""
        room = len(sequence.blocks) * BLOCK_TOKENS - len(sequence.tokens)
        if room < guesses and self._pool.available > len(self._running):
            sequence.blocks += self._pool.take(1) or []
            room += BLOCK_TOKENS
        return min(room, guesses)

    def _begin(self) -> None:
        """Let those who wait begin, as long as there is room, or somebody less urgent to make it."""
        while self._waiting:
            sequence = self._next()
            if len(self._running) < self._max_sequences and self._take_blocks(sequence):
                self._start(sequence)
            elif not self._make_way(sequence):
                return

    def _make_way(self, sequence: Sequence) -> bool:
        """Send one back who is less urgent than `sequence`; False where there is none, or it was passed over enough."""
        victim = self._running[-1] if self._running else None
        if victim is None or victim.priority <= sequence.priority or victim.passed >= PATIENCE:
            return False
        self._preempt(victim)
        victim.passed += 1
        return True

    def _next(self) -> Sequence:
        """Whose turn it is of those who wait."""
        overdue = next((sequence for sequence in self._waiting if sequence.passed >= PATIENCE), None)
        return overdue or min(
            self._waiting,
            key=lambda sequence: (sequence.priority, self._counters.served(sequence.client), sequence.arrival),
        )

    def _start(self, sequence: Sequence) -> None:
        self._waiting.remove(sequence)
        self._counters.begun(sequence.client)
        for other in self._waiting:
            if other.arrival < sequence.arrival:
                other.passed += 1
        self._running.append(sequence)
        self._running.sort(key=lambda each: (each.priority, each.arrival))

    def _take_blocks(self, sequence: Sequence) -> bool:
        """Lend blocks for all tokens that the sequence has; first those that hold them already."""
        self._find_blocks(sequence)
        rest = self._pool.take(blocks_for(len(sequence.tokens)) - len(sequence.blocks))
        # One block for each that runs stays free: otherwise one of them would have to make room at once.
        if rest is None or self._pool.available < len(self._running):
            self._pool.give_back(rest or [])
            self._release(sequence)
            return False
        sequence.blocks += rest
        self._count_cached(sequence, sequence.computed)
        return True

    def _find_blocks(self, sequence: Sequence) -> None:
        """Take over the blocks that hold the sequence's beginning, all but its last token: that one must be run."""
        while (found := self._found_next(sequence)) is not None:
            sequence.blocks.append(found)
            sequence.computed += BLOCK_TOKENS

    def _found_next(self, sequence: Sequence) -> int | None:
        """The block that holds the next tokens of the sequence, lent to it, if there is one."""
        key = self._next_key(sequence)
        return None if key is None else self._pool.find(key)

    def _next_key(self, sequence: Sequence) -> bytes | None:
        """The key of the next block to compute, if it will be whole and is not the end of all tokens."""
        index, rest = divmod(sequence.computed, BLOCK_TOKENS)
        if rest or sequence.scoring or sequence.computed + BLOCK_TOKENS >= len(sequence.tokens):
            return None
        return sequence.key(index)

    def _catch_up(self, sequence: Sequence) -> None:
        """Take over what others have computed since: the same prompt may be read by several at once."""
        while (found := self._found_next(sequence)) is not None:
            index = sequence.computed // BLOCK_TOKENS
            self._pool.give_back([sequence.blocks[index]])
            sequence.blocks[index] = found
            sequence.computed += BLOCK_TOKENS
            self._count_cached(sequence, BLOCK_TOKENS)

    def _count_cached(self, sequence: Sequence, tokens: int) -> None:
        """Of a sequence that was sent back, what it finds again is no prompt that was saved."""
        if not sequence.returned:
            sequence.cached_tokens += tokens
            self.cached_tokens += tokens

    def _preempt(self, sequence: Sequence) -> None:
        """Send a running sequence back to those who wait."""
        self.preemptions += 1
        sequence.returned = True
        self._running.remove(sequence)
        self._release(sequence)
        self._waiting.append(sequence)
        self._waiting.sort(key=lambda each: each.arrival)

    def _release(self, sequence: Sequence) -> None:
        self._pool.give_back(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0

    def _budget(self, decoding: Items[Share]) -> int:
        """How many tokens of prompts the step may read beside `decoding`."""
        budget = max(self._step_tokens - len(decoding), self._least_for_prompts)
        reading = [sequence.arrival for sequence in self._running if not sequence.decoding]
        if self._pace is None or not reading:
            return budget
        # Whoever came before the answers began has waited for as long as they have, and is not held up for their sake.
        if all(share.sequence.began > min(reading) for share in decoding):
            return budget
        return self._pace.most(sum(share.rows for share in decoding), len(reading), budget)

    def _prompts(self, budget: int) -> list[Share]:
        """Divide the budget between the prompts that are being read."""
        reading: list[Sequence] = []
        underway: set[bytes] = set()
        for sequence in self._running:
            if not sequence.decoding:
                self._catch_up(sequence)
                key = self._next_key(sequence)
                if key in underway:
                    continue  # one who reads the same text is ahead: this one takes over what comes of it
                reading.append(sequence)
                if key is not None:
                    underway.add(key)
        if not reading or budget < 1:
            return []
        oldest = min(reading, key=lambda sequence: sequence.arrival)
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
    if not sequence.completion_tokens and not sequence.computed:
        return "the request's deadline passed while it waited for a free place; try again later"
    return f"the request's deadline passed after {sequence.completion_tokens} tokens of the answer"
