"""Which tokens one answer may take next, and hiding all others from the sampler."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from llguidance import LLExecutor, LLMatcher, LLTokenizer, TokenizerWrapper
from torch import Tensor

from parkway.core.errors import InvalidRequest
from parkway.engine.tokenizer import Tokenizer

_BITS = ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).bool()
"""The eight bits of every byte, lowest first."""

_SPREAD = _BITS.view(torch.int64).flatten()
"""The same, eight truth values in one number: looking up a number is many times faster than a row."""


class Vocabulary:
    """The tokens of one model as the grammar engine sees them.

    Fields:
        engine: the grammar engine's own tokenizer.
        usable: bool [vocab_size]: ends of an answer, and tokens that are text.

    Args:
        vocab_size: the width of the model's scores; ids beyond the tokenizer's are never allowed.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.size = vocab_size
        self.ends = frozenset(token for token in tokenizer.eos_ids if token < vocab_size)
        special = {token for token in tokenizer.hidden if token < vocab_size} | self.ends
        texts = [tokenizer.bytes_of(token) for token in range(vocab_size)]
        self.usable = torch.tensor([bool(text) or token in self.ends for token, text in enumerate(texts)])
        self.usable[sorted(special - self.ends)] = False
        if not self.ends:
            texts.append(b"")  # the grammar engine wants an end; this one has no score, so it is never chosen
        ends = sorted(self.ends) or [vocab_size]
        self.engine = LLTokenizer(_Wrapper(tokenizer, texts, sorted(special), ends), eos_token=ends)


class _Wrapper(TokenizerWrapper):
    """Our tokenizer under the names that llguidance looks for."""

    def __init__(self, tokenizer: Tokenizer, tokens: list[bytes], special: list[int], ends: list[int]) -> None:
        self._tokenizer = tokenizer
        hidden = frozenset(special)
        self._ids = {text: token for token, text in enumerate(tokens) if text and token not in hidden}
        self._longest = max(map(len, self._ids), default=0)
        self.tokens = tokens
        self.special_token_ids = special
        self.eos_token_id = ends[0]
        self.bos_token_id = None
        self.is_tokenizer_wrapper = True

    def __call__(self, text: str) -> list[int]:
        """Token ids whose bytes are exactly `text`, split as the model knows it where that is possible."""
        token_ids = self._tokenizer.encode(self._tokenizer.break_special(text), special=False)
        if b"".join(map(self._tokenizer.bytes_of, token_ids)) == text.encode():
            return token_ids
        return self._split(text.encode())  # some tokenizers put a space before every text

    def _split(self, text: bytes) -> list[int]:
        """The longest token first, again and again, as far as there are tokens for it."""
        token_ids: list[int] = []
        place = 0
        while place < len(text):
            ends = range(min(len(text), place + self._longest), place, -1)
            end = next((end for end in ends if text[place:end] in self._ids), None)
            if end is None:
                break
            token_ids.append(self._ids[text[place:end]])
            place = end
        return token_ids


class Guide:
    """The state of one answer under a grammar.

    Its grammar is its own: an error in it, or much work for it, touches no other answer.
    """

    def __init__(self, matcher: LLMatcher, masks: "Masks") -> None:
        self.matcher = matcher
        self.masks = masks
        self._ends = masks.ends
        self._ended = False
        self._failure: str | None = None

    @property
    def error(self) -> InvalidRequest | None:
        """Why the answer cannot go on; it then has to end with this error. None while all is well."""
        reason = self._failure or (_first_line(self.matcher.get_error()) if self.matcher.is_error() else None)
        if reason is None:
            return None
        return InvalidRequest(f"the answer cannot follow its schema or grammar any further: {reason}; simplify it")

    @property
    def finished(self) -> bool:
        """The answer is whole, and nothing can follow: an end was chosen, or nothing else is allowed."""
        return self._ended or (self.error is None and self.matcher.is_stopped())

    @property
    def may_end(self) -> bool:
        """The answer is whole as it is; more may be allowed."""
        return self.finished or (self.error is None and self.matcher.is_accepting())

    def accept(self, token: int) -> None:
        """Go on by a chosen token. One that was not allowed leaves the guide in `error`."""
        if self._ended:
            self._failure = self._failure or f"token {token} after the end of the answer"
        elif token not in self._ends:
            self.matcher.consume_token(token)
        elif self.may_end:
            self._ended = True
        else:
            self._failure = "the answer ended before it was whole"

    def forced(self) -> list[int]:
        """Tokens that have to come next, whatever the scores are; may be accepted without asking the model."""
        return [] if self.finished or self.error is not None else self.matcher.compute_ff_tokens()

    def rollback(self, count: int) -> None:
        """Take back the last `count` accepted tokens. A grammar that cannot be rolled back is left in `error`."""
        if self._ended and count:
            self._ended = False
            count -= 1
        if count:
            self.matcher.rollback(count)

    def copy(self) -> "Guide":
        """The same state, to try tokens on. Not to be used at the same moment as this guide: they share caches."""
        twin = Guide(self.matcher.deep_copy(), self.masks)
        twin._ended, twin._failure = self._ended, self._failure
        return twin

    def fail(self, reason: str) -> None:
        """Give up the answer."""
        self._failure = reason


class Masks:
    """Computes the masks of a batch at once, on threads of its own.

    Args:
        threads: how many; by default one for every processor but a few.
    """

    def __init__(self, vocabulary: Vocabulary, threads: int | None = None) -> None:
        self._vocabulary = vocabulary
        self._words = -(-self._vocabulary.engine.vocab_size // 32)
        self._usable = _packed(vocabulary.usable, self._words)
        self._ends = _packed(
            torch.isin(torch.arange(vocabulary.size), torch.tensor(sorted(vocabulary.ends))), self._words
        )
        self._executor = LLExecutor(threads)
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="masks")

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._vocabulary.ends

    def begin(self, guides: Sequence[Guide]) -> "Future[Tensor]":
        """Find out which tokens may come next, while the caller does something else: bool [n, vocab_size].

        A guide that cannot go on is left in `error`; every token is allowed to it.
        """
        return self._beside.submit(self._allowed_or_any, guides)

    def _allowed_or_any(self, guides: Sequence[Guide]) -> Tensor:
        allowed = torch.ones(len(guides), self._vocabulary.size, dtype=torch.bool)
        going = [place for place, guide in enumerate(guides) if guide.error is None]
        if going:
            allowed[going] = self._allowed([guides[place] for place in going])
        return allowed

    def fill(self, guides: Sequence[Guide | None], logits: Tensor) -> None:
        """Set the scores of all tokens that must not come next to -inf.

        A guide that cannot go on is left in `error`, and its row as it was.

        Args:
            guides: one for each row; None leaves the row alone.
            logits: float [n, vocab_size], changed in place.
        """
        guided = [(row, guide) for row, guide in enumerate(guides) if guide is not None and guide.error is None]
        if not guided:
            return
        allowed = self._allowed([guide for _, guide in guided]).to(logits.device)
        rows = [row for row, _ in guided]
        logits[rows] = logits[rows].masked_fill(~allowed, float("-inf"))

    def probe(self, guide: Guide) -> None:
        """Leave `guide` in `error` if no token at all may come next."""
        self._allowed([guide])

    def _allowed(self, guides: Sequence[Guide]) -> Tensor:
        """bool [n, vocab_size] of the tokens that may come next; all of them for a guide that is left in `error`."""
        bitmask = torch.zeros(len(guides), self._words, dtype=torch.int32)
        going = [(guide.matcher, place) for place, guide in enumerate(guides) if not guide.finished]
        if going:
            self._executor.unsafe_compute_mask_ptr(going, bitmask.data_ptr(), self._words * 4, len(guides))
        bitmask &= self._usable
        empty = (bitmask == 0).all(dim=-1).tolist()
        for place, guide in enumerate(guides):
            if guide.finished:
                bitmask[place] = self._ends
            elif empty[place] and guide.error is None and not guide.may_end:
                guide.fail("no token of this model continues it")
            if guide.error is not None:
                bitmask[place] = -1
        spread = _SPREAD.index_select(0, bitmask.view(torch.uint8).flatten().int())
        return spread.view(torch.bool).view(len(guides), -1)[:, : self._vocabulary.size]


def _packed(chosen: Tensor, words: int) -> Tensor:
    """bool [m] as the bits of int32 [words], lowest first."""
    bits = torch.zeros(words * 32, dtype=torch.uint8)
    bits[: len(chosen)] = chosen
    places = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)
    return (bits.view(-1, 8) * places).sum(dim=-1, dtype=torch.uint8).view(torch.int32)


def _first_line(message: str) -> str:
    """Without the grammar engine's state, which follows in further lines."""
    return (message.strip().splitlines() or ["unknown"])[0][:300]
