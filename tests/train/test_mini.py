"""From data to a directory that the engine serves."""

import json
from pathlib import Path

from parkway.train.mini import read_split, train
from parkway.train.respondent import Respondent
from tests.train.made_up import small_config


def test_a_run_writes_a_directory_that_answers(tmp_path: Path) -> None:
    outside = tmp_path / "outside.jsonl"
    outside.write_text('{"text": "Why is the sky blue?"}\n{"text": "Who was Plato?"}\n')
    # The time of a step or two: what is tested is the way through, not what is learned.
    config = small_config(tmp_path, minutes=0.001, outside=(outside,), log_steps=1, examine_steps=1)
    train(config)
    files = {path.name for path in config.out.iterdir()}
    assert files == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
        "loss.png",
        "README.md",
    }
    record = json.loads((config.out / "training.json").read_text())
    assert record["steps"] >= 1
    assert record["curve"][-1]["step"] == record["steps"]
    assert {each["name"]: each["asked"] for each in record["figures"]}["held-out tasks, command named"] == 3
    card = (config.out / "README.md").read_text()
    assert "tldr-pages team and contributors" in card
    assert "CC BY 4.0" in card
    assert "{" not in card.split("## Answers as they came")[0]
    (reply,) = Respondent(config.out).answer(["List files"])
    assert isinstance(reply.text, str)


def test_a_split_is_the_same_for_training_and_examination(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    assert read_split(config) == read_split(config)
