"""What changes a sequence's scores before it chooses: the client's biases, and penalties for what came before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from parkway.engine.device import moved


@dataclass(frozen=True, slots=True)
class Biases:
    """How one sequence's scores are changed.

    Fields:
        logit_bias: added to the scores of these tokens.
        presence_penalty: taken off the scores of tokens that are in the answer.
        frequency_penalty: taken off once for each time that a token is in the answer.
        repetition_penalty: of tokens in prompt or answer, positive scores are divided by it and negative ones
            multiplied; 1 changes nothing. Source: Keskar et al., 2019, arXiv:1909.05858.
    """

    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0

    def start(self, prompt: Sequence[int]) -> "Bias | None":
        """The state of a sequence behind `prompt`; None where nothing is to be changed."""
        return None if self == Biases() else Bias(self, prompt)


class Bias:
    """One sequence's biases, kept up with its answer. Takes memory for a vocabulary from the first token on."""

    def __init__(self, biases: Biases, prompt: Sequence[int]) -> None:
        self._biases = biases
        self._seen_tokens = list(prompt) if biases.repetition_penalty != 1 else []
        self._counted: set[int] = set()
        self._added: Tensor | None = None  # float32 [vocabulary]
        self._seen: Tensor | None = None  # bool [vocabulary]

    def apply(self, scores: Tensor) -> None:
        """Change `scores`, float32 [vocabulary], in place."""
        added = self._added if self._added is not None else self._begin(scores)
        if self._seen is not None:
            penalty = self._biases.repetition_penalty
            punished = torch.where(scores > 0, scores / penalty, scores * penalty)
            torch.where(self._seen, punished, scores, out=scores)
        scores += added

    def chosen(self, token: int) -> None:
        """`token` is in the answer now."""
        if self._added is None:
            return  # nothing was chosen by these scores yet
        biases = self._biases
        if token not in self._counted:
            self._counted.add(token)
            self._added[token] -= biases.presence_penalty
        self._added[token] -= biases.frequency_penalty
        if self._seen is not None:
            self._seen[token] = True

    def _begin(self, scores: Tensor) -> Tensor:
        added = torch.zeros(scores.shape)
        for token, bias in self._biases.logit_bias.items():
            added[token] = bias
        if self._biases.repetition_penalty != 1:
            seen = torch.zeros(scores.shape, dtype=torch.bool)
            seen[self._seen_tokens] = True
            self._seen = moved(seen, scores.device)
        self._added = moved(added, scores.device)
        return self._added
