"""Answers of /v1/completions."""

import codecs
import math
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from msgspec import UNSET, UnsetType

from parkway.core.completions import Completion, CompletionChoice, CompletionLogprobs
from parkway.core.usage import Usage
from parkway.engine.answer import chosen_of, text_of
from parkway.engine.sequence import ChosenToken, Piece, Sequence
from parkway.engine.tokenizer import Tokenizer


class _Offsets:
    """Counts the whole characters before each token of an answer."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._characters = 0

    def next(self, data: bytes) -> int:
        before = self._characters
        self._characters += len(self._decoder.decode(data))
        return before


@dataclass(frozen=True, slots=True)
class CompletionAnswer:
    """Implements `Answer`.

    Fields:
        created: seconds since 1970.
        logprobs: how many likeliest tokens the client asked for; None for no log probabilities.
        usage_asked: streamed events have a `usage`, null in all but the last.
        prompts: the sequences whose prompt is to stand before the answer, by index; empty where none is.
    """

    id: str
    created: int
    model: str
    logprobs: int | None
    usage_asked: bool
    tokenizer: Tokenizer
    prompts: Items[Sequence] = ()
    _offsets: dict[int, _Offsets] = field(default_factory=dict)
    _begun: set[int] = field(default_factory=set[int])

    def opening(self) -> list[Completion]:
        return []

    def event(self, index: int, piece: Piece) -> Completion | None:
        if not (piece.text or piece.chosen or piece.last):
            return None
        return self._completion([self._choice(index, [piece])], None if self.usage_asked else UNSET)

    def closing(self, usage: Usage) -> Completion:
        return self._completion([], usage)

    def whole(self, pieces: Items[Items[Piece]], usage: Usage) -> Completion:
        return self._completion([self._choice(index, each) for index, each in enumerate(pieces)], usage)

    def _completion(self, choices: list[CompletionChoice], usage: Usage | UnsetType | None) -> Completion:
        return Completion(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)

    def _choice(self, index: int, pieces: Items[Piece]) -> CompletionChoice:
        echoed = self.prompts[index] if self.prompts and index not in self._begun else None
        self._begun.add(index)
        text, chosen = text_of(pieces), chosen_of(pieces)
        logprobs = None if self.logprobs is None else self._logprobs(index, chosen, echoed)
        if echoed is not None:
            text = self._prompt_text(echoed) + text
        return CompletionChoice(index=index, text=text, finish_reason=pieces[-1].ending, logprobs=logprobs)

    def _prompt_text(self, sequence: Sequence) -> str:
        tokens = sequence.tokens[: sequence.prompt_tokens]
        return b"".join(map(self.tokenizer.bytes_of, tokens)).decode(errors="replace")

    def _logprobs(self, index: int, chosen: list[ChosenToken], echoed: Sequence | None) -> CompletionLogprobs:
        """With those of the prompt before them, whose first token has none."""
        if echoed is not None:
            first = ChosenToken(echoed.tokens[0], math.nan, [])
            chosen = [first, *echoed.scored, *chosen]
        offsets = self._offsets.setdefault(index, _Offsets())
        return CompletionLogprobs(
            tokens=[self.tokenizer.text_of(each.token_id) for each in chosen],
            token_logprobs=[None if math.isnan(each.logprob) else each.logprob for each in chosen],
            top_logprobs=[self._top(each) for each in chosen] if self.logprobs else None,
            text_offset=[offsets.next(self.tokenizer.bytes_of(each.token_id)) for each in chosen],
        )

    def _top(self, chosen: ChosenToken) -> dict[str, float] | None:
        """The likeliest tokens, and the chosen one where it is not among them, as OpenAI lists them."""
        if math.isnan(chosen.logprob):
            return None
        pairs = [*chosen.likeliest, (chosen.token_id, chosen.logprob)]
        return {self.tokenizer.text_of(token_id): logprob for token_id, logprob in reversed(pairs)}
