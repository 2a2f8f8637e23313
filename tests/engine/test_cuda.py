"""The engine on a GPU: the same answers as on processors and by transformers. Skipped where there is none."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from parkway.core.chat import ChatRequest, Message, StructuredOutputs
from parkway.core.completions import CompletionRequest
from parkway.core.errors import ModelFilesError, Overloaded
from parkway.engine import builtin
from parkway.engine.attention import PagedAttention
from parkway.engine.cache import KVCache
from parkway.engine.config import EngineConfig
from parkway.engine.device import choose_device
from parkway.engine.directory import ModelDirectory
from parkway.engine.embedder import Embedder
from parkway.engine.generator import Generator
from parkway.engine.runner import Runner
from parkway.engine.sequence import Sequence
from tests.engine.test_adapters import write_adapter
from tests.engine.test_determinism import outcome
from tests.engine.test_engine import finish, load, new, text
from tests.engine.tiny import CONFIGS, reference, state_of, write_directory

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU and the CUDA build of torch; there is none here"
)

DEVICE = "cuda"
QWEN3 = CONFIGS["qwen3-grouped-yarn"]


def is_nearly_greedy(model: Any, sequence: Sequence) -> bool:
    """Every token of the answer is transformers' likeliest one, or as likely but for rounding."""
    with torch.inference_mode():
        scores = model(torch.tensor([sequence.tokens])).logits[0].float()
    rows = scores[sequence.prompt_tokens - 1 : -1]
    chosen = rows.gather(1, torch.tensor(sequence.tokens[sequence.prompt_tokens :])[:, None])[:, 0]
    return bool((rows.amax(dim=1) - chosen < 1e-3).all())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(tmp_path_factory.mktemp("model"), QWEN3, tensors=state_of(reference(QWEN3)))


def prompt_scores(generator: Generator, prompt: list[int]) -> Tensor:
    """Log probabilities of a prompt's tokens."""
    sequence = new(generator, prompt, 1, logprobs=1)
    sequence.scores_prompt = True
    finish(generator, sequence)
    return torch.tensor([each.logprob for each in sequence.scored])


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_tokens_are_those_of_transformers(name: str, graphs: bool, tmp_path: Path) -> None:
    """In a crowd, with prompts in parts and guesses."""
    model = reference(CONFIGS[name])
    path = write_directory(tmp_path, CONFIGS[name], tensors=state_of(model))
    generator = load(path, device=DEVICE, step_tokens=24, max_sequences=6, cuda_graphs=graphs)
    dice = random.Random(name)
    prompts = [[dice.randrange(300) for _ in range(dice.choice([1, 5, 30, 120]))] for _ in range(9)]
    sequences = [new(generator, prompt, dice.randint(5, 25)) for prompt in prompts]
    finish(generator, *sequences)
    for sequence in sequences:
        assert sequence.completion_tokens == sequence.max_tokens
        assert is_nearly_greedy(model, sequence)
    assert next(generator.engine._decoder.parameters()).device.type == DEVICE


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("triton", [True, False])
def test_scores_are_those_of_processors(path: Path, dtype: str, triton: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = [random.Random(1).randrange(300) for _ in range(90)]
    expected = prompt_scores(load(path, device="cpu"), prompt)
    if not triton:
        monkeypatch.setattr("parkway.engine.backend._attention", lambda *_: PagedAttention)
    generator = load(path, device=DEVICE, dtype=dtype, step_tokens=24)
    assert (generator.engine._backend.attention is PagedAttention) == (not triton)
    difference = (prompt_scores(generator, prompt) - expected).abs()
    assert difference.mean() < 0.1 if dtype == "bfloat16" else difference.max() < 1e-3


def test_steps_that_decode_are_recorded(path: Path) -> None:
    generator = load(path, device=DEVICE, max_sequences=6, guess_tokens=0)
    runner: Any = generator.engine._runner
    finish(generator, *(new(generator, [5, seed], 8) for seed in range(5)))
    assert set(runner._recordings) == {8}
    finish(generator, new(generator, [7, 8], 8))
    assert set(runner._recordings) == {1, 8}
    assert type(load(path, device=DEVICE, cuda_graphs=False).engine._runner) is Runner


def test_a_seed_repeats_an_answer(path: Path) -> None:
    generator = load(path, device=DEVICE, max_sequences=6)
    ways = [{"top_p": 0.9}, {"top_k": 7}, {"min_p": 0.05}, {}]
    answers = []
    for _ in range(2):
        sequences = [new(generator, [5, 6], 12, temperature=0.8, seed=4, **way) for way in ways]
        finish(generator, *sequences)
        answers.append([sequence.tokens for sequence in sequences])
    assert answers[0] == answers[1]


def test_it_is_deterministic_where_that_is_asked_for(path: Path) -> None:
    generator = load(path, device=DEVICE, deterministic=True, step_tokens=40)

    def asked() -> Sequence:
        return new(generator, [4, 5, 6] * 20, 12, logprobs=3)

    alone = outcome(generator, asked())
    assert outcome(generator, asked(), new(generator, [4, 5, 6] * 20, 20), new(generator, [1], 20)) == alone


def test_adapters_work_side_by_side(path: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", state_of(reference(QWEN3)), 1)
    answers = []
    for device in ("cpu", DEVICE):
        generator = load(path, device=device)
        generator.adapters.load("a", tmp_path / "adapter")
        sequences = [new(generator, [5, 6, 7, 8] * 10, 12) for _ in range(2)]
        sequences[1].adapter = generator.adapters.get("a")
        finish(generator, *sequences)
        answers.append([sequence.tokens for sequence in sequences])
    assert answers[0] == answers[1]
    assert answers[0][0] != answers[0][1]


def test_an_answer_follows_its_form_and_its_biases(path: Path) -> None:
    generator = load(path, device=DEVICE)
    asked = {"model": "m", "prompt": "one", "max_tokens": 20}
    form = CompletionRequest(**asked, structured_outputs=StructuredOutputs(choice=["quick", "lazy dog"]))
    [formed] = generator.completion(form, ["one"])
    [biased] = generator.completion(
        CompletionRequest(**asked, logit_bias={"65": 100.0}, presence_penalty=1.0, repetition_penalty=1.1), ["one"]
    )
    pieces = finish(generator, formed, biased)
    assert text(pieces[formed]) in ("quick", "lazy dog")
    assert biased.tokens[biased.prompt_tokens] == 65


def test_json_is_json(path: Path) -> None:
    generator = load(path, device=DEVICE)
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    request = ChatRequest(model="m", messages=[Message(role="user", content="hi")], max_tokens=60)
    request.response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    [sequence] = generator.chat(request)
    assert json.loads(text(finish(generator, sequence)[sequence]))["a"] in (1, 2)


async def test_embeddings_are_those_of_processors() -> None:
    texts = ["A cat sits on the mat.", "short", "Unpack an archive into another directory, please. " * 8]
    found = []
    for device in ("cpu", DEVICE):
        config = EngineConfig(model="park-embed", device=device)
        embedder = Embedder(ModelDirectory(builtin.resolve("park-embed")), config)
        found.append(torch.stack(await embedder.embed(embedder.tokenise(texts))))
        await embedder.close()
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_a_cancelled_answer_frees_its_blocks(path: Path) -> None:
    generator = load(path, device=DEVICE)
    engine = generator.engine
    gone, stays = new(generator, [5] * 40, 100), new(generator, [6] * 40, 10)
    engine.add([gone, stays])
    for _ in range(3):
        engine.step()
    engine.cancel([gone])
    while engine.running or engine.waiting:
        engine.step()
    assert gone.completion_tokens < 100
    assert stays.completion_tokens == 10
    assert engine.cache_use == 0


def test_want_of_memory_ends_a_step_and_not_the_engine(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load(path, device=DEVICE)
    device = choose_device(DEVICE)
    with monkeypatch.context() as patch:
        patch.setattr(generator.engine._decoder, "logits", lambda _: torch.empty(1 << 46, device=device))
        sequence = new(generator, [5, 6, 7], 5)
        [piece] = finish(generator, sequence)[sequence]
        assert isinstance(piece.error, Overloaded)
    assert generator.engine.cache_use == 0
    after = new(generator, [5, 6, 7], 5)
    finish(generator, after)
    assert after.completion_tokens == 5


def test_a_cache_that_does_not_fit_is_refused(path: Path) -> None:
    shape = load(path, device=DEVICE).engine._decoder.shape
    with pytest.raises(ModelFilesError, match="no memory for the cache"):
        KVCache(shape, torch.float32, blocks=1 << 34, device=choose_device(DEVICE))


def test_blocks_that_hold_no_numbers_are_wiped(path: Path) -> None:
    engine = load(path, device=DEVICE).engine
    for part in engine._cache.layer(0):
        part.fill_(float("nan"))
    engine._cache.wipe([3])
    for part in engine._cache.layer(0):
        assert torch.equal(part[96:128], torch.zeros_like(part[96:128]))
        assert part[:96].isnan().all()
