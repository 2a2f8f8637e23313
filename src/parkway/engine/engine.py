"""The engine: one step advances every answer that can advance."""

import time
from collections.abc import Sequence as Items
from concurrent.futures import Future

import torch
from torch import Tensor

from parkway.core.errors import InternalError, ParkwayError
from parkway.engine.attention import PagedAttention
from parkway.engine.cache import KVCache
from parkway.engine.latency import FIRST_TOKEN_S, NEXT_TOKEN_S, Latencies
from parkway.engine.model import Decoder
from parkway.engine.sampler import biased, sample, top_logprobs
from parkway.engine.scheduler import Scheduler, Share
from parkway.engine.sequence import ChosenToken, Piece, Sequence

Outputs = list[tuple[Sequence, Piece]]


class Engine:
    """A decoder, its cache and a scheduler.

    `add` and `cancel` may be called from one other thread than the one that steps.
    """

    def __init__(self, decoder: Decoder, cache: KVCache, scheduler: Scheduler) -> None:
        self._decoder = decoder
        self._cache = cache
        self._scheduler = scheduler
        self._dtype = next(decoder.parameters()).dtype
        self.steps = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.batch = 0  # sequences that took part in the latest step
        self.first_token = Latencies(FIRST_TOKEN_S)  # from the queue to the first token
        self.next_token = Latencies(NEXT_TOKEN_S)  # from one token to the next

    @property
    def waiting(self) -> int:
        return self._scheduler.waiting

    @property
    def running(self) -> int:
        return self._scheduler.running

    @property
    def cache_use(self) -> float:
        """The share of the cache's blocks that running sequences hold."""
        pool = self._scheduler.pool
        return 1 - pool.available / pool.blocks

    @property
    def preemptions(self) -> int:
        """How often a sequence had to give up its blocks and wait again."""
        return self._scheduler.preemptions

    @property
    def cached_tokens(self) -> int:
        """Tokens of prompts that were found in the cache instead of read."""
        return self._scheduler.cached_tokens

    @property
    def evictions(self) -> int:
        """Blocks that were taken from what might have been found again."""
        return self._scheduler.pool.evictions

    @property
    def vocab_size(self) -> int:
        """The width of the model's scores."""
        return self._decoder.shape.vocab_size

    def add(self, sequences: Items[Sequence]) -> None:
        """Queue the sequences of one request; raises as `Scheduler.add` does."""
        now = time.monotonic()
        for sequence in sequences:
            sequence.arrived_at = now
        self._scheduler.add(sequences)

    def cancel(self, sequences: Items[Sequence]) -> None:
        """Give up sequences; their blocks are free at the next step."""
        self._scheduler.cancel(sequences)

    @torch.inference_mode()
    def step(self) -> Outputs:
        """Advance every sequence by a token, or by a part of its prompt; returns what became certain."""
        lost = self._scheduler.drop_lost(time.monotonic())
        outputs: Outputs = [(sequence, Piece(error=error)) for sequence, error in lost]
        shares = self._scheduler.schedule()
        self.batch = len(shares)
        if not shares:
            return outputs
        guided = [share.sequence for share in shares if share.completes and share.sequence.guide is not None]
        allowed = self._begin_masks(guided)
        logits, completed = self._run(shares)
        choices = [sequence.choice for sequence in completed]
        scores = biased(logits, choices)
        if allowed is not None:
            scores = scores.masked_fill(_hidden(allowed.result(), guided, completed), float("-inf"))
        tokens = sample(scores, choices)
        sound = torch.isfinite(logits.amax(dim=-1)).tolist()
        for sequence, token, raw, is_sound in zip(completed, tokens, logits, sound, strict=True):
            piece = self._settle(sequence, token, raw) if is_sound else self._reject(sequence)
            if piece.last:
                self._scheduler.remove(sequence)
            outputs.append((sequence, piece))
        self.steps += 1
        return outputs

    def _begin_masks(self, guided: list[Sequence]) -> "Future[Tensor] | None":
        """Find out which tokens may come next where not every one may, while the model runs."""
        guides = [sequence.guide for sequence in guided if sequence.guide is not None]
        return guides[0].masks.begin(guides) if guides else None

    def abort(self, error: ParkwayError) -> Outputs:
        """End everything that waits or runs with `error`."""
        return [(sequence, Piece(error=error)) for sequence in self._scheduler.remove_all()]

    def _run(self, shares: list[Share]) -> tuple[Tensor, list[Sequence]]:
        """One pass of the model; returns float32 logits for the sequences that now choose a token."""
        shares.sort(key=lambda share: PagedAttention.order(share.sequence.span(share.count)))
        attention = PagedAttention(self._cache, [share.sequence.span(share.count) for share in shares], self._dtype)
        token_ids: list[int] = []
        last_places: list[int] = []
        completed: list[Sequence] = []
        for share in shares:
            sequence = share.sequence
            token_ids += sequence.tokens[sequence.computed : sequence.computed + share.count]
            if share.completes:
                last_places.append(len(token_ids) - 1)
                completed.append(sequence)
        hidden = self._decoder(torch.tensor(token_ids), attention.positions, attention)
        token = 0
        for share in shares:
            if share.sequence.scoring:
                self._score_prompt(share, hidden[token : token + share.count])
            token += share.count
            if not share.sequence.decoding:
                self.prompt_tokens += share.count
            self._scheduler.advance(share)
        return self._decoder.logits(hidden[last_places]).float(), completed

    def _score_prompt(self, share: Share, hidden: Tensor) -> None:
        """Note how likely each token of a prompt was behind those before it: `hidden` [count, hidden_size]."""
        sequence = share.sequence
        first = len(sequence.scored)
        following = sequence.tokens[first + 1 : min(sequence.computed + share.count + 1, sequence.prompt_tokens)]
        scores = self._decoder.logits(hidden[first - sequence.computed :][: len(following)]).float()
        count = sequence.sampling.logprobs or 0
        sequence.scored += [
            ChosenToken(token, *top_logprobs(row, token, count)) for token, row in zip(following, scores, strict=True)
        ]

    def _settle(self, sequence: Sequence, token: int, scores: Tensor) -> Piece:
        """Append the chosen token to its sequence."""
        if sequence.max_tokens == 0:
            return sequence.end_with_prompt()
        if sequence.guide is not None and sequence.guide.error is not None:
            return Piece(error=sequence.guide.error)
        self.completion_tokens += 1
        self._clock(sequence)
        count = sequence.sampling.logprobs
        logprob, likeliest = (0.0, []) if count is None else top_logprobs(scores, token, count)
        return sequence.accept(ChosenToken(token, logprob, likeliest))

    def _clock(self, sequence: Sequence) -> None:
        """Note how long its client waited for this token."""
        now = time.monotonic()
        if sequence.told_at is None:
            self.first_token.observe(now - sequence.arrived_at)
        else:
            self.next_token.observe(now - sequence.told_at)
        sequence.told_at = now

    def _reject(self, sequence: Sequence) -> Piece:
        """Give up a sequence whose scores are no numbers, and keep them from the next one in its blocks."""
        self._cache.wipe(self._scheduler.spoil(sequence))
        return Piece(error=InternalError("the model's scores are not finite numbers; its weights may be damaged"))


def _hidden(allowed: Tensor, guided: list[Sequence], completed: list[Sequence]) -> Tensor:
    """The tokens that must not come next: bool [completed, vocabulary], of `allowed` [guided, vocabulary]."""
    hidden = torch.zeros(len(completed), allowed.shape[1], dtype=torch.bool)
    rows = {sequence: row for row, sequence in enumerate(completed)}
    hidden[[rows[sequence] for sequence in guided]] = ~allowed
    return hidden
