"""One answer in the making: its tokens, its text, and why it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from parkway.core.errors import ParkwayError
from parkway.engine.adapters import Adapter
from parkway.engine.blocks import key_of
from parkway.engine.cache import BLOCK_TOKENS
from parkway.engine.detokenizer import Detokenizer
from parkway.engine.sampler import Choice, Sampling
from parkway.engine.speculation import Lookup
from parkway.engine.stop import StopMatcher
from parkway.engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from parkway.engine.guide import Guide

Ending = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class ChosenToken:
    """A token, its log probability, and the likeliest tokens at its place, best first."""

    token_id: int
    logprob: float
    likeliest: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step adds to an answer. The last piece has an `ending` or an `error`."""

    text: str = ""
    chosen: Items[ChosenToken] = ()
    completion_tokens: int = 0  # of the whole answer so far
    ending: Ending | None = None
    error: ParkwayError | None = None
    stop: str | None = None  # the stop string that ended it

    @property
    def last(self) -> bool:
        return self.ending is not None or self.error is not None


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of a prompt and of the answer behind it.

    Fields:
        tokens: prompt and answer so far.
        max_tokens: the answer ends after this many.
        deadline: when the answer is given up, in seconds of `time.monotonic`.
        computed: how many of `tokens` have their keys and values in the cache.
        adapter: changes the model for this sequence; None leaves it as it is.
        priority: the lower, the more urgent.
        client: on whose account it runs, for fairness; empty where that is not known.
        arrived_at: when it was queued, in seconds of `time.monotonic`.
        told_at: when its latest token was chosen; None before the first.
        blocks: the blocks of the cache, in order, while the sequence runs.
        cached_tokens: of the prompt, found in the cache instead of computed.
        arrival: its place in the order of arrival.
        began: how many had arrived when its prompt had been read.
        passed: how many that came later began before it.
        scores_prompt: report the log probabilities of the prompt too.
        scored: those, of all its tokens but the first, as far as they are computed.
        guide: what the answer has to follow; None where any text will do.
        check: tells why a finished answer is not what was asked for.
        lookup: guesses how the answer goes on; None where nobody is to guess.
        returned: it had begun and was sent back to wait, for want of room.
        cancelled: nobody waits for the answer any more. Set by the server's thread, read by the engine's.
    """

    tokens: list[int]
    max_tokens: int
    sampling: Sampling
    deadline: float
    tokenizer: Tokenizer
    stops: tuple[str, ...] = ()
    fresh: bool = True
    adapter: Adapter | None = None
    priority: int = 0
    client: str = ""
    arrived_at: float = 0.0
    told_at: float | None = None
    computed: int = 0
    blocks: list[int] = field(default_factory=list[int])
    cached_tokens: int = 0
    arrival: int = 0
    began: int = 0
    passed: int = 0
    returned: bool = False
    scores_prompt: bool = False
    lookup: Lookup | None = None
    guide: Guide | None = None
    check: Callable[[str], str | None] | None = None
    scored: list[ChosenToken] = field(default_factory=list[ChosenToken])
    cancelled: bool = False
    choice: Choice = field(init=False)
    prompt_tokens: int = field(init=False)
    _keys: list[bytes] = field(default_factory=list[bytes], init=False)
    _detokenizer: Detokenizer = field(init=False)
    _matcher: StopMatcher = field(init=False)
    _written: int = field(default=0, init=False)  # characters out of the detokenizer
    _released: int = field(default=0, init=False)  # characters handed out
    _unreleased: deque[tuple[int, int, ChosenToken]] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self.choice = Choice.of(self.sampling, self.tokens)
        self.prompt_tokens = len(self.tokens)
        self._detokenizer = Detokenizer(self.tokenizer, fresh=self.fresh)
        self._matcher = StopMatcher(self.stops)

    @property
    def pending(self) -> int:
        """How many tokens have yet to pass through the model before the next one can be chosen."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """All but the last token is behind it; every step gives a token."""
        return len(self.tokens) > self.prompt_tokens and self.pending == 1

    @property
    def completion_tokens(self) -> int:
        return len(self.tokens) - self.prompt_tokens

    @property
    def scoring(self) -> bool:
        """Every token of the prompt has to be run: what was computed before would leave its scores out."""
        return self.scores_prompt and len(self.scored) < self.prompt_tokens - 1

    def end_with_prompt(self) -> Piece:
        """The end of an answer that is to have no tokens."""
        return Piece(ending="length")

    def guess(self, most: int) -> list[int]:
        """What may follow, at most `most` tokens and no more than the answer may have after the next one."""
        most = min(most, self.max_tokens - self.completion_tokens - 1)
        if self.guide is not None:
            forced = self.guide.forced()
            if forced:
                return forced[: max(most, 0)]
        return self.lookup.guess(self.tokens, most) if self.lookup is not None else []

    def key(self, index: int) -> bytes:
        """The key of the whole block `index` of its tokens."""
        while len(self._keys) <= index:
            first = len(self._keys) * BLOCK_TOKENS
            previous = self._keys[-1] if self._keys else self.adapter.key if self.adapter else b""
            self._keys.append(key_of(previous, self.tokens[first : first + BLOCK_TOKENS]))
        return self._keys[index]

    def accept(self, chosen: ChosenToken) -> Piece:
        """Append the chosen token; returns the text that is now certain, and the ending if this was the last."""
        self.tokens.append(chosen.token_id)
        if self.choice.bias is not None:
            self.choice.bias.chosen(chosen.token_id)
        if self.guide is not None:
            self.guide.accept(chosen.token_id)
            if self.guide.error is not None:
                return Piece(error=self.guide.error)
        if chosen.token_id in self.tokenizer.eos_ids:
            return self._release(self._matcher.finish(), "stop")
        text = self._detokenizer.feed(chosen.token_id)
        if self.sampling.logprobs is not None:
            self._unreleased.append((self._written, self._written + len(text), chosen))
        self._written += len(text)
        text = self._matcher.feed(text)
        if self._matcher.matched is not None:
            return self._release(text, "stop", cut=True)
        if self.guide is not None and self.guide.finished:
            return self._release(text + self._matcher.finish(), "stop")
        if self.completion_tokens >= self.max_tokens:
            return self._release(text + self._matcher.finish(), "length")
        return self._release(text, None)

    def _release(self, text: str, ending: Ending | None, *, cut: bool = False) -> Piece:
        """Tokens go out with their text: not before it, and not at all if a stop string swallowed it."""
        self._released += len(text)
        chosen: list[ChosenToken] = []
        while self._unreleased:
            start, end, token = self._unreleased[0]
            certain = end <= self._released or (start < self._released if cut else ending is not None)
            if not certain:
                break
            chosen.append(token)
            self._unreleased.popleft()
        return Piece(text, chosen, self.completion_tokens, ending, stop=self._matcher.matched)
