"""What a setting costs in quality: perplexity of a model over a text, with one setting of the engine and another."""

from __future__ import annotations

import argparse
import asyncio
import math
import random
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import tokenizers

from bench.peers.engine_server import EngineServer, settings_of
from parkway.engine import builtin
from parkway.engine.directory import ModelDirectory
from parkway.engine.tokenizer import Tokenizer
from parkway.train.config import MiniConfig
from parkway.train.dialogue import Source, Turn, answer
from parkway.train.mini import read_split
from parkway.train.phrasing import FRAMES
from parkway.train.tokenizer import encode


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens, and which of them are scored."""

    tokens: list[int]
    scored: list[bool]


def windows_of(model: str, text: str, size: int, most: int) -> list[Prompt]:
    """The first `most` tokens of a text in prompts of `size` tokens.

    Each prompt begins with what the tokenizer puts before a text; without that, its own first token has no score.
    """
    tokenizer = Tokenizer(ModelDirectory(builtin.resolve(model)))
    start = tokenizer.encode("", special=True)
    tokens = tokenizer.encode(text, special=False)[:most]
    step = size - len(start)
    unscored = max(1, len(start))
    windows = (start + tokens[first : first + step] for first in range(0, len(tokens), step))
    return [
        Prompt(window, [place >= unscored for place in range(len(window))])
        for window in windows
        if len(window) > unscored
    ]


def held_out_dialogues(data: Path, most: int) -> list[Prompt]:
    """What a training run of park-mini held out, as dialogues; the answers are scored."""
    split = read_split(MiniConfig(data=data, out=Path("unused")))
    source = Source.of(split.trained, known=split.held_out)
    dice = random.Random(1)
    asked = ((source.ask(each, dice, frames=FRAMES, named=True), answer(each)) for each in split.held_out)
    dialogues = [(Turn("user", question), Turn("assistant", said)) for question, said in asked]
    tokenizer = tokenizers.Tokenizer.from_file(str(builtin.resolve("park-mini") / "tokenizer.json"))
    prompts: list[Prompt] = []
    for document in encode(tokenizer, dialogues):
        most -= len(document)
        if most < 0:
            break
        prompts.append(Prompt(document.token_ids.tolist(), document.predicted.tolist()))
    return prompts


async def perplexity(url: str, prompts: list[Prompt]) -> tuple[float, int]:
    """exp of minus the mean log probability of a scored token, and how many tokens that is of."""
    total, count = 0.0, 0
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=600)) as session:
        for prompt in prompts:
            body = {"model": "bench", "prompt": prompt.tokens, "max_tokens": 0, "echo": True, "logprobs": 0}
            async with session.post("/v1/completions", json=body) as response:
                reply = await response.json()
                if response.status != 200:
                    raise SystemExit(f"the engine refused: {reply['error']['message']}")
            scores = reply["choices"][0]["logprobs"]["token_logprobs"]
            scored = [score for score, wanted in zip(scores, prompt.scored, strict=True) if wanted]
            total += sum(scored)
            count += len(scored)
    return math.exp(-total / count), count


def main() -> None:
    """Starts the engine with the first setting, then with the second, and prints both and the ratio."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", help="a model directory, or the name of a built-in model")
    arguments.add_argument("text", type=Path, nargs="?", help="a text file that the model was not trained on")
    arguments.add_argument(
        "--held-out", type=Path, metavar="EXAMPLES", help="for park-mini: what was held out of these examples"
    )
    arguments.add_argument(
        "--set", action="append", required=True, metavar="KEY=VALUE[,KEY=VALUE]", help="engine settings; give it twice"
    )
    arguments.add_argument("--window", type=int, default=512, help="tokens of a prompt")
    arguments.add_argument("--tokens", type=int, default=100_000, help="the most tokens of the text to use")
    options = arguments.parse_args()
    if len(options.set) != 2:
        arguments.error(f"--set is given {len(options.set)} times; give it twice: what to compare with, then what")
    if (options.text is None) == (options.held_out is None):
        arguments.error("give a text, or --held-out")
    if options.text is None:
        prompts = held_out_dialogues(options.held_out, options.tokens)
    else:
        prompts = windows_of(options.model, options.text.read_text("utf-8"), options.window, options.tokens)
    if not prompts:
        arguments.error("that is too short: there is no second token to predict")
    found: list[float] = []
    for assignments in options.set:
        with EngineServer(options.model, settings_of(assignments.split(","))) as engine:
            value, count = asyncio.run(perplexity(engine.url, prompts))
        found.append(value)
        print(f"{assignments:40} {value:12.4f}   over {count:,} tokens", flush=True)
    print(f"{'ratio':40} {found[1] / found[0]:12.4f}")


if __name__ == "__main__":
    main()
