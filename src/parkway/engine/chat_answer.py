"""Answers of /v1/chat/completions."""

from collections.abc import Sequence as Items
from dataclasses import dataclass

from msgspec import UNSET

from parkway.core.chat import (
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    TokenLogprob,
    TopLogprob,
)
from parkway.core.usage import Usage
from parkway.engine.answer import chosen_of, text_of, token_bytes
from parkway.engine.sequence import ChosenToken, Piece
from parkway.engine.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """Implements `Answer`.

    Fields:
        created: seconds since 1970.
        choices: how many there will be.
        logprobs: the client asked for log probabilities.
        usage_asked: streamed chunks have a `usage`, null in all but the last.
    """

    id: str
    created: int
    model: str
    choices: int
    logprobs: bool
    usage_asked: bool
    tokenizer: Tokenizer

    def opening(self) -> list[ChatChunk]:
        return [
            self._chunk([ChunkChoice(index=index, delta=Delta(role="assistant", content=""))])
            for index in range(self.choices)
        ]

    def event(self, index: int, piece: Piece) -> ChatChunk | None:
        if not (piece.text or piece.chosen or piece.last):
            return None
        delta = Delta(content=piece.text) if piece.text or piece.chosen else Delta()
        logprobs = self._logprobs(piece.chosen) if piece.chosen else None
        return self._chunk([ChunkChoice(index=index, delta=delta, finish_reason=piece.ending, logprobs=logprobs)])

    def closing(self, usage: Usage) -> ChatChunk:
        return self._chunk([], usage)

    def whole(self, pieces: Items[Items[Piece]], usage: Usage) -> ChatCompletion:
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            usage=usage,
            choices=[
                Choice(
                    index=index,
                    message=AnswerMessage(content=text_of(each)),
                    finish_reason=each[-1].ending,
                    logprobs=self._logprobs(chosen_of(each)) if self.logprobs else None,
                )
                for index, each in enumerate(pieces)
            ],
        )

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> ChatChunk:
        return ChatChunk(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=choices,
            usage=usage if self.usage_asked else UNSET,
        )

    def _logprobs(self, chosen: Items[ChosenToken]) -> ChoiceLogprobs:
        return ChoiceLogprobs(content=[self._token(each) for each in chosen])

    def _token(self, chosen: ChosenToken) -> TokenLogprob:
        return TokenLogprob(
            token=self.tokenizer.text_of(chosen.token_id),
            logprob=chosen.logprob,
            bytes=list(token_bytes(self.tokenizer, chosen.token_id)),
            top_logprobs=[
                TopLogprob(
                    token=self.tokenizer.text_of(token_id),
                    logprob=logprob,
                    bytes=list(token_bytes(self.tokenizer, token_id)),
                )
                for token_id, logprob in chosen.likeliest
            ],
        )
