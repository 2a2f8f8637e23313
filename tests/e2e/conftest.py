"""The whole product, started as a user starts it, with a small random model that talks until it is told to stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.engine.tiny import CONFIGS, write_directory
from tests.running import Parkway

CONTEXT_TOKENS = 8192


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 directory with random weights and no end token: it always uses all the tokens that it may."""
    config = {**CONFIGS["qwen3-grouped-yarn"], "max_position_embeddings": CONTEXT_TOKENS}
    return write_directory(tmp_path_factory.mktemp("models") / "tiny", config)


@pytest.fixture(scope="session")
def parkway(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parkway]:
    """One running Parkway for all tests that leave it as it was."""
    settings: dict[str, object] = {
        "models": {"tiny": str(tiny_model), "park-embed": "park-embed"},
        "limits": {"rate_per_s": 10_000, "burst": 10_000},
        "budgets": [{"kind": "key", "period": "month", "tokens": 10**12}],
    }
    with Parkway(tmp_path_factory.mktemp("home"), settings) as running:
        yield running


@pytest.fixture
def client(parkway: Parkway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{parkway.url}/v1", api_key=parkway.key, max_retries=0, timeout=60) as client:
        yield client
