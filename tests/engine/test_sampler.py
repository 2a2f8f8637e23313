"""Choosing tokens: the distribution, the cuts, the seeds."""

from collections import Counter

import pytest
import torch

from parkway.engine.bias import Biases
from parkway.engine.sampler import Choice, Sampling, biased, sample, top_logprobs


def choices(*samplings: Sampling) -> list[Choice]:
    return [Choice(sampling, sampling.generator()) for sampling in samplings]


def drawn(logits: torch.Tensor, sampling: Sampling, times: int) -> Counter[int]:
    """How often each token comes out of one sequence's generator."""
    [choice] = choices(sampling)
    return Counter(token for _ in range(times) for token in sample(logits[None], [choice]))


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    assert sample(logits, choices(*[Sampling(temperature=0)] * 5)) == logits.argmax(-1).tolist()


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(seed=1), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(seed=1, top_k=2), [0.625, 0.375, 0, 0]),
        (Sampling(seed=1, top_p=0.79), [0.625, 0.375, 0, 0]),
        (Sampling(seed=1, top_p=0.81), [0.526, 0.316, 0.158, 0]),
        (Sampling(seed=1, top_p=0.0), [1, 0, 0, 0]),
        # top_p counts within what top_k has left: 0.5 / 0.8 reaches 0.6 by itself.
        (Sampling(seed=1, top_k=2, top_p=0.6), [1, 0, 0, 0]),
        (Sampling(seed=1, top_k=99, top_p=1.0), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(seed=1, min_p=0.35), [0.625, 0.375, 0, 0]),
        (Sampling(seed=1, min_p=1.0), [1, 0, 0, 0]),
        (Sampling(seed=1, temperature=0.5), [0.685, 0.247, 0.062, 0.007]),
        (Sampling(seed=1, temperature=1e-9), [1, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_they_should(sampling: Sampling, expected: list[float]) -> None:
    times = 2000
    counts = drawn(torch.tensor([0.5, 0.3, 0.15, 0.05]).log(), sampling, times)
    for token, probability in enumerate(expected):
        # Four standard deviations; the seed is fixed, so this either always passes or never.
        slack = 4 * (probability * (1 - probability) * times) ** 0.5
        assert abs(counts[token] - probability * times) <= slack + 2, (token, counts)


def test_a_nucleus_wider_than_the_first_candidates_is_found() -> None:
    """Flat over 3,000 tokens: half of the probability needs 1,500 of them."""
    counts = drawn(torch.zeros(3000), Sampling(seed=1, top_p=0.5), 300)
    assert len(counts) > 200
    assert len(set(counts)) <= 1500


def test_top_k_wider_than_the_first_candidates_is_exact() -> None:
    logits = torch.cat((torch.full((2000,), 1.0), torch.full((2000,), 0.9)))
    counts = drawn(logits, Sampling(seed=1, top_k=2000), 300)
    assert max(counts) < 2000


@pytest.mark.parametrize("sampling", [Sampling(seed=7), Sampling(seed=7, top_p=0.9), Sampling(seed=7, top_k=50)])
def test_a_seeded_choice_does_not_depend_on_its_neighbours(sampling: Sampling) -> None:
    logits = torch.randn(12, 500, generator=torch.Generator().manual_seed(0))
    alone = choices(sampling)
    expected = [sample(row[None], alone)[0] for row in logits]
    own, others = (
        choices(sampling),
        choices(Sampling(), Sampling(temperature=0), Sampling(top_k=3), Sampling(top_p=0.1)),
    )
    found = []
    for step, row in enumerate(logits):
        batch = torch.cat((torch.randn(step % 5, 500), row[None]))
        found.append(sample(batch, [*others[: step % 5], *own])[-1])
    assert found == expected


def test_other_seeds_choose_otherwise_and_no_seed_is_never_the_same() -> None:
    logits = torch.zeros(1, 10_000)
    assert sample(logits, choices(Sampling(seed=1))) != sample(logits, choices(Sampling(seed=2)))
    assert sample(logits, choices(Sampling())) != sample(logits, choices(Sampling()))


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**63 - 1])
def test_every_seed_that_a_request_may_carry_works(seed: int) -> None:
    logits = torch.zeros(1, 10_000)
    assert sample(logits, choices(Sampling(seed=seed))) == sample(logits, choices(Sampling(seed=seed)))


def test_tokens_of_no_probability_never_come() -> None:
    logits = torch.full((1, 100), float("-inf"))
    logits[0, 42] = 0.0
    for sampling in (Sampling(), Sampling(top_k=5), Sampling(top_p=0.9), Sampling(temperature=2)):
        assert sample(logits, choices(sampling)) == [42]


def test_scores_that_are_no_numbers_do_not_crash() -> None:
    logits = torch.full((3, 100), float("nan"))
    tokens = sample(logits, choices(Sampling(), Sampling(top_k=5), Sampling(temperature=0)))
    assert all(0 <= token < 100 for token in tokens)


def test_logprobs_are_the_models_own() -> None:
    probabilities = torch.tensor([0.1, 0.6, 0.3])
    logprob, likeliest = top_logprobs(probabilities.log() + 5, 0, 2)
    assert logprob == pytest.approx(-2.302585)
    assert [token for token, _ in likeliest] == [1, 2]
    assert [value for _, value in likeliest] == pytest.approx([-0.510826, -1.203973])
    assert top_logprobs(probabilities.log(), 0, 0)[1] == []


def test_scores_that_nobody_changes_are_not_copied() -> None:
    logits = torch.randn(2, 10)
    assert biased(logits, choices(Sampling(), Sampling(temperature=0))) is logits


def test_biases_are_added_for_their_sequence_alone() -> None:
    logits = torch.zeros(2, 4)
    plain, favoured = Sampling(temperature=0), Sampling(temperature=0, biases=Biases({2: 5.0, 1: -100.0}))
    scores = biased(logits, [Choice.of(plain, [0]), Choice.of(favoured, [0])])
    assert scores.tolist() == [[0, 0, 0, 0], [0, -100, 5, 0]]
    assert logits.count_nonzero() == 0


def test_penalties_count_the_answer_and_not_the_prompt() -> None:
    choice = Choice.of(Sampling(biases=Biases(presence_penalty=1.0, frequency_penalty=0.25)), [3, 3])
    assert choice.bias is not None
    seen = []
    for token in (1, 1, 2):
        seen.append(biased(torch.zeros(1, 4), [choice])[0].tolist())
        choice.bias.chosen(token)
    seen.append(biased(torch.zeros(1, 4), [choice])[0].tolist())
    assert seen == [[0, 0, 0, 0], [0, -1.25, 0, 0], [0, -1.5, 0, 0], [0, -1.5, -1.25, 0]]


def test_repetition_counts_the_prompt_too_and_keeps_the_sign() -> None:
    choice = Choice.of(Sampling(biases=Biases(repetition_penalty=2.0)), [0])
    logits = torch.tensor([[4.0, -4.0, 3.0, 1.0]])
    assert biased(logits, [choice])[0].tolist() == [2.0, -4.0, 3.0, 1.0]
    assert choice.bias is not None
    choice.bias.chosen(1)
    assert biased(logits, [choice])[0].tolist() == [2.0, -8.0, 3.0, 1.0]
