"""Choosing the next token of every sequence in a step, all at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from parkway.engine.bias import Bias, Biases
from parkway.engine.device import moved, upload

# Sorting a vocabulary of 150,000 costs far more than finding its best few; most nuclei fit into this many.
_CANDIDATES = 1024


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one sequence chooses.

    Fields:
        temperature: 0 takes the likeliest token always.
        top_p: choose among the fewest tokens that together have this probability; 1 is all.
        top_k: choose among this many likeliest tokens; 0 is all.
        min_p: leave out tokens whose probability is less than this share of the likeliest one's.
            Source: arXiv:2407.01082.
        seed: makes the choice repeatable; None draws a fresh one.
        logprobs: how many likeliest tokens to report beside the chosen one; None reports nothing.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    logprobs: int | None = None
    biases: Biases = field(default_factory=Biases)

    def generator(self) -> torch.Generator:
        """The source of randomness of one sequence; no other sequence draws from it."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator


@dataclass(frozen=True, slots=True)
class Choice:
    """How a sequence chooses, its own randomness, and what changes its scores."""

    sampling: Sampling
    generator: torch.Generator
    bias: Bias | None = None

    @classmethod
    def of(cls, sampling: Sampling, prompt: Sequence[int]) -> "Choice":
        """The choice of a sequence behind `prompt`."""
        return cls(sampling, sampling.generator(), sampling.biases.start(prompt))


def biased(logits: Tensor, choices: Sequence[Choice]) -> Tensor:
    """The scores by which to choose: `logits` themselves, float32 [n, vocabulary], where nobody changes any."""
    if all(choice.bias is None for choice in choices):
        return logits
    scores = logits.clone()
    for row, choice in zip(scores, choices, strict=True):
        if choice.bias is not None:
            choice.bias.apply(row)
    return scores


def sample(logits: Tensor, choices: Sequence[Choice]) -> list[int]:
    """One token for each row of `logits`, float32 [n, vocabulary].

    A sequence takes one random number from its own generator each time, whatever else is in the batch, so a
    seeded answer does not depend on its neighbours.
    """
    tokens = logits.argmax(dim=-1)
    device = logits.device
    drawing = [row for row, choice in enumerate(choices) if choice.sampling.temperature > 0]
    if not drawing:
        return tokens.tolist()
    chosen = [choices[row] for row in drawing]
    rows = upload(drawing, device)
    temperature = upload([choice.sampling.temperature for choice in chosen], device)[:, None]
    # Each row's best is moved to 0 first: dividing by a tiny temperature then cannot overflow to NaN.
    scores = logits[rows] - logits[rows].amax(dim=-1, keepdim=True)
    scores = scores / temperature.clamp_min(1e-5)
    if any(choice.sampling.min_p for choice in chosen):
        least = upload([choice.sampling.min_p for choice in chosen], device)[:, None].log()
        scores = scores.masked_fill(scores < least, float("-inf"))
    # Drawn on the CPU: a seed then means the same on every device.
    uniform = moved(torch.cat([torch.rand(1, generator=choice.generator) for choice in chosen])[:, None], device)
    narrow = [place for place, choice in enumerate(chosen) if _is_narrow(choice.sampling)]
    wide = [place for place in range(len(chosen)) if place not in set(narrow)]
    drawn = torch.empty(len(drawing), dtype=torch.int64, device=device)
    if wide:
        places = upload(wide, device)
        drawn[places] = _draw(scores[places].softmax(dim=-1), uniform[places])
    if narrow:
        places = upload(narrow, device)
        samplings = [chosen[place].sampling for place in narrow]
        drawn[places] = _draw_narrow(scores[places], samplings, uniform[places])
    tokens[rows] = drawn
    return tokens.tolist()


def top_logprobs(logits: Tensor, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """Natural log probabilities under the model itself, before temperature and cuts.

    Args:
        logits: float32 [vocabulary].
        token: the chosen token.
        count: how many likeliest tokens to report.

    Returns:
        The log probability of `token`, and the `count` likeliest as (token, log probability), best first.
    """
    logprobs = logits.log_softmax(dim=-1)
    best = logprobs.topk(min(count, logprobs.shape[-1]))
    return logprobs[token].item(), list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def _is_narrow(sampling: Sampling) -> bool:
    return sampling.top_k > 0 or sampling.top_p < 1


def _draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Invert the cumulative distribution: [n, m] and [n, 1] -> index [n], never one of probability 0."""
    cumulative = probabilities.cumsum(dim=-1)
    place = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return place.squeeze(-1).clamp_max(probabilities.shape[-1] - 1)


def _draw_narrow(scores: Tensor, samplings: Sequence[Sampling], uniform: Tensor) -> Tensor:
    """Draw among the top k, then among the smallest set that reaches top p. Source: arXiv:1904.09751."""
    vocabulary = scores.shape[-1]
    device = scores.device
    top_k = upload([sampling.top_k or vocabulary for sampling in samplings], device)[:, None]
    top_p = upload([sampling.top_p for sampling in samplings], device)[:, None]
    whole = scores.exp()
    width = min(vocabulary, max(_CANDIDATES, *(sampling.top_k for sampling in samplings)))
    while True:
        best, tokens = whole.topk(width, dim=-1)
        best = best.masked_fill(torch.arange(width, device=device) >= top_k, 0.0)
        # Top p counts within what top k has left.
        total = torch.where(top_k <= width, best.sum(dim=-1, keepdim=True), whole.sum(dim=-1, keepdim=True))
        before = best.cumsum(dim=-1) - best
        inside = before < top_p * total
        enough = (top_k <= width) | ~inside[:, -1:]
        if width == vocabulary or bool(enough.all()):
            break
        width = vocabulary
    inside[:, 0] = True  # top_p of 0 still leaves the likeliest
    place = _draw(best.masked_fill(~inside, 0.0), uniform)
    return tokens.gather(-1, place[:, None]).squeeze(-1)
