"""Choosing a device; and that a step keeps to its own. Torch's tensors without contents tell that without a GPU."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils.backend_registration import _DummyDeviceGuard

from parkway.core.chat import ChatRequest, Message
from parkway.core.configuration import parse
from parkway.core.errors import ConfigurationError, ModelFilesError, Overloaded
from parkway.engine import generator as generator_module
from parkway.engine import weights
from parkway.engine.adapters import Adapter, Change
from parkway.engine.attention import PagedAttention
from parkway.engine.backend import Backend, check_device, prepare
from parkway.engine.bias import Biases
from parkway.engine.blocks import BlockPool
from parkway.engine.cache import KVCache
from parkway.engine.config import EngineConfig
from parkway.engine.determinism import TiledAttention
from parkway.engine.device import CPU, cache_budget_bytes, choose_device, choose_dtype
from parkway.engine.encoder import Encoder, EncoderShape
from parkway.engine.encoder_loop import EncoderLoop, _Job
from parkway.engine.engine import Engine
from parkway.engine.generator import Generator
from parkway.engine.loop import EngineLoop
from parkway.engine.model import Decoder
from parkway.engine.sampler import Sampling
from parkway.engine.scheduler import Scheduler
from parkway.engine.sequence import Sequence
from parkway.engine.shape import ModelShape
from tests.engine.test_engine import finish, load, new
from tests.engine.tiny import CONFIGS, SIZES, write_directory

GPU = torch.device("cuda", 0)
PAPER = torch.device("privateuseone", 0)
QWEN3 = CONFIGS["qwen3-grouped-yarn"]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has two, of which one GiB is free each. Nothing can be put there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 30, 2 << 30))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_is_the_first_gpu(two_gpus: None) -> None:
    assert choose_device("auto") == choose_device("cuda") == choose_device("cuda:0") == GPU
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cpu") == CPU
    with pytest.raises(ConfigurationError, match="device is 'cuda:2', but this process sees 2 GPUs, cuda:0, cuda:1"):
        choose_device("cuda:2")


def test_without_a_gpu_auto_is_the_processor(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("auto") == choose_device("cpu") == CPU
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigurationError, match="built for processors only: install its CUDA build; or set device"):
        choose_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ConfigurationError, match=r"device is 'cuda:1', but torch .* finds no GPU: see that `nvidia"):
        choose_device("cuda:1")


def test_a_device_that_cannot_be_is_refused() -> None:
    assert parse("device: cuda:3", EngineConfig, source="x").device == "cuda:3"
    for wrong in ("gpu", "cuda:", "cuda:-1", "mps", "cuda:0,1"):
        with pytest.raises(ConfigurationError, match="a device is `auto`, `cpu`, `cuda`, or `cuda:0`"):
            parse(f"device: {wrong!r}", EngineConfig, source="x")


@pytest.mark.parametrize("setting", ["quantization: int8", "tensor_parallel: 2"])
def test_what_only_processors_do_is_refused_on_a_gpu(setting: str) -> None:
    config = parse(setting, EngineConfig, source="x")
    check_device(CPU, config)
    with pytest.raises(ConfigurationError, match="works on processors only, but the engine would run on cuda:0"):
        check_device(GPU, config)


def test_weights_that_do_not_fit_are_not_loaded(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_directory(tmp_path, QWEN3)
    monkeypatch.setattr(weights, "free_bytes", lambda _: 1000)
    with pytest.raises(ModelFilesError, match=r"the weights take \d+ bytes in float32, but cuda:0 has 1000 bytes free"):
        load(path, device="cuda")


def test_a_cache_takes_what_is_left_of_a_gpu(two_gpus: None) -> None:
    shape = ModelShape.from_config({**SIZES, **QWEN3})
    budget = cache_budget_bytes(GPU, shape, choices=10, tokens=100)
    assert budget == (1 << 30) - (512 << 20) - 4 * (320 * (8 * 10 + 2 * 100) + 16 * 100 * 64)
    assert cache_budget_bytes(GPU, shape, choices=10, tokens=1 << 30) == 0


def test_memory_that_runs_out_while_loading_is_told(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_directory(tmp_path, QWEN3)

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(generator_module, "prepare", fail)
    with pytest.raises(ModelFilesError, match="cpu ran out of memory while the model was loaded: tried to allocate"):
        load(path)
    monkeypatch.setattr(weights, "_tensors", fail)
    with pytest.raises(ModelFilesError, match="cuda:1 ran out of memory while the model was loaded"):
        load(path, device="cuda:1", dtype="float32")


def test_a_cache_too_small_for_one_sequence_says_what_fits(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shape = load(write_directory(tmp_path, QWEN3)).engine._decoder.shape
    block_bytes = KVCache.block_bytes(shape, torch.float32)
    monkeypatch.setattr(generator_module, "cache_budget_bytes", lambda *_, **__: 3 * block_bytes)
    with pytest.raises(ModelFilesError, match=r"cuda:0 has .* bytes left, enough for 96 tokens; lower max_context"):
        generator_module._blocks(shape, torch.float32, 200, EngineConfig(), GPU)


class ShortOfMemory:
    """A runner that finds no memory while more than so many tokens are run."""

    def __init__(self, runner: Any, most: int) -> None:
        self._runner, self._most = runner, most

    def __call__(self, token_ids: list[int], *rest: Any) -> Tensor:
        if len(token_ids) > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._runner(token_ids, *rest)


def test_a_step_without_memory_ends_its_own_answers_and_no_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generator = load(write_directory(tmp_path, QWEN3), max_sequences=2, step_tokens=64)
    engine = generator.engine
    short, long, waiting = (new(generator, [5] * length, 3) for length in (4, 40, 6))
    alone = new(generator, [5] * 6, 3)
    finish(generator, alone)
    whole = engine._runner
    engine._runner = ShortOfMemory(whole, 20)  # pyright: ignore[reportAttributeAccessIssue]
    pieces = finish(generator, short, long, waiting)
    for sequence in (short, long):
        [piece] = pieces[sequence]
        assert isinstance(piece.error, Overloaded)
    assert "no memory left for a step of 44 tokens" in caplog.text
    assert waiting.tokens == alone.tokens
    assert engine.cache_use == 0


@pytest.fixture
def paper_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Tensors without contents, which refuse to be computed with tensors on another device."""
    real = torch.Tensor.tolist

    def tolist(tensor: Tensor) -> Any:
        if not isinstance(tensor, FakeTensor):
            return real(tensor)
        return _nested(1, tuple(tensor.shape))

    for kind in (torch.Tensor, FakeTensor):
        monkeypatch.setattr(kind, "tolist", tolist)
        monkeypatch.setattr(kind, "item", lambda _: 1.0)
        monkeypatch.setattr(kind, "__bool__", lambda _: True)
    monkeypatch.setattr(fake_tensor, "CONSTANT_NUMEL_LIMIT", 0)  # no contents for single numbers either
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    torch._C._acc.register_python_privateuseone_device_guard(_DummyDeviceGuard())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        # Masks of grammars are made by another thread, with contents; here they lose them.
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: mode.from_tensor(tensor))
        monkeypatch.setattr(FakeTensor, "pin_memory", lambda tensor: tensor)
        yield PAPER


def test_a_gpu_that_failed_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes nothing any more for this process; the supervisor starts another one."""

    def fail(*_: object) -> None:
        raise torch.AcceleratorError("an illegal memory access was encountered")

    def end(code: int) -> None:
        raise SystemExit(code)

    steps = EngineLoop.__new__(EngineLoop)
    steps._abort, steps.engine = None, SimpleNamespace(step=fail)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr("os._exit", end)
    with pytest.raises(torch.AcceleratorError):
        steps._step()
    rounds = EncoderLoop.__new__(EncoderLoop)
    rounds._encoder = SimpleNamespace(encode=fail)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SystemExit):
        rounds._encode([(_Job([[1]], lambda text: text.mean, None), 0)])  # pyright: ignore[reportArgumentType]


def _nested(value: Any, shape: tuple[int, ...]) -> Any:
    return [_nested(value, shape[1:]) for _ in range(shape[0])] if shape else value


def paper_engine(generator: Generator, device: torch.device, backend: Backend | None = None) -> Engine:
    """An engine on paper for a model's shape; with the backend that such a device gets, unless one is given."""
    shape = generator.engine._decoder.shape
    with device, weights._Unfilled():
        decoder = Decoder(shape).requires_grad_(False)
    decoder.frequencies = decoder.frequencies.to(device)
    found = prepare(decoder)
    cache = KVCache(shape, torch.float32, blocks=40, device=device)
    scheduler = Scheduler(BlockPool(40), max_sequences=8, step_tokens=50, queue_limit=8, guess_tokens=16)
    return Engine(decoder, cache, scheduler, backend or found)


SAMPLINGS = [
    {"temperature": 0.0, "logprobs": 3},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 0.7, "top_k": 5},
    {"biases": Biases(logit_bias={4: 2.0}, presence_penalty=1.0, frequency_penalty=0.5, repetition_penalty=1.2)},
]


@pytest.mark.parametrize("attention", [PagedAttention, TiledAttention])
def test_a_step_keeps_to_its_device(attention: type[PagedAttention], tmp_path: Path, paper_gpu: torch.device) -> None:
    """Prompts in parts, guesses, adapters, biases, grammars, log probabilities of prompts; and wiping blocks."""
    with unset_fake_temporarily():
        generator = load(write_directory(tmp_path, QWEN3))
        request = ChatRequest(model="m", messages=[Message(role="user", content="hi")], max_tokens=4)
        request.response_format = {"type": "json_object"}
        [guided] = generator.chat(request)
    engine = paper_engine(generator, paper_gpu, Backend(attention, rows=lambda rows: rows))
    assert isinstance(engine._decoder, Decoder)
    module = engine._decoder.model.layers[0].mlp.up_proj  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(module, nn.Linear)
    change = Change(torch.zeros(2, module.in_features, device=PAPER), torch.zeros(module.out_features, 2, device=PAPER))
    sequences = [
        Sequence(
            [5, 6, 7, 5, 6, 7] * 12,
            max_tokens=8,
            sampling=Sampling(**sampling),
            deadline=time.monotonic() + 60,
            tokenizer=generator.tokenizer,
            adapter=Adapter("a", b"a", {module: change}) if index % 2 else None,
            lookup=new(generator, [1], 1).lookup,
            scores_prompt=index == 0,
        )
        for index, sampling in enumerate(SAMPLINGS)
    ]
    engine.add([*sequences, guided])
    errors = [piece.error for _ in range(60) for _, piece in engine.step() if piece.error is not None]
    assert not [error for error in errors if "grammar" not in str(error)]  # on paper, what is chosen follows none
    assert engine.running == engine.waiting == 0
    assert all(len(sequence.tokens) == sequence.prompt_tokens + 8 for sequence in sequences)
    assert len(sequences[0].scored) == sequences[0].prompt_tokens - 1
    engine._cache.wipe([0, 3])


def test_texts_are_encoded_on_the_device_and_come_back(paper_gpu: torch.device) -> None:
    shape = EncoderShape(50, 32, 64, 2, 4, 40, 2, 1e-12)
    with paper_gpu, weights._Unfilled():
        encoder = Encoder(shape).requires_grad_(False)
    encoded = encoder.encode([[1, 2, 3], [4, 5]])
    assert [tuple(each.states.shape) for each in encoded] == [(3, 32), (2, 32)]
    assert all(each.states.device == each.mean.device == CPU for each in encoded)


def test_matrices_that_read_the_same_lie_together_on_a_gpu(tmp_path: Path, paper_gpu: torch.device) -> None:
    with unset_fake_temporarily():
        generator = load(write_directory(tmp_path, CONFIGS["qwen2-grouped-tied"]))
    engine = paper_engine(generator, paper_gpu)
    layer: Any = engine._decoder.model.layers[0]  # pyright: ignore[reportAttributeAccessIssue]
    assert layer.self_attn.together is not None
    assert layer.mlp.together is not None
    engine.add([new(generator, [3, 4, 5], 3)])
    while engine.running or engine.waiting:
        assert not [piece.error for _, piece in engine.step() if piece.error is not None]


def test_the_type_to_compute_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert choose_dtype("auto", GPU) == dtype
    assert choose_dtype("float32", GPU) == torch.float32
