"""What a model's makers recommend, and what the request does not say."""

import json
from pathlib import Path

import pytest

from parkway.core.chat import ChatRequest, Message
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.generator import Generator
from tests.engine.tiny import CONFIGS, write_directory


@pytest.mark.parametrize(
    ("recommended", "asked", "expected"),
    [(5, None, 5), (5, 9, 9), (10_000, None, 64), (None, None, 64), ("many", None, 64)],
)
def test_the_recommended_length_bounds_an_answer_without_a_limit(
    tmp_path: Path, recommended: object, asked: int | None, expected: int
) -> None:
    path = write_directory(tmp_path / "tiny", CONFIGS["qwen2-grouped-tied"])
    if recommended is not None:
        (path / "generation_config.json").write_text(json.dumps({"max_new_tokens": recommended}))
    generator = Generator.load(ModelDirectory(path), EngineConfig(max_answer_tokens=64))
    request = ChatRequest(model="tiny", messages=[Message(role="user", content="hello")], max_tokens=asked)
    assert [sequence.max_tokens for sequence in generator.chat(request)] == [expected]
