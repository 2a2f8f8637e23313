"""How fast `park-embed` makes vectors, beside torch, OpenVINO and ONNX Runtime: same machine, same weights, same texts.

Claims and abstracts (title and text, cut at 256 tokens) of SciFact, or generated texts of these lengths. Everybody gets
token ids and a process of its own, and in each round one turn; figures are medians of the rounds. "CPU ms" is what
processors spend on a text, which says more where they are busy with other things as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from bench.peers.environment import NotInstalled, interpreter
from bench.peers.process import ContestantProcess, Failed
from parkway.engine.builtin import PARK_EMBED, resolve

READS = 256
WORDS = (18, 220)  # of a generated claim and abstract
LEAST_COSINE = 0.999
QUERY_MS = 4.0  # that 95 of 100 may take
MODEL = resolve(PARK_EMBED)


@dataclass(frozen=True, slots=True)
class Texts:
    """What is embedded, as text and as token ids."""

    texts: list[str]
    ids: list[list[int]]

    @classmethod
    def of(cls, texts: list[str], tokenizer: Tokenizer) -> Texts:
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        return cls(texts, [each if len(each) <= READS else [*each[: READS - 1], each[-1]] for each in ids])

    def first(self, count: int) -> Texts:
        return Texts(self.texts[:count], self.ids[:count])


@dataclass(slots=True)
class Contestant:
    """Who is measured, and what was.

    Fields:
        module: what runs in its process.
        environment: the virtual environment it needs; None is this one.
        settings: for its `load`.
        reads: it is given texts, and tokenises them.
        rates: texts a second, by kind.
        costs_ms: of processors, for a text, by kind.
        waits_ms: how long single claims took.
    """

    name: str
    module: str
    environment: str | None = None
    settings: dict[str, str] = field(default_factory=dict[str, str])
    reads: bool = False
    process: ContestantProcess | None = None
    rates: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    costs_ms: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    waits_ms: list[float] = field(default_factory=list[float])
    cosine: float = float("nan")

    def embed(self, texts: Texts) -> dict[str, Any]:
        """Seconds, those of processors, and vectors."""
        assert self.process is not None, "it was started"
        what = {"texts": texts.texts} if self.reads else {"texts": texts.ids}
        return self.process.ask("read_and_embed" if self.reads else "embed", **what)

    def rate(self, kind: str) -> float:
        return statistics.median(self.rates[kind])

    def cost_ms(self, kind: str) -> float:
        return statistics.median(self.costs_ms[kind])

    def wait_ms(self, percent: int) -> float:
        return float(np.percentile(self.waits_ms, percent))


TORCH, OURS, OPENVINO = "torch float32", "parkway", "openvino"


def everybody() -> list[Contestant]:
    own = "bench.peers.encoder_parkway"
    return [
        Contestant(TORCH, own, settings={"dtype": "float32"}),
        Contestant(OURS, own, settings={"dtype": "auto"}),
        Contestant("parkway, from texts", own, settings={"dtype": "auto"}, reads=True),
        Contestant(OPENVINO, "bench.peers.encoder_openvino", "openvino"),
        Contestant("onnxruntime int8", "bench.peers.encoder_onnxruntime", "onnxruntime"),
    ]


def texts_from(folder: Path) -> dict[str, Texts]:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if folder.is_dir():
        documents = _lines(folder / "corpus.jsonl")
        found = {
            "claims": [each["text"] for each in _lines(folder / "queries.jsonl")],
            "abstracts": [f"{each['title']} {each['text']}" for each in documents],
        }
    else:
        print(f"{folder} is not there: generated texts")
        words = [word for word in tokenizer.get_vocab() if word.isalpha()]
        chance = random.Random(1)
        found = {
            kind: [
                " ".join(chance.choices(sorted(words), k=chance.randint(mean // 2, mean * 3 // 2))) for _ in range(1000)
            ]
            for kind, mean in zip(("claims", "abstracts"), WORDS, strict=True)
        }
    chance = random.Random(2)
    return {kind: Texts.of(chance.sample(texts, min(1000, len(texts))), tokenizer) for kind, texts in found.items()}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def start(options: argparse.Namespace, stack: contextlib.ExitStack) -> list[Contestant]:
    """Everybody who can be, with the model loaded."""
    ready: list[Contestant] = []
    work = options.cache / "work-embedding"
    work.mkdir(exist_ok=True)
    for each in everybody():
        if options.only and each.name != TORCH and not any(word in each.name for word in options.only):
            continue
        try:
            python = interpreter(each.environment, options.cache) if each.environment else Path(sys.executable)
            log = work / f"{each.name.replace(' ', '-').replace(',', '')}.log"
            process = ContestantProcess(python, each.module, log, timeout_s=options.timeout_s)
            each.process = stack.enter_context(process)
            model = PARK_EMBED if each.environment is None else str(MODEL)
            each.process.ask("load", model=model, work=str(work), threads=options.threads, **each.settings)
        except (NotInstalled, Failed) as error:
            print(f"{each.name} is left out: {error}", flush=True)
            continue
        ready.append(each)
    return ready


def measure(ready: list[Contestant], texts: dict[str, Texts], options: argparse.Namespace) -> None:
    plain: np.ndarray | None = None
    compared = texts["abstracts"].first(options.compared)
    for each in ready:  # and everybody is warm after it
        vectors = np.array(each.embed(compared)["vectors"])
        plain = vectors if plain is None else plain
        each.cosine = float((vectors * plain).sum(1).min())
        each.embed(texts["claims"].first(options.claims))
    counts = {"claims": options.claims, "abstracts": options.abstracts}
    chance = random.Random(3)
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
        for each in chance.sample(ready, len(ready)):
            for kind, count in counts.items():
                reply = each.embed(texts[kind].first(count))
                each.rates.setdefault(kind, []).append(count / reply["seconds"])
                each.costs_ms.setdefault(kind, []).append(1000 * reply["cpu_seconds"] / count)
            for place in range(options.queries):
                one = Texts(texts["claims"].texts[place : place + 1], texts["claims"].ids[place : place + 1])
                each.waits_ms.append(1000 * each.embed(one)["seconds"])


def show(ready: list[Contestant], texts: dict[str, Texts], options: argparse.Namespace) -> None:
    tokens = {kind: statistics.mean(map(len, each.ids)) for kind, each in texts.items()}
    print(
        f"\n{platform.processor() or platform.machine()}, {options.threads} threads, {options.rounds} rounds; ", end=""
    )
    print(", ".join(f"{kind} of {mean:.0f} tokens" for kind, mean in tokens.items()))
    columns = (
        ("claims/s", 10),
        ("CPU ms", 8),
        ("abstracts/s", 13),
        ("CPU ms", 8),
        ("least cosine", 14),
        ("query p50", 11),
    )
    print(" " * 22 + "".join(f"{name:>{width}}" for name, width in (*columns, ("p95 ms", 8))))
    for each in ready:
        print(
            f"{each.name:22}{each.rate('claims'):10.0f}{each.cost_ms('claims'):8.2f}{each.rate('abstracts'):13.1f}"
            f"{each.cost_ms('abstracts'):8.1f}{each.cosine:14.5f}{each.wait_ms(50):11.2f}{each.wait_ms(95):8.2f}"
        )
    named = {each.name: each for each in ready}
    if OURS not in named:
        return
    ours = named[OURS]
    print()
    for kind in texts if OPENVINO in named else ():
        ratio = ours.rate(kind) / named[OPENVINO].rate(kind)
        _verdict(f"{kind}, times OpenVINO", ratio, ratio >= 1, "at least 1")
    _verdict("least cosine to float32", ours.cosine, ours.cosine >= LEAST_COSINE, f"at least {LEAST_COSINE}")
    _verdict("one query, p95 ms", ours.wait_ms(95), ours.wait_ms(95) <= QUERY_MS, f"at most {QUERY_MS:g}")


def _verdict(what: str, found: float, met: bool, asked: str) -> None:
    print(f"{what:28}{found:9.4g}   asked: {asked:16}{'met' if met else 'NOT MET'}")


def main() -> None:
    """Prints a line for each contestant, and what is asked of Parkway."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=Path("../shared/data/scifact"), help="SciFact in BEIR's layout")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--claims", type=int, default=500, help="in a round")
    arguments.add_argument("--abstracts", type=int, default=64, help="in a round")
    arguments.add_argument("--queries", type=int, default=60, help="claims one by one in a round")
    arguments.add_argument("--compared", type=int, default=500, help="abstracts whose vectors are compared")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--only", action="append", metavar="WORD", help="beside torch, only names with WORD")
    arguments.add_argument("--cache", type=Path, default=Path.home() / ".cache/parkway-bench", help="peers")
    arguments.add_argument("--timeout-s", type=float, default=1800, help="of one request")
    options = arguments.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    texts = texts_from(options.data)
    with contextlib.ExitStack() as stack:
        ready = start(options, stack)
        measure(ready, texts, options)
    show(ready, texts, options)


if __name__ == "__main__":
    main()
