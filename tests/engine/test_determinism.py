"""The same numbers, to the last bit, whatever the batch."""

import random
from pathlib import Path

import pytest
import torch

from parkway.core.configuration import parse
from parkway.core.errors import ConfigurationError
from parkway.engine.config import EngineConfig
from parkway.engine.determinism import TILE, tiled_linear
from parkway.engine.generator import Generator
from parkway.engine.sequence import Sequence
from tests.engine.test_adapters import write_adapter
from tests.engine.test_engine import finish, is_greedy, load, new
from tests.engine.tiny import CONFIGS, reference, state_of, write_directory

QWEN3 = CONFIGS["qwen3-grouped-yarn"]

Outcome = tuple[list[int], list[tuple[float, list[tuple[int, float]]]]]


def outcome(generator: Generator, sequence: Sequence, *others: Sequence) -> Outcome:
    """The tokens of an answer, and every number that was reported with them."""
    pieces = finish(generator, *others, sequence)[sequence]
    return sequence.tokens, [(each.logprob, each.likeliest) for piece in pieces for each in piece.chosen]


@pytest.mark.parametrize(
    ("settings", "processor"),
    [
        ({"dtype": "float32"}, None),
        ({"dtype": "bfloat16"}, None),
        ({"dtype": "bfloat16", "quantization": "int8"}, None),
        ({"dtype": "bfloat16"}, "no_kernels"),
        ({"dtype": "bfloat16"}, "emulated_tiles"),
        ({"dtype": "bfloat16", "quantization": "int8"}, "emulated_tiles"),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_does_not_depend_on_its_company_to_the_last_bit(
    tmp_path: Path,
    settings: dict[str, str],
    processor: str | None,
    temperature: float,
    request: pytest.FixtureRequest,
) -> None:
    """Alone, in crowds, read in parts of every size, guessed ahead, found in the cache, sent back and read again.

    With our own kernels, without them, and as it is on processors that multiply tiles.
    """
    if processor is not None:
        request.getfixturevalue(processor)
    path = write_directory(tmp_path / "model", QWEN3)
    prompt = [random.Random(1).randrange(300) for _ in range(90)]
    found: list[Outcome] = []
    for step_tokens, guess_tokens, crowd in ((256, 0, 0), (7, 0, 3), (33, 16, 5), (64, 4, 1)):
        generator = load(
            path, **settings, deterministic=True, step_tokens=step_tokens, guess_tokens=guess_tokens, max_sequences=6
        )
        for turn in range(2):  # the second time the cache holds the prompt
            dice = random.Random(step_tokens + turn)
            others = [
                new(generator, [dice.randrange(300) for _ in range(dice.randint(1, 120))], 40) for _ in range(crowd)
            ]
            asked = new(generator, prompt, 60, temperature=temperature, seed=5, logprobs=3)
            found.append(outcome(generator, asked, *others))
    assert all(each == found[0] for each in found)


def test_the_answers_are_still_those_of_transformers(tmp_path: Path) -> None:
    model = reference(QWEN3)
    generator = load(write_directory(tmp_path, QWEN3, tensors=state_of(model)), deterministic=True, step_tokens=24)
    sequences = [new(generator, [length % 7, 3, 9] * length, 30) for length in (1, 11, 40)]
    finish(generator, *sequences)
    assert all(is_greedy(model, sequence) for sequence in sequences)


def test_adapters_are_deterministic_too(tmp_path: Path) -> None:
    tensors = state_of(reference(QWEN3))
    generator = load(write_directory(tmp_path / "model", QWEN3, tensors=tensors), deterministic=True, step_tokens=40)
    write_adapter(tmp_path / "adapter", tensors, 1)
    generator.adapters.load("a", tmp_path / "adapter")

    def asked() -> Sequence:
        sequence = new(generator, [4, 5, 6] * 20, 20, logprobs=3)
        sequence.adapter = generator.adapters.get("a")
        return sequence

    alone = outcome(generator, asked())
    company = [asked(), new(generator, [4, 5, 6] * 20, 30), new(generator, [1], 30)]
    assert outcome(generator, asked(), *company) == alone


def test_tiles_multiply_as_a_whole_would() -> None:
    x, weight = torch.randn(TILE + 5, 7), torch.randn(3, 7)
    torch.testing.assert_close(tiled_linear(x, weight), torch.nn.functional.linear(x, weight))
    assert torch.equal(tiled_linear(x, weight)[:1], tiled_linear(x[:1], weight))


def test_it_does_not_go_together_with_tensor_parallelism() -> None:
    with pytest.raises(ConfigurationError, match="deterministic"):
        parse("deterministic: true\ntensor_parallel: 2", EngineConfig, source="x")
