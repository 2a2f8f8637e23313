"""The tests' models are tiny: a second thread would spend longer waking up than working."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Where Triton is imported it looks whether its kernels are to be interpreted: on a GPU they run there.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
