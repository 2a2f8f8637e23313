"""What it costs to get the same answer to the last bit: tokens a second with `deterministic`, against without."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from bench.concurrency import LARGE
from parkway.engine import machine
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.generator import Generator
from parkway.engine.sampler import Sampling
from parkway.engine.sequence import Sequence
from tests.engine.tiny import write_directory

AT_ONCE = (1, 8)


def rate(generator: Generator, number: int, prompt_tokens: int, tokens: int, turn: int) -> float:
    """Generated tokens a second for so many requests at once, prompts included, which no other `turn` has."""
    sequences = [
        Sequence(
            [(each * 7 + place + turn * 131) % 1000 for place in range(prompt_tokens)],
            max_tokens=tokens,
            sampling=Sampling(temperature=0),
            deadline=time.monotonic() + 3600,
            tokenizer=generator.tokenizer,
        )
        for each in range(number)
    ]
    started = time.monotonic()
    generator.engine.add(sequences)
    while generator.engine.running or generator.engine.waiting:
        generator.engine.step()
    return number * tokens / (time.monotonic() - started)


def main() -> None:
    """Alternates the two and prints medians and their ratio."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--prompt", type=int, default=128)
    arguments.add_argument("--tokens", type=int, default=64)
    options = arguments.parse_args()
    import torch  # after parkway.engine, which sets how its threads wait

    torch.set_num_threads(machine.cores())
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name:
        path = write_directory(Path(name) / "random-0.4b", LARGE)
        # Nothing of a prompt is kept from round to round, or only the first round would read it.
        contestants = {
            kind: Generator.load(
                ModelDirectory(path),
                EngineConfig(
                    model=str(path), deterministic=kind == "deterministic", guess_tokens=0, cache_bytes=1 << 28
                ),
            )
            for kind in ("plain", "deterministic")
        }
        found: dict[tuple[str, int], list[float]] = {}
        for turn in range(options.rounds):
            for number in AT_ONCE:
                for kind, generator in contestants.items():
                    found.setdefault((kind, number), []).append(
                        rate(generator, number, options.prompt, options.tokens, turn)
                    )
    print(f"386 M parameters, prompts of {options.prompt} tokens, {options.tokens} generated")
    for number in AT_ONCE:
        plain, exact = (statistics.median(found[kind, number]) for kind in contestants)
        print(f"  {number:2} at once  {plain:8.1f} tokens/s  deterministic {exact:8.1f}  ratio {exact / plain:.2f}")


if __name__ == "__main__":
    main()
