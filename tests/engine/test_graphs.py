"""What is recorded and how a recording is fed; with a recorder that remembers the function and calls it again."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from parkway.engine.adapters import Adapter, Change
from parkway.engine.attention import Span
from parkway.engine.backend import Backend
from parkway.engine.cache import BLOCK_TOKENS
from parkway.engine.device import CPU, choose_device
from parkway.engine.generator import Generator
from parkway.engine.runner import Runner, choose_runner
from parkway.engine.sequence import Sequence
from tests.engine.test_engine import finish, load, new
from tests.engine.tiny import CONFIGS, write_directory

graphs = pytest.importorskip("parkway.engine.graphs", reason="needs triton, which there is for Linux only")
pytestmark = pytest.mark.skipif(choose_device("auto") != CPU, reason="Triton is interpreted only where there is no GPU")

QWEN3 = CONFIGS["qwen3-grouped-yarn"]


class Remembering:
    """Stands in for CUDA graphs: calls the function, and again when it is replayed; all results lie in one place."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed: list[int] = []  # tokens of each replay

    def __call__(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.recorded += 1
        result = function()

        def replay() -> Tensor:
            self.replayed.append(len(result))
            return result.copy_(function())

        return replay


def with_graphs(generator: Generator, record: Any) -> Generator:
    """The same generator; its engine records."""
    engine = generator.engine
    backend = Backend(graphs.TritonAttention, rows=lambda rows: rows)
    most = generator.config.max_sequences
    engine._runner = graphs.GraphRunner(
        engine._decoder, engine._cache, backend, sequences=most, context=generator.context, record=record
    )
    return generator


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(tmp_path_factory.mktemp("model"), QWEN3)


def test_numbers_of_tokens_are_filled_up_to_a_few() -> None:
    assert [graphs.filled_up(count) for count in range(1, 19)] == [1, 2, 4, 4, *[8] * 4, *[16] * 8, 24, 24]
    assert graphs.filled_up(512) == 512


def test_answers_are_the_same_with_recordings_and_without(path: Path) -> None:
    dice = random.Random(3)
    prompts = [[dice.randrange(300) for _ in range(dice.choice([1, 5, 40]))] for _ in range(7)]
    counts = [dice.randint(3, 12) for _ in prompts]
    answers: list[list[list[int]]] = []
    record = Remembering()
    for graph in (False, True):
        generator = load(path, step_tokens=24, max_sequences=6, guess_tokens=0)
        if graph:
            with_graphs(generator, record)
        sequences = [new(generator, prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
        finish(generator, *sequences)
        answers.append([sequence.tokens for sequence in sequences])
    assert answers[0] == answers[1]
    assert set(record.replayed) <= {1, 2, 4, 8}
    assert record.recorded == len(set(record.replayed)) >= 3
    assert len(record.replayed) > 2 * record.recorded


def test_idle_tokens_touch_no_block_but_the_spare_one(path: Path) -> None:
    generator = with_graphs(load(path, max_sequences=6), Remembering())
    engine = generator.engine
    runner: Any = engine._runner
    before = [part.clone() for part in engine._cache.layer(0)]
    tables = [[4], [2], [9, 7]]
    spans = [Span(tables[0], 0, 1), Span(tables[1], 5, 1), Span(tables[2], 40, 1)]
    with torch.inference_mode():
        hidden = runner([1, 2, 3], spans, None)
        plain = Runner(engine._decoder, engine._cache, Backend())([1, 2, 3], spans, None)
    assert len(hidden) == 4
    torch.testing.assert_close(hidden[:3], plain[:3], rtol=1e-4, atol=1e-4)
    assert torch.isfinite(hidden).all()
    spare = engine._cache.spare * BLOCK_TOKENS
    own = [4 * BLOCK_TOKENS, 2 * BLOCK_TOKENS + 5, 7 * BLOCK_TOKENS + 8]
    for part, old in zip(engine._cache.layer(0), before, strict=True):
        changed = (part != old).flatten(1).any(dim=1).nonzero().flatten().tolist()
        assert set(changed) == {*own, spare}


def test_prompts_guesses_and_adapters_are_run_without_recordings(path: Path) -> None:
    record = Remembering()
    generator = with_graphs(load(path, max_sequences=2), record)
    decoder: Any = generator.engine._decoder
    runner: Any = generator.engine._runner
    one = Span([0], 3, 1)
    for spans in ([Span([0], 0, 2)], [one, Span([1], 0, 4)], [one] * 3, [Span(list(range(9)), 256, 1)]):
        assert not runner._fits(spans)
    assert runner._fits([one, one])

    module = decoder.model.layers[0].mlp.up_proj
    change = Change(torch.zeros(2, module.in_features), torch.zeros(module.out_features, 2))
    sequence = new(generator, [5, 6, 7], 6)
    sequence.adapter = Adapter("a", b"a", {module: change})
    finish(generator, sequence)
    assert record.recorded == 0
    finish(generator, new(generator, [5, 6, 7], 6))
    assert record.recorded == 1


def test_there_is_room_for_the_longest_contexts(path: Path) -> None:
    generator = load(path, max_sequences=6)
    record = Remembering()
    runner: Any = with_graphs(generator, record).engine._runner
    tables = [list(range(first, first + 8)) for first in range(0, 48, 8)]
    with torch.inference_mode():
        runner([1] * 6, [Span(table, generator.context - 1, 1) for table in tables], None)
    assert record.replayed == [8]


def test_what_cannot_be_recorded_is_run(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    expected: list[Sequence] = [new(load(path), [5, 6, 7], 6)]
    finish(load(path), *expected)
    generator = with_graphs(load(path), fail)
    sequence = new(generator, [5, 6, 7], 6)
    finish(generator, sequence)
    assert sequence.tokens == expected[0].tokens
    assert caplog.text.count("CUDA graphs cannot be recorded here") == 1


class Streams:
    """What torch.cuda does, written down."""

    def __init__(self, fails: bool) -> None:
        self.current: object = "main"
        self.calls: list[str] = []
        self._fails = fails

    def wait_stream(self, other: object) -> None:
        self.calls.append("wait")

    @contextmanager
    def stream(self, stream: object) -> Iterator[None]:
        self.calls.append("stream")
        yield

    @contextmanager
    def graph(self, graph: object, **how: object) -> Iterator[None]:
        assert (how["stream"], how["capture_error_mode"]) == (self, "thread_local")
        self.calls.append("graph")
        self.current = "side"
        yield
        if self._fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.current = "main"

    def replay(self) -> None:
        self.calls.append("replay")


@pytest.mark.parametrize("fails", [False, True])
def test_a_function_is_run_once_and_then_recorded(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Streams(fails)
    for name, value in (
        ("Stream", lambda _: cuda),
        ("CUDAGraph", lambda: cuda),
        ("graph_pool_handle", object),
        ("current_stream", lambda: cuda),
        ("set_stream", lambda stream: setattr(stream, "current", "main")),
        ("stream", cuda.stream),
        ("graph", cuda.graph),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    results: list[Tensor] = []

    def function() -> Tensor:
        results.append(torch.zeros(1))
        return results[-1]

    record = graphs.CudaRecorder(torch.device("cuda", 0))
    if fails:
        with pytest.raises(RuntimeError, match="not permitted"):
            record(function)
    else:
        assert record(function)() is results[1]
    assert cuda.current == "main"
    assert cuda.calls == ["wait", "stream", "wait", "graph", *([] if fails else ["replay"])]


def test_processors_record_nothing(path: Path) -> None:
    engine = load(path).engine
    assert type(engine._runner) is Runner
    backend = Backend(graphs.TritonAttention)
    assert not backend.graphs
    assert type(choose_runner(engine._decoder, engine._cache, backend, sequences=1, context=8)) is Runner
