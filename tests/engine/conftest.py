"""The tests' models are tiny: a second thread would spend longer waking up than working."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
