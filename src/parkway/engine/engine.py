"""The engine: one step advances every answer that can advance."""

import logging
import time
from collections.abc import Sequence as Items
from concurrent.futures import Future
from itertools import accumulate

import torch
from torch import Tensor

from parkway.core.errors import InternalError, Overloaded, ParkwayError
from parkway.engine.adapters import Deltas
from parkway.engine.attention import PagedAttention
from parkway.engine.backend import Backend, described
from parkway.engine.cache import KVCache
from parkway.engine.device import moved, upload
from parkway.engine.latency import FIRST_TOKEN_S, NEXT_TOKEN_S, Latencies
from parkway.engine.machine import give_back_memory
from parkway.engine.model import Decoder
from parkway.engine.parallel import Leader
from parkway.engine.runner import Runner
from parkway.engine.sampler import biased, sample, top_logprobs
from parkway.engine.scheduler import Scheduler, Share
from parkway.engine.sequence import ChosenToken, Piece, Sequence

log = logging.getLogger(__name__)

_TIDY_S = 2.0

Outputs = list[tuple[Sequence, Piece]]


class Engine:
    """A decoder, its cache and a scheduler.

    `add` and `cancel` may be called from one other thread than the one that steps.
    """

    def __init__(
        self,
        decoder: Decoder | Leader,
        cache: KVCache,
        scheduler: Scheduler,
        backend: Backend | None = None,
        runner: Runner | None = None,
    ) -> None:
        self._decoder = decoder
        self._cache = cache
        self._scheduler = scheduler
        self._backend = backend or Backend()
        self._runner = runner or Runner(decoder, cache, self._backend)
        self._device = cache.device
        self._swollen = False
        self._tidied_at = time.monotonic()
        self.steps = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.guessed_tokens = 0
        self.right_tokens = 0  # of those, chosen
        self.batch = 0  # sequences that took part in the latest step
        self.first_token = Latencies(FIRST_TOKEN_S)  # from the queue to the first token
        self.next_token = Latencies(NEXT_TOKEN_S)  # from one token to the next

    @property
    def computing(self) -> dict[str, str]:
        """How the model is computed: `device`, `dtype`, and which `matrices` and `attention` do it."""
        return described(self._decoder, self._backend)

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
        started = time.monotonic()
        shares = sorted(self._scheduler.schedule(), key=lambda share: PagedAttention.order(share.span))
        self.batch = len(shares)
        if not shares:
            return outputs
        guided = [share.sequence for share in shares if share.completes and share.sequence.guide]
        allowed = _begin_masks(guided) if guided else None  # on another thread, while the model runs
        advanced = self._advance(shares, allowed)
        outputs += self._give_up(shares) if advanced is None else advanced
        self._scheduler.took(time.monotonic() - started)
        self.steps += 1
        self._tidy(reading=any(share.count > 1 for share in shares))
        return outputs

    def _tidy(self, *, reading: bool) -> None:
        """Gives back what reading prompts has taken, once only answers go on; seldom, because it costs milliseconds."""
        self._swollen = self._swollen or reading
        now = time.monotonic()
        if self._swollen and not reading and now - self._tidied_at > _TIDY_S:
            give_back_memory()
            self._swollen, self._tidied_at = False, now

    def abort(self, error: ParkwayError) -> Outputs:
        """End everything that waits or runs with `error`."""
        return [(sequence, Piece(error=error)) for sequence in self._scheduler.remove_all()]

    def _advance(self, shares: list[Share], allowed: "Future[Tensor] | None") -> Outputs | None:
        """Run the model and let sequences choose; None where the GPU has no memory for it."""
        try:
            logits, completing = self._run(shares)
            return self._choose(completing, logits, allowed)
        except torch.OutOfMemoryError:
            tokens = sum(share.span.count for share in shares)
            log.exception("%s has no memory left for a step of %d tokens", self._device, tokens)
            return None

    def _run(self, shares: list[Share]) -> tuple[Tensor, list[Share]]:
        """One pass of the model.

        Returns:
            The shares whose sequences now choose, and float32 logits [rows, vocabulary] for them in turn: a row for the
            next token, and one behind each guess.
        """
        token_ids = [token for share in shares for token in share.tokens]
        completing = [share for share in shares if share.completes]
        rows = _rows(shares)
        # States that nobody asks for are not made.
        everything = len(rows) == len(token_ids) or any(share.sequence.scoring for share in shares)
        hidden = self._runner(
            token_ids, [share.span for share in shares], self._deltas(shares), None if everything else rows
        )
        end = 0
        for share in shares:
            start, end = end, end + len(share.tokens)
            if share.sequence.scoring:
                self._score_prompt(share, hidden[start:end])
            if not share.sequence.completion_tokens:
                self.prompt_tokens += share.count
            if not share.completes:
                self._scheduler.advance(share)
        count = len(rows)
        if not rows:
            return hidden.new_empty(0, self.vocab_size, dtype=torch.float32), completing
        if everything:
            hidden = hidden[upload(rows + rows[-1:] * (self._backend.rows(count) - count), self._device)]
        return self._decoder.logits(hidden)[:count].float(), completing

    def _deltas(self, shares: list[Share]) -> Deltas | None:
        """What adapters change in this step; None where nobody uses one."""
        if isinstance(self._decoder, Leader) or all(share.sequence.adapter is None for share in shares):
            return None
        adapters = (share.sequence.adapter for share in shares for _ in share.tokens)
        return Deltas(adapters, self._backend.linear, self._device)

    def _choose(self, shares: list[Share], logits: Tensor, allowed: "Future[Tensor] | None") -> Outputs:
        """Let every sequence choose; one whose choice was guessed goes on to choose behind the guess.

        A choice never depends on a guess: guesses only decide whether the scores behind them are of use.
        """
        outputs: Outputs = []
        finite = torch.isfinite(logits.amax(dim=-1))
        sound: list[bool] = []
        firsts = [0, *accumulate(1 + len(share.guesses) for share in shares)]
        going = list(zip(shares, firsts, strict=False))
        right = 0
        while going:
            rows = [first + right for _, first in going]
            sequences = [share.sequence for share, _ in going]
            whole = len(rows) == len(logits)  # then they are those rows, in this order
            tokens = self._draw(logits if whole else logits[upload(rows, self._device)], sequences, allowed)
            allowed = None
            sound = sound or finite.tolist()  # only now: asking a GPU means to wait for it
            on: list[tuple[Share, int]] = []
            for (share, first), row, token in zip(going, rows, tokens, strict=True):
                sequence = share.sequence
                if not sound[row]:
                    outputs.append((sequence, self._reject(sequence)))
                    continue
                piece = self._settle(sequence, token, logits[row])
                outputs.append((sequence, piece))
                if not piece.last and right < len(share.guesses) and token == share.guesses[right]:
                    on.append((share, first))
                else:
                    self._end_share(share, right, piece)
            going = on
            right += 1
        return outputs

    def _draw(self, logits: Tensor, sequences: list[Sequence], allowed: "Future[Tensor] | None") -> list[int]:
        """The tokens that sequences choose by `logits` [n, vocabulary], biased and masked."""
        choices = [sequence.choice for sequence in sequences]
        scores = biased(logits, choices)
        guided = [place for place, sequence in enumerate(sequences) if sequence.guide is not None]
        if guided:
            found = allowed.result() if allowed is not None else _allowed([sequences[place] for place in guided])
            hidden = torch.zeros_like(scores, dtype=torch.bool)
            hidden[upload(guided, self._device)] = ~moved(found, self._device)
            scores = scores.masked_fill(hidden, float("-inf"))
        return sample(scores, choices)

    def _give_up(self, shares: list[Share]) -> Outputs:
        """End the sequences of a step for which there was no memory; those that wait, and those that come, go on."""
        for share in shares:
            if share.sequence.blocks:
                self._scheduler.remove(share.sequence)
        torch.cuda.empty_cache()
        error = Overloaded("the GPU had no memory left to go on with this answer; try again", retry_after_s=1.0)
        return [(share.sequence, Piece(error=error)) for share in shares]

    def _end_share(self, share: Share, right: int, piece: Piece) -> None:
        self._scheduler.advance(share, right)
        self.guessed_tokens += len(share.guesses)
        self.right_tokens += right
        sequence = share.sequence
        if sequence.lookup is not None:
            sequence.lookup.told(len(share.guesses), right, len(sequence.tokens))
        if piece.last:
            self._scheduler.remove(sequence)

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
        self._scheduler.remove(sequence)
        return Piece(error=InternalError("the model's scores are not finite numbers; its weights may be damaged"))


def _rows(shares: list[Share]) -> list[int]:
    """Of a step's tokens those behind which something is chosen."""
    ends = accumulate(len(share.tokens) for share in shares)
    return [
        row
        for share, end in zip(shares, ends, strict=True)
        if share.completes
        for row in range(end - len(share.tokens) + share.count - 1, end)
    ]


def _allowed(sequences: Items[Sequence]) -> Tensor:
    """Which tokens may come next: bool [n, vocabulary], for sequences that all have a guide."""
    return _begin_masks(sequences).result()


def _begin_masks(sequences: Items[Sequence]) -> "Future[Tensor]":
    guides = [sequence.guide for sequence in sequences if sequence.guide is not None]
    return guides[0].masks.begin(guides)
