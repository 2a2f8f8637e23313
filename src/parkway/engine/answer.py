"""What a kind of answer has to say: in one piece, or event by event."""

from collections.abc import Sequence as Items
from typing import Any, Protocol

from parkway.core.usage import Usage
from parkway.engine.sequence import ChosenToken, Piece, Sequence
from parkway.engine.tokenizer import Tokenizer


class Answer(Protocol):
    """Pieces of the engine's sequences in the words of one of OpenAI's routes.

    Pieces come with the index of their sequence, which is the index of the choice.
    """

    @property
    def usage_asked(self) -> bool:
        """The client of a stream wants its usage too."""
        ...

    def opening(self) -> list[Any]:
        """Events before the first piece."""
        ...

    def event(self, index: int, piece: Piece) -> Any | None:
        """The event for a piece; None where there is nothing to say."""
        ...

    def closing(self, usage: Usage) -> Any:
        """The event that carries the usage, after the last piece."""
        ...

    def whole(self, pieces: Items[Items[Piece]], usage: Usage) -> Any:
        """The answer in one: all pieces of each sequence."""
        ...


def usage_of(sequences: Items[Sequence], prompts: int) -> Usage:
    """Tokens of a request; the prompt counts once however many choices continue it.

    Args:
        sequences: those of the request, all choices of a prompt behind one another.
        prompts: how many prompts there are.
    """
    firsts = sequences[:: len(sequences) // prompts]
    return Usage.of(
        sum(sequence.prompt_tokens for sequence in firsts),
        sum(sequence.completion_tokens for sequence in sequences),
        cached_tokens=sum(sequence.cached_tokens for sequence in firsts),
    )


def text_of(pieces: Items[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def chosen_of(pieces: Items[Piece]) -> list[ChosenToken]:
    return [chosen for piece in pieces for chosen in piece.chosen]


def token_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """The bytes of a token in a list of log probabilities, where special tokens are shown too."""
    return tokenizer.bytes_of(token_id) or tokenizer.text_of(token_id).encode()
