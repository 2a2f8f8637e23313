"""Many at once: how much longer 2, 10 and 20 identical requests take than one, on park-mini and on a 0.4 B model."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp

from tests.engine.tiny import write_directory
from tests.running import Parkway

# Qwen2-0.5B's shape with a vocabulary of 32,000: 386 million parameters, random weights.
LARGE = {
    "model_type": "qwen2",
    "vocab_size": 32_000,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "rope_theta": 1e6,
}
AT_ONCE = (1, 2, 10, 20)


async def ask(session: aiohttp.ClientSession, parkway: Parkway, model: str, tokens: int) -> int:
    """One request; the tokens of its answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "How do I unpack a .tar.gz into another folder?"}],
        "max_tokens": tokens,
        "temperature": 0,
    }
    headers = {"authorization": f"Bearer {parkway.key}"}
    async with session.post(f"{parkway.url}/v1/chat/completions", json=body, headers=headers) as response:
        answer = await response.json()
        if response.status != 200:
            raise SystemExit(f"{model}: {answer}")
        return int(answer["usage"]["completion_tokens"])


async def measure(parkway: Parkway, model: str, tokens: int, rounds: int) -> None:
    """Alternates the numbers at once; prints medians and the ratio to one."""
    took: dict[int, list[float]] = {number: [] for number in AT_ONCE}
    made = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        await ask(session, parkway, model, tokens)
        for _ in range(rounds):
            for number in AT_ONCE:
                started = time.monotonic()
                counts = await asyncio.gather(*(ask(session, parkway, model, tokens) for _ in range(number)))
                took[number].append(time.monotonic() - started)
                made = counts[0]
    alone = statistics.median(took[1])
    print(f"{model}, {made} tokens an answer")
    for number in AT_ONCE:
        seconds = statistics.median(took[number])
        rate = number * made / seconds
        print(f"  {number:3} at once  {seconds:8.2f} s  {seconds / alone:6.2f} times one  {rate:8.0f} tokens/s")
    print(
        "  asked for: 20 at once at most 3 times one; a popular local runtime is quoted with 20.4 times (49 s / 2.4 s)"
    )


def main() -> None:
    """Starts one model after the other and measures each."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--model", choices=("park-mini", "large", "both"), default="both")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="parkway-bench-") as name:
        folder = Path(name)
        if options.model != "large":
            with Parkway(folder / "mini", {"models": {"park-mini": "park-mini"}}) as parkway:
                asyncio.run(measure(parkway, "park-mini", options.tokens, options.rounds))
        if options.model != "park-mini":
            path = write_directory(folder / "random-0.4b", LARGE)
            with Parkway(folder / "large", {"models": {"random-0.4b": str(path)}}) as parkway:
                asyncio.run(measure(parkway, "random-0.4b", options.tokens, options.rounds))


if __name__ == "__main__":
    main()
