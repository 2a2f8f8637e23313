"""A model directory that answers questions in the training process, through the engine that will serve it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parkway.core.chat import ChatRequest, Message
from parkway.engine import sequence as engine_sequence
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.generator import Generator
from parkway.train import refusals

ANSWER_TOKENS = 160
_AT_ONCE = 32
_DECLINED = (refusals.OUTSIDE, refusals.unknown_command("").split("`")[0])


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as a client sees it."""

    text: str
    ended: bool  # by itself, before ANSWER_TOKENS

    @property
    def line(self) -> str:
        """What stands in the fence; empty where there is none."""
        _, fence, behind = self.text.partition("```\n")
        return behind.split("\n```", 1)[0] if fence else ""

    @property
    def declined(self) -> bool:
        """It says that the question is outside its field, or that it does not know the command."""
        return self.text.startswith(_DECLINED)


class Respondent:
    """Answers as `parkway engine` would, with the model's own defaults."""

    def __init__(self, directory: Path) -> None:
        config = EngineConfig(model=str(directory), max_sequences=_AT_ONCE)
        self._generator = Generator.load(ModelDirectory(directory), config)

    def answer(self, questions: Sequence[str]) -> list[Reply]:
        """Answers in the order of the questions, each at most ANSWER_TOKENS long."""
        replies: list[Reply] = []
        for start in range(0, len(questions), _AT_ONCE):
            replies += self._answer_together(questions[start : start + _AT_ONCE])
        return replies

    def _answer_together(self, questions: Sequence[str]) -> list[Reply]:
        sequences = [self._sequence(text) for text in questions]
        texts = dict.fromkeys(map(id, sequences), "")
        ended: dict[int, bool] = {}
        engine = self._generator.engine
        engine.add(sequences)
        while len(ended) < len(sequences):
            for sequence, piece in engine.step():
                if piece.error is not None:
                    raise piece.error
                texts[id(sequence)] += piece.text
                if piece.last:
                    ended[id(sequence)] = piece.ending == "stop"
        return [Reply(texts[id(each)], ended[id(each)]) for each in sequences]

    def _sequence(self, question: str) -> engine_sequence.Sequence:
        messages = [Message(role="user", content=question)]
        (sequence,) = self._generator.chat(ChatRequest(model="", messages=messages, max_tokens=ANSWER_TOKENS))
        return sequence
