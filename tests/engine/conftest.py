"""The tests' models are tiny: a second thread would spend longer waking up than working."""

import os
from collections.abc import Iterator

import pytest
import torch

from parkway.engine import native

if not torch.cuda.is_available():
    # Where Triton is imported it looks whether its kernels are to be interpreted: on a GPU they run there.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where our own kernels were not built."""
    native.kernels.cache_clear()
    monkeypatch.setenv("PARKWAY_KERNELS", "off")
    yield
    native.kernels.cache_clear()


@pytest.fixture
def emulated_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the processor has tiles, but for the speed."""
    kernels = native.kernels()
    if kernels is None:
        pytest.skip("the kernels were not built, or this processor lacks AVX-512 VNNI and BF16")
    monkeypatch.setattr(kernels, "int8_tiles", native.Tiles.EMULATED)
    monkeypatch.setattr(kernels, "bfloat16_tiles", native.Tiles.EMULATED)
