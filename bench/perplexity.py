"""What a setting costs in quality: perplexity of a model over a text, with one setting of the engine and another."""

from __future__ import annotations

import argparse
import asyncio
import math
from pathlib import Path

import aiohttp

from bench.peers.engine_server import EngineServer, settings_of
from parkway.engine import builtin
from parkway.engine.directory import ModelDirectory
from parkway.engine.tokenizer import Tokenizer


def windows_of(model: str, text: str, size: int, most: int) -> tuple[int, list[list[int]]]:
    """The first `most` tokens of a text in prompts of `size` tokens, and how many at a prompt's start are not scored.

    Each prompt begins with what the tokenizer puts before a text; without that, its own first token has no score.
    """
    tokenizer = Tokenizer(ModelDirectory(builtin.resolve(model)))
    start = tokenizer.encode("", special=True)
    tokens = tokenizer.encode(text, special=False)[:most]
    step = size - len(start)
    prompts = [start + tokens[first : first + step] for first in range(0, len(tokens), step)]
    unscored = max(1, len(start))
    return unscored, [prompt for prompt in prompts if len(prompt) > unscored]


async def perplexity(url: str, prompts: list[list[int]], unscored: int) -> tuple[float, int]:
    """exp of minus the mean log probability of a token, and how many tokens that is of."""
    total, count = 0.0, 0
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=600)) as session:
        for prompt in prompts:
            body = {"model": "bench", "prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 0}
            async with session.post("/v1/completions", json=body) as response:
                answer = await response.json()
                if response.status != 200:
                    raise SystemExit(f"the engine refused: {answer['error']['message']}")
            scores = answer["choices"][0]["logprobs"]["token_logprobs"][unscored:]
            total += sum(scores)
            count += len(scores)
    return math.exp(-total / count), count


def main() -> None:
    """Starts the engine with the first setting, then with the second, and prints both and the ratio."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", help="a model directory, or the name of a built-in model")
    arguments.add_argument("text", type=Path, help="a text file that the model was not trained on")
    arguments.add_argument(
        "--set", action="append", required=True, metavar="KEY=VALUE[,KEY=VALUE]", help="engine settings; give it twice"
    )
    arguments.add_argument("--window", type=int, default=512, help="tokens of a prompt")
    arguments.add_argument("--tokens", type=int, default=100_000, help="the most tokens of the text to use")
    options = arguments.parse_args()
    if len(options.set) != 2:
        arguments.error(f"--set is given {len(options.set)} times; give it twice: what to compare with, then what")
    text = options.text.read_text(encoding="utf-8")
    unscored, prompts = windows_of(options.model, text, options.window, options.tokens)
    if not prompts:
        arguments.error(f"{options.text} is too short: there is no second token to predict")
    found: list[float] = []
    for assignments in options.set:
        with EngineServer(options.model, settings_of(assignments.split(","))) as engine:
            value, count = asyncio.run(perplexity(engine.url, prompts, unscored))
        found.append(value)
        print(f"{assignments:40} {value:12.4f}   over {count:,} tokens", flush=True)
    print(f"{'ratio':40} {found[1] / found[0]:12.4f}")


if __name__ == "__main__":
    main()
