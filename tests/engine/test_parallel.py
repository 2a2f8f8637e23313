"""A model that two processes share: the same logits and tokens as one process's."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import torch

from parkway.core.errors import InvalidRequest, ModelFilesError
from parkway.engine.config import EngineConfig
from parkway.engine.parallel import Group
from parkway.engine.shape import ModelShape
from tests.engine.test_engine import finish, load, new
from tests.engine.tiny import CONFIGS, SIZES, write_directory
from tests.running import children

SHARED = """
import json, sys, time
from pathlib import Path
from parkway.engine.directory import ModelDirectory
from parkway.engine.config import EngineConfig
from parkway.engine.follower import leading
from parkway.engine.generator import Generator
from parkway.engine.sampler import Sampling
from parkway.engine.sequence import Sequence

path, prompts = json.loads(sys.argv[1])
config = EngineConfig(model=path, device="cpu", dtype="float32", tensor_parallel=2, step_tokens=16, threads=1)
with leading(Path(path), config, 1) as group:
    generator = Generator.load(ModelDirectory(Path(path)), config, group)
    sequences = [
        Sequence(prompt, max_tokens=20, sampling=Sampling(temperature=0, logprobs=20), deadline=time.monotonic() + 60,
                 tokenizer=generator.tokenizer)
        for prompt in prompts
    ]
    generator.engine.add(sequences)
    likeliest = {}
    while generator.engine.running or generator.engine.waiting:
        for sequence, piece in generator.engine.step():
            likeliest.setdefault(id(sequence), []).extend(chosen.likeliest for chosen in piece.chosen)
    print(json.dumps([[sequence.tokens, likeliest[id(sequence)]] for sequence in sequences]))
"""
DIVISIBLE = [name for name, config in CONFIGS.items() if config.get("num_key_value_heads", 2) % 2 == 0]


@pytest.mark.parametrize("name", DIVISIBLE)
def test_two_processes_give_the_logits_and_tokens_of_one(name: str, tmp_path: Path) -> None:
    path = write_directory(tmp_path, CONFIGS[name], eos="<|end|>")
    prompts = [[1, 2, 3] * 20, [7], [4, 5] * 9]
    command = [sys.executable, "-c", SHARED, json.dumps([str(path), prompts])]
    shared = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)
    alone = load(path)
    for prompt, (tokens, likeliest) in zip(prompts, shared, strict=True):
        sequence = new(alone, prompt, 20, logprobs=20)
        pieces = finish(alone, sequence)[sequence]
        assert tokens == sequence.tokens
        expected = [chosen.likeliest for piece in pieces for chosen in piece.chosen]
        for found, wanted in zip(likeliest, expected, strict=True):
            assert [token for token, _ in found] == [token for token, _ in wanted]
            assert [value for _, value in found] == pytest.approx([value for _, value in wanted], abs=1e-4)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    path = write_directory(tmp_path / "tiny", CONFIGS["llama-grouped-llama3"])
    command = [sys.executable, "-m", "parkway", "engine", "--model", str(path), "--port", "0"]
    process = subprocess.Popen([*command, "--set", "tensor_parallel=2"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ready = process.stdout.readline()
    assert ready.startswith("ready ")
    yield process, ready.split()[1]
    process.kill()
    process.wait()


def test_an_engine_of_two_processes_answers_and_leaves_none_behind(engine: tuple[subprocess.Popen[str], str]) -> None:
    process, url = engine
    [follower] = children(process.pid)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = client.completions.create(model="tiny", prompt="hello", max_tokens=10)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 10
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not Path(f"/proc/{follower}").exists()


@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_the_processes_end_with_one_another(engine: tuple[subprocess.Popen[str], str], victim: str) -> None:
    process, _ = engine
    [follower] = children(process.pid)
    os.kill(process.pid if victim == "leader" else follower, signal.SIGKILL)
    assert process.wait(30) == (-signal.SIGKILL if victim == "leader" else 70)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{follower}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Pair(Group):
    """Two processes on paper."""

    def __init__(self, rank: int) -> None:
        self.rank, self.size = rank, 2


def test_parts_make_up_the_whole() -> None:
    weight = torch.arange(24.0).view(4, 6)
    parts = [Pair(rank) for rank in range(2)]
    rows = [part.slice("model.layers.0.mlp.up_proj.weight", weight) for part in parts]
    columns = [part.slice("model.layers.0.mlp.down_proj.weight", weight) for part in parts]
    biases = [part.slice("model.layers.0.self_attn.o_proj.bias", weight[0]) for part in parts]
    assert torch.equal(torch.cat(rows, dim=0), weight)
    assert torch.equal(torch.cat(columns, dim=1), weight)
    assert torch.equal(biases[0] + biases[1], weight[0])
    assert torch.equal(parts[1].slice("model.norm.weight", weight), weight)


def test_what_cannot_be_divided_is_refused() -> None:
    shape = ModelShape.from_config({**SIZES, **CONFIGS["qwen3-grouped-yarn"]})
    with pytest.raises(ModelFilesError, match="1 kv_heads cannot be divided by 2"):
        Pair(0).check(shape)


def test_a_divided_model_takes_no_adapters(tmp_path: Path) -> None:
    from parkway.engine.adapters import Adapters

    decoder = load(write_directory(tmp_path, CONFIGS["qwen2-grouped-tied"])).engine._decoder
    with pytest.raises(InvalidRequest, match="tensor_parallel"):
        Adapters(decoder, divided=True).load("a", tmp_path)  # pyright: ignore[reportArgumentType]


def test_one_process_is_the_default() -> None:
    assert EngineConfig().tensor_parallel == 1
