"""Random answers that follow a guide, and feeding it given ones."""

import random
from dataclasses import dataclass

import torch

from parkway.engine.detokenizer import Detokenizer
from parkway.engine.grammar import Grammar, GrammarCompiler
from parkway.engine.guide import Guide
from parkway.engine.tokenizer import Tokenizer

# Tokens that bring an answer nearer to its end; uniform choices would stay inside a string for ever.
_CLOSING = [b'"', b"}", b"]"]


@dataclass(frozen=True, slots=True)
class Walk:
    """A random answer; `finished` is False if it was cut."""

    text: str
    tokens: list[int]
    finished: bool


class Walker:
    """Chooses allowed tokens at random, like a model that knows nothing."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.compiler = GrammarCompiler(tokenizer, vocab_size, threads=1)
        self._closing = [tokenizer.encode(text.decode(), special=False)[-1] for text in _CLOSING]

    def allowed(self, guide: Guide) -> list[int]:
        """The tokens that may come next, by way of the scores."""
        logits = torch.zeros(1, self.vocab_size)
        self.compiler.fill([guide], logits)
        assert guide.error is None, guide.error
        return torch.isfinite(logits[0]).nonzero().flatten().tolist()

    def walk(self, grammar: Grammar, seed: int, *, free: int = 40, limit: int = 1_500) -> Walk:
        """`free` tokens at random, then those that close what is open, up to `limit`."""
        rng = random.Random(seed)
        guide = grammar.start()
        detokenizer = Detokenizer(self.tokenizer, fresh=True)
        text, tokens = "", []
        while not guide.finished and len(tokens) < limit:
            token = self._choose(self.allowed(guide), rng, hurry=len(tokens) > free)
            guide.accept(token)
            assert guide.error is None, (guide.error, text)
            if token not in self.tokenizer.eos_ids:
                tokens.append(token)
                text += detokenizer.feed(token)
        return Walk(text, tokens, guide.finished)

    def follows(self, grammar: Grammar, text: str) -> bool:
        """The guide accepts `text`, and then its end."""
        guide = grammar.start()
        for token in self.tokenizer.encode(self.tokenizer.break_special(text), special=False):
            if guide.finished or token not in self.allowed(guide):
                return False
            guide.accept(token)
        return guide.may_end

    def _choose(self, allowed: list[int], rng: random.Random, *, hurry: bool) -> int:
        assert allowed, "a guide without error allows a token"
        preferred = [token for token in [*sorted(self.tokenizer.eos_ids), *self._closing] if token in allowed]
        if preferred and rng.random() < (0.5 if hurry else 0.15):
            return preferred[0] if hurry else rng.choice(preferred)
        return rng.choice(allowed)
