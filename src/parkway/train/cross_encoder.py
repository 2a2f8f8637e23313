"""Trains a cross-encoder on judged questions, beginning with a sentence encoder.

Each step has some questions, each with a passage that is right and some that were found for it, too, and are not: the
softmax over them shall choose the right one (localised contrastive estimation; Gao et al., 2021, arXiv:2101.08751).
Word embeddings stay as they are: some hundred questions have few words.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from parkway.engine.cross_encoder import CrossEncoder, Pair, Pairing, in_native_type


@dataclass(frozen=True, slots=True)
class Example:
    """A question, passages that answer it, and passages that were found for it and do not, the best first."""

    query: str
    right: list[str]
    wrong: list[str]


@dataclass(frozen=True, slots=True)
class CrossTraining:
    """How it is trained.

    Attributes:
        minutes: The longest; it ends earlier after `rounds`.
        rounds: So often each question is seen at most.
        questions: In a step.
        wrong: Passages beside the right one.
        hard: Among so many of the best they are drawn.
        threads: As many as torch takes, or so many.
    """

    minutes: float = 15.0
    seed: int = 0
    rounds: int = 8
    questions: int = 4
    wrong: int = 5
    hard: int = 30
    rate: float = 5e-5
    decay: float = 0.01
    warm_up: float = 0.1
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: `share` of the time or of the rounds, and the mean loss since the last report."""

    share: float
    steps: int
    loss: float


Report = Callable[[Progress], None]

_REPORT_EVERY_S = 15.0


def train(
    model: CrossEncoder, pairing: Pairing, examples: Sequence[Example], training: CrossTraining, report: Report
) -> None:
    """Changes the model. The same seed draws the same questions and passages; how many is a matter of time.

    Args:
        examples: Each with at least one right passage and one that is wrong.
    """
    if training.threads is not None:
        torch.set_num_threads(training.threads)
    frozen = model.encoder.embeddings.word_embeddings.weight
    learned = [parameter.requires_grad_() for parameter in model.parameters() if parameter is not frozen]
    optimiser = torch.optim.AdamW(learned, lr=training.rate, weight_decay=training.decay)
    began = reported = time.monotonic()
    steps = training.rounds * -(-len(examples) // training.questions)
    losses: list[float] = []
    for step, drawn in enumerate(_draw(examples, training), 1):
        share = max((time.monotonic() - began) / (60 * training.minutes), step / steps)
        rate = min(share / training.warm_up, (1 - share) / (1 - training.warm_up))
        if rate <= 0:
            break
        for group in optimiser.param_groups:
            group["lr"] = training.rate * rate
        loss = _loss(model, [pairing.pairs(query, texts) for query, texts in drawn])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if time.monotonic() - reported > _REPORT_EVERY_S:
            report(Progress(share, step, sum(losses) / len(losses)))
            reported, losses = time.monotonic(), []
    model.requires_grad_(False)


def _draw(examples: Sequence[Example], training: CrossTraining) -> Iterator[list[tuple[str, list[str]]]]:
    """Questions of each step, each with the right passage before the others."""
    chance = random.Random(training.seed)  # noqa: S311 - a draw that can be repeated, no secret
    for _ in range(training.rounds):
        order = chance.sample(range(len(examples)), len(examples))
        for start in range(0, len(order), training.questions):
            drawn: list[tuple[str, list[str]]] = []
            for at in order[start : start + training.questions]:
                each = examples[at]
                hard = each.wrong[: training.hard]
                wrong = chance.sample(hard, min(len(hard), training.wrong))
                drawn.append((each.query, [chance.choice(each.right), *wrong]))
            yield drawn


def _loss(model: CrossEncoder, groups: Sequence[Sequence[Pair]]) -> torch.Tensor:
    pairs = [pair for group in groups for pair in group]
    # The longer half apart from the shorter one: less of a pass is padding.
    order = sorted(range(len(pairs)), key=lambda at: len(pairs[at].ids))
    middle = len(order) // 2
    with in_native_type():
        halves = [model([pairs[at] for at in some]).float() for some in (order[:middle], order[middle:]) if some]
    scores = torch.cat(halves)[torch.tensor(order).argsort()]
    parts = scores.split([len(group) for group in groups])
    return -torch.stack([F.log_softmax(part, dim=0)[0] for part in parts]).mean()
