"""Answers of /v1/chat/completions."""

from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from parkway.core.chat import (
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    FinishReason,
    TokenLogprob,
    TopLogprob,
)
from parkway.core.usage import Usage
from parkway.engine.answer import chosen_of, text_of, token_bytes
from parkway.engine.sequence import ChosenToken, Piece
from parkway.engine.tokenizer import Tokenizer
from parkway.engine.tool_parser import CallDelta, ToolParser
from parkway.engine.tools import CallFormat


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """Implements `Answer`.

    Fields:
        created: seconds since 1970.
        choices: how many there will be.
        logprobs: the client asked for log probabilities.
        usage_asked: streamed chunks have a `usage`, null in all but the last.
        form: how calls of tools are written; None where none can be among the answer.
    """

    id: str
    created: int
    model: str
    choices: int
    logprobs: bool
    usage_asked: bool
    tokenizer: Tokenizer
    form: CallFormat | None = None
    _parsers: dict[int, ToolParser] = field(default_factory=dict[int, ToolParser])

    def opening(self) -> list[ChatChunk]:
        return [
            self._chunk([ChunkChoice(index=index, delta=Delta(role="assistant", content=""))])
            for index in range(self.choices)
        ]

    def event(self, index: int, piece: Piece) -> ChatChunk | None:
        if not (piece.text or piece.chosen or piece.last):
            return None
        logprobs = self._logprobs(piece.chosen) if piece.chosen else None
        parts, reason = self._read(index, [piece])
        text = "".join(part for part in parts if isinstance(part, str))
        calls = [_streamed(part) for part in parts if isinstance(part, CallDelta)]
        if not (text or calls or logprobs or reason):
            return None
        delta = Delta(content=text if text or (logprobs and not calls) else None, tool_calls=calls or None)
        choice = ChunkChoice(
            index=index, delta=delta, finish_reason=reason, logprobs=logprobs, stop_reason=piece.stop or UNSET
        )
        return self._chunk([choice])

    def closing(self, usage: Usage) -> ChatChunk:
        return self._chunk([], usage)

    def whole(self, pieces: Items[Items[Piece]], usage: Usage) -> ChatCompletion:
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            usage=usage,
            choices=[self._choice(index, each) for index, each in enumerate(pieces)],
        )

    def _choice(self, index: int, pieces: Items[Piece]) -> Choice:
        parts, reason = self._read(index, pieces)
        text = "".join(part for part in parts if isinstance(part, str))
        # One that was cut off has been announced to a stream's client; here there is no need to.
        count = self._parsers[index].calls if index in self._parsers else 0
        calls = [_whole(parts, call) for call in range(count)]
        return Choice(
            index=index,
            message=AnswerMessage(content=None if calls and not text else text, tool_calls=calls or UNSET),
            finish_reason=reason,
            logprobs=self._logprobs(chosen_of(pieces)) if self.logprobs else None,
            stop_reason=pieces[-1].stop or UNSET,
        )

    def _read(self, index: int, pieces: Items[Piece]) -> tuple[list[str | CallDelta], FinishReason | None]:
        """The text and the calls in `pieces`, and why the answer ended if it did."""
        text, ending = text_of(pieces), pieces[-1].ending
        if self.form is None:
            return [text], ending
        parser = self._parsers.setdefault(index, ToolParser(self.form))
        parts = parser.feed(text)
        if ending is None:
            return parts, None
        parts.append(parser.finish())
        return parts, "tool_calls" if ending == "stop" and parser.calls and not parser.open else ending

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


def _streamed(part: CallDelta) -> dict[str, Any]:
    """A part of a call in a chunk: who is called stands in the first part alone."""
    if part.name is None:
        return {"index": part.index, "function": {"arguments": part.arguments}}
    return {
        "index": part.index,
        "id": part.id,
        "type": "function",
        "function": {"name": part.name, "arguments": part.arguments},
    }


def _whole(parts: Items[str | CallDelta], index: int) -> dict[str, Any]:
    own = [part for part in parts if isinstance(part, CallDelta) and part.index == index]
    arguments = "".join(part.arguments for part in own)
    return {"id": own[0].id, "type": "function", "function": {"name": own[0].name, "arguments": arguments}}
