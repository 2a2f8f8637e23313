"""A short run learns, survives an interruption, and keeps to its schedule."""

from pathlib import Path

import pytest
import torch

from parkway.train.export import export
from parkway.train.mini import read_split
from parkway.train.run import Run
from tests.train.made_up import small_config


def run_of(folder: Path, **changes: object) -> Run:
    config = small_config(folder, **changes)
    return Run(config, read_split(config))


def test_twenty_steps_lower_the_loss(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    batches = run._batches()
    before = run.held_out_loss()
    losses = [run.step(next(batches), rate=1.0)["train"] for _ in range(20)]
    assert losses[-1] < losses[0] - 1.0
    assert run.held_out_loss() < before - 1.0
    assert run.progress.step == 20
    assert run.progress.tokens == 20 * 4 * 128


def test_a_run_carries_on_from_its_checkpoint(tmp_path: Path) -> None:
    first = run_of(tmp_path)
    batches = first._batches()
    for _ in range(3):
        first.step(next(batches), rate=1.0)
    first.save()
    second = run_of(tmp_path)
    assert second.progress == first.progress
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    batch = next(batches)
    assert second.step(batch, rate=0.5)["train"] == pytest.approx(first.step(batch, rate=0.5)["train"], rel=1e-4)
    # The update that follows is the same too: the optimisers' state came along.
    assert second.step(batch, rate=0.5)["train"] == pytest.approx(first.step(batch, rate=0.5)["train"], rel=1e-4)


def test_a_run_starts_from_a_directory(tmp_path: Path) -> None:
    first = run_of(tmp_path)
    batch = next(first._batches())
    first.step(batch, rate=1.0)
    export(first.config.out, first.model, first.tokenizer, first.config.architecture())
    second = run_of(tmp_path, out=tmp_path / "second", start=first.config.out)
    assert second.tokenizer.to_str() == first.tokenizer.to_str()
    assert second.progress.step == 0
    for name, weights in second.model.state_dict().items():
        assert torch.equal(weights, first.model.state_dict()[name].bfloat16().float())
    assert second.step(batch, rate=1.0)["train"] == pytest.approx(first.step(batch, rate=1.0)["train"], rel=0.02)


def test_a_run_whose_minutes_are_used_up_takes_no_step(tmp_path: Path) -> None:
    run = run_of(tmp_path, minutes=1.0)
    run.progress.trained_s = 60.0
    run.train()
    assert run.progress.step == 0
    assert run.checkpoint.exists()


def test_the_rate_rises_and_ends_at_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path, warmup_share=0.1)
    rates = [run._rate(done) for done in (0.0, 0.05, 0.1, 0.5, 0.9, 1.0)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1.0)
    assert rates[2] > rates[3] > rates[4] > rates[5] == 0.0
